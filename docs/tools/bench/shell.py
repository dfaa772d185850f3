"""Commands with a time limit, as root where they need it, and a folder that goes away."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Callable, Mapping, Optional, Sequence

# No single step of the benchmark takes a minute on two cores.
TIMEOUT = 300.0
POLL = 0.02


class BenchError(Exception):
    """Why there are no figures."""


def root_prefix() -> list[str]:
    """What commands that need root begin with."""
    return [] if os.geteuid() == 0 else ["sudo", "-n"]


def run(words: Sequence[object], environment: Optional[Mapping[str, str]] = None, timeout: float = TIMEOUT) -> str:
    """Runs a command; what it wrote to standard output."""
    command = [str(word) for word in words]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, env={**os.environ, **(environment or {})}
        )
    except FileNotFoundError as error:
        raise BenchError(f"{command[0]} is missing: run docs/tools/bench-image --setup") from error
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{command[0]} was still running after {timeout:g} s") from error
    if done.returncode != 0:
        raise BenchError(f"`{' '.join(command)}` ended with {done.returncode}:\n{done.stderr.strip()[-2000:]}")
    return done.stdout


def find(name: str, folders: Sequence[Path] = ()) -> Optional[str]:
    """A program in these folders, in `PATH`, or where Debian keeps those of administrators."""
    path = os.pathsep.join([*map(str, folders), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    return shutil.which(name, path=path)


def need(name: str, folders: Sequence[Path] = ()) -> str:
    found = find(name, folders)
    if found is None:
        raise BenchError(f"{name} is missing: run docs/tools/bench-image --setup")
    return found


def eventually(what: str, condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"{what} in {seconds:g} s")
        time.sleep(POLL)


class Daemon:
    """A process in a group of its own; its output goes to a file."""

    def __init__(self, words: Sequence[object], log: Path, environment: Optional[Mapping[str, str]] = None, as_root: bool = False):
        self.name = Path(str(words[0])).name
        self.log = log
        self.prefix = root_prefix() if as_root else []
        command = [*self.prefix, *map(str, words)]
        with open(log, "ab") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, env={**os.environ, **(environment or {})}
            )

    def wait_until(self, ready: Callable[[], object]) -> None:
        def look() -> object:
            if self.process.poll() is not None:
                raise BenchError(f"{self.name} ended:\n{self.log.read_text(errors='replace')[-2000:]}")
            return ready()

        eventually(f"{self.name} does not answer", look)

    def stop(self) -> None:
        """Asks it to end, and ends it after half a minute."""
        if self.process.poll() is None:
            self._signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self.process.wait()

    def _signal(self, number: int) -> None:
        if self.prefix:  # a process that sudo has started is not ours to signal; sudo passes it on
            subprocess.run([*self.prefix, "kill", f"-{number}", str(self.process.pid)], check=False)
        else:
            self.process.send_signal(number)


class Workshop:
    """The folder of everything that the benchmark makes; removed at the end, mounts first."""

    def __init__(self, parent: Path):
        parent.mkdir(parents=True, exist_ok=True)
        self.path = Path(tempfile.mkdtemp(prefix="bench-image-", dir=parent)).resolve()

    def __enter__(self) -> "Workshop":
        return self

    def __exit__(self, *_: object) -> None:
        for mount in reversed(_mounts_below(self.path)):
            subprocess.run([*root_prefix(), "umount", "--lazy", mount], check=False)
        subprocess.run([*root_prefix(), "rm", "-rf", "--one-file-system", str(self.path)], check=False)

    def folder(self, name: str) -> Path:
        path = self.path / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def empty(self, name: str) -> Path:
        shutil.rmtree(self.path / name, ignore_errors=True)
        return self.folder(name)


class NothingLeft:
    """Files that buildah and skopeo keep outside of all folders that can be chosen; removed unless they were there."""

    FILES = ("/var/lib/containers/cache/blob-info-cache-v1.boltdb", "/var/lib/containers/cache/blob-info-cache-v1.sqlite")
    FOLDERS = ("/var/lib/containers/cache", "/var/lib/containers/sigstore", "/var/lib/containers/storage", "/var/lib/containers")

    def __enter__(self) -> "NothingLeft":
        self.new = [file for file in self.FILES if not os.path.exists(file)]
        self.new_folders = [folder for folder in self.FOLDERS if not os.path.exists(folder)]
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run([*root_prefix(), "rm", "-f", *self.new], check=False)
        if self.new_folders:
            subprocess.run([*root_prefix(), "rmdir", *self.new_folders], check=False, capture_output=True)


def _mounts_below(folder: Path) -> list[str]:
    mounts = [line.split(" ")[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [mount for mount in mounts if mount.startswith(f"{folder}/")]
