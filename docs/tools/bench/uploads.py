"""Many large blobs sent to a registry at the same time."""

from __future__ import annotations

import base64
import hashlib
import http.client
import threading
import time

from .shell import BenchError

BLOCK = bytes(range(256)) * 4096


def digest(blocks: int, algorithm: str) -> str:
    hasher = hashlib.new(algorithm)
    for _ in range(blocks):
        hasher.update(BLOCK)
    return f"{algorithm}:{hasher.hexdigest()}"


def at_once(host: str, token: str, repository: str, count: int, blocks: int, named: str) -> float:
    """Sends so many blobs of so many megabytes each, all begun before the first ends; how long it took."""
    login = base64.b64encode(f"bench:{token}".encode()).decode()
    failures: list[str] = []
    ready = threading.Barrier(count + 1)

    def upload() -> None:
        try:
            send(host, login, repository, blocks, named, ready)
        except (OSError, http.client.HTTPException, BenchError, threading.BrokenBarrierError) as error:
            ready.abort()
            failures.append(str(error))

    threads = [threading.Thread(target=upload) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        ready.wait()
    except threading.BrokenBarrierError:
        pass
    begun = time.perf_counter()
    for thread in threads:
        thread.join()
    if failures:
        raise BenchError(f"{len(failures)} of {count} uploads have failed: {failures[0]}")
    return time.perf_counter() - begun


def send(host: str, login: str, repository: str, blocks: int, named: str, ready: threading.Barrier) -> None:
    connection = http.client.HTTPConnection(host, timeout=600)
    headers = {"Authorization": f"Basic {login}"}
    try:
        connection.request("POST", f"/v2/{repository}/blobs/uploads/", headers=headers)
        begun = connection.getresponse()
        begun.read()
        if begun.status != 202:
            raise BenchError(f"an upload was not begun: {begun.status}")
        ready.wait()
        connection.putrequest("PUT", f"{begun.headers['Location']}?digest={named}")
        for name, value in {**headers, "Content-Length": str(blocks * len(BLOCK))}.items():
            connection.putheader(name, value)
        connection.endheaders()
        for _ in range(blocks):
            connection.send(BLOCK)
        done = connection.getresponse()
        done.read()
        if done.status != 201:
            raise BenchError(f"a blob was not taken: {done.status}")
    finally:
        connection.close()


def peak(pid: int) -> int:
    """Bytes that a process had in memory at most."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    raise BenchError("the kernel does not say how much memory the server had")
