"""What no tool can be much quicker than: the same bytes hashed and handed over, and nothing else."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Iterable, Optional
from urllib.parse import urlsplit

PARALLEL = 4
BLOCK = 1024 * 1024


def bare_push(host: str, repository: str, files: Iterable[Path]) -> float:
    """Seconds for each file's hash, POST and PUT, four at a time."""
    return _timed(files, lambda path: _hash_and_put(host, repository, path))


def hash_and_copy(folder: Path, files: Iterable[Path]) -> float:
    """Seconds for hashing and copying each file in one pass, four at a time."""
    return _timed(files, lambda path: _copy(path, folder / path.name))


def hash_and_flush(folder: Path, files: Iterable[Path]) -> float:
    """The same, and each copy flushed to the disk, as a server does that keeps what it has confirmed."""
    return _timed(files, lambda path: _copy(path, folder / path.name, flush=True))


def bare_mounts(host: str, source: str, tag: str, count: int) -> list[float]:
    """Seconds for each of so many further repositories: a mount of every blob, four at a time on connections
    that stay open, then the manifest."""
    connections = [http.client.HTTPConnection(host, timeout=60) for _ in range(PARALLEL)]
    try:
        media_type, manifest = _manifest(connections[0], source, tag)
        document = json.loads(manifest)
        digests = list(dict.fromkeys(part["digest"] for part in [document["config"], *document["layers"]]))
        with ThreadPoolExecutor(PARALLEL) as pool:
            return [_mount_all(pool, connections, f"bare-{number}", source, tag, digests, media_type, manifest) for number in range(count)]
    finally:
        for connection in connections:
            connection.close()


def _mount_all(pool, connections, repository, source, tag, digests, media_type, manifest) -> float:
    def mount(lane: int) -> None:
        for digest in digests[lane::PARALLEL]:
            _ask(connections[lane], "POST", f"/v2/{repository}/blobs/uploads/?mount={digest}&from={source}", 201)

    begun = time.perf_counter()
    list(pool.map(mount, range(PARALLEL)))
    _ask(connections[0], "PUT", f"/v2/{repository}/manifests/{tag}", 201, manifest, {"Content-Type": media_type})
    return time.perf_counter() - begun


def _manifest(connection: http.client.HTTPConnection, repository: str, tag: str) -> tuple[str, bytes]:
    connection.request("GET", f"/v2/{repository}/manifests/{tag}", headers={"Accept": "application/vnd.oci.image.manifest.v1+json"})
    answer = connection.getresponse()
    if answer.status != 200:
        raise OSError(f"the registry answers {answer.status} to a bare request for a manifest")
    return answer.headers["Content-Type"], answer.read()


def _ask(connection: http.client.HTTPConnection, method: str, target: str, expected: int, body: bytes = b"", headers: Optional[dict[str, str]] = None) -> None:
    connection.request(method, target, body, headers or {})
    answer = connection.getresponse()
    answer.read()
    if answer.status != expected:
        raise OSError(f"the registry answers {answer.status} to a bare {method}")


def _timed(files: Iterable[Path], work: Callable[[Path], None]) -> float:
    with ThreadPoolExecutor(PARALLEL) as pool:
        begun = time.perf_counter()
        list(pool.map(work, files))
        return time.perf_counter() - begun


def _hash_and_put(host: str, repository: str, path: Path) -> None:
    digest = hashlib.sha256()
    buffer = bytearray(BLOCK)
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
        connection = http.client.HTTPConnection(host, timeout=60)
        try:
            connection.request("POST", f"/v2/{repository}/blobs/uploads/", headers={"Content-Length": "0"})
            answer = connection.getresponse()
            answer.read()
            place = urlsplit(answer.headers["Location"])
            query = f"{place.query}&" if place.query else ""
            connection.putrequest("PUT", f"{place.path}?{query}digest=sha256:{digest.hexdigest()}")
            connection.putheader("Content-Type", "application/octet-stream")
            connection.putheader("Content-Length", str(path.stat().st_size))
            connection.endheaders()
            file.seek(0)
            connection.sock.sendfile(file)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 201:
                raise OSError(f"the registry answers {answer.status} to a bare upload")
        finally:
            connection.close()


def _copy(source: Path, target: Path, flush: bool = False) -> None:
    digest = hashlib.sha256()
    buffer = bytearray(BLOCK)
    with open(source, "rb", buffering=0) as file, open(target, "wb", buffering=0) as out:
        while count := file.readinto(buffer):
            piece = memoryview(buffer)[:count]
            digest.update(piece)
            out.write(piece)
        if flush:
            os.fsync(out.fileno())
    digest.hexdigest()
