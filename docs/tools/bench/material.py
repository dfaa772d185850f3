"""What images are made of: machine code of a known size, and this workspace's release."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from .shell import BenchError, Workshop, run

MEGABYTE = 1_000_000
SYNTHETIC = 107 * MEGABYTE
HUGE = 2_000 * MEGABYTE
BINARIES = ("one", "two", "three", "four")
# A file written just now may be written again within one tick of the clock, so caches distrust it.
AN_HOUR = 3600


@dataclass
class Material:
    """A build context whose binaries can be made new."""

    context: Path
    binaries: list[Path]
    name: str
    generation: int = 0
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = sum(path.stat().st_size for path in self.binaries)

    def renew(self) -> None:
        """Makes all binaries such as nobody has seen before."""
        for binary in self.binaries:
            self._mark(binary)

    def change_one(self) -> int:
        """Makes one binary new; its size."""
        self._mark(self.binaries[1])
        return self.binaries[1].stat().st_size

    def _mark(self, binary: Path) -> None:
        """Writes a number no earlier image had over the last bytes: code stays code."""
        self.generation += 1
        mark = f"{os.getpid()}.{time.time_ns()}.{self.generation}".encode().rjust(64, b".")
        with open(binary, "r+b") as file:
            file.seek(-len(mark), os.SEEK_END)
            file.write(mark)
        moment = time.time() - AN_HOUR + self.generation
        os.utime(binary, (moment, moment))


def synthetic(workshop: Workshop, size: int = SYNTHETIC) -> Material:
    """Four files of machine code on an empty base."""
    context = workshop.folder(f"context-{size // MEGABYTE}")
    source = machine_code()
    binaries = []
    for number, name in enumerate(BINARIES):
        path = context / name
        fill(path, source, size // len(BINARIES), offset=number * size // len(BINARIES))
        path.chmod(0o755)
        binaries.append(path)
    copies = "".join(f"COPY {name} /app/bin/\n" for name in BINARIES)
    (context / "Dockerfile").write_text(f'FROM scratch\n{copies}ENTRYPOINT ["/app/bin/one"]\n')
    return Material(context, binaries, f"synthetic, 4 binaries, {size // MEGABYTE} MB")


def machine_code() -> Path:
    """The compiler's library: the largest piece of code that every Rust machine has."""
    library = Path(run(["rustc", "--print", "sysroot"]).strip()) / "lib"
    found = sorted(library.glob("librustc_driver-*.so"), key=lambda path: path.stat().st_size)
    if not found:
        raise BenchError("rustc has no librustc_driver: install the toolchain with rustup")
    return found[-1]


def fill(path: Path, source: Path, size: int, offset: int) -> None:
    """Takes `size` bytes of `source` from `offset` on, from its start again when it ends."""
    length = source.stat().st_size
    with open(source, "rb") as code, open(path, "wb") as out:
        left = size
        position = offset % length
        while left > 0:
            code.seek(position)
            piece = code.read(min(left, 8 * 1024 * 1024))
            out.write(piece)
            left -= len(piece)
            position = (position + len(piece)) % length


def release(workshop: Workshop, checkout: Path, target: Path) -> Material:
    """This workspace's own image, on a base of the machine's libraries that every tool can copy."""
    context = workshop.folder("context-release")
    text = (checkout / ".systemprompt" / "Dockerfile").read_text()
    sources = re.findall(r"^COPY (\S+) \S+$", text, re.MULTILINE)
    binaries = []
    for source in sources:
        binary = source.startswith("target/")
        origin = target / source[len("target/") :] if binary else checkout / source
        if not origin.exists():
            raise BenchError(f"{source} is missing: run docs/tools/bench-image --setup")
        place = context / source
        place.parent.mkdir(parents=True, exist_ok=True)
        if origin.is_dir():
            shutil.copytree(origin, place, dirs_exist_ok=True)
            continue
        shutil.copy2(origin, place)
        if binary:
            # Room for the mark behind everything that the loader reads.
            with open(place, "ab") as file:
                file.write(bytes(64))
            binaries.append(place)
    libraries(context / "base", binaries)
    text = re.sub(r"^FROM .*$", "FROM scratch\nCOPY base/ /", text, count=1, flags=re.MULTILINE)
    (context / "Dockerfile").write_text(text)
    return Material(context, binaries, "this workspace's release image")


def libraries(base: Path, binaries: list[Path]) -> None:
    """Copies the loader and the libraries of these programs to where they look for them."""
    for binary in binaries:
        listed = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, timeout=30, check=False).stdout
        for library in re.findall(r"(/\S+) \(0x", listed):
            place = base / library.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(os.path.realpath(library), place)
