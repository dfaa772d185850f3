"""What no tool can be much quicker than: the same bytes hashed and handed over, and nothing else."""

from __future__ import annotations

import hashlib
import http.client
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Iterable
from urllib.parse import urlsplit

PARALLEL = 4
BLOCK = 1024 * 1024


def bare_push(host: str, repository: str, files: Iterable[Path]) -> float:
    """Seconds for each file's hash, POST and PUT, four at a time."""
    return _timed(files, lambda path: _hash_and_put(host, repository, path))


def hash_and_copy(folder: Path, files: Iterable[Path]) -> float:
    """Seconds for hashing and copying each file in one pass, four at a time."""
    return _timed(files, lambda path: _copy(path, folder / path.name))


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


def _copy(source: Path, target: Path) -> None:
    digest = hashlib.sha256()
    buffer = bytearray(BLOCK)
    with open(source, "rb", buffering=0) as file, open(target, "wb", buffering=0) as out:
        while count := file.readinto(buffer):
            piece = memoryview(buffer)[:count]
            digest.update(piece)
            out.write(piece)
    digest.hexdigest()
