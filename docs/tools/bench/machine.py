"""What it was measured on: hardware and versions, nothing that names the machine or its owner."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any, Sequence


def common(folder: Path) -> list[tuple[str, str]]:
    """What every measurement depends on."""
    return [
        ("cores", str(os.cpu_count())),
        ("processor", processor()),
        ("memory", f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"),
        ("file system", file_system(folder)),
        ("kernel", platform.release().split("-")[0]),
        ("rustc", version(["rustc", "--version"])),
    ]


def facts(benchmark: Any) -> list[tuple[str, str]]:
    found = [
        *common(benchmark.workshop.path),
        ("docker-registry", version([benchmark.registry.program, "--version"])),
    ]
    engine = getattr(benchmark, "engine", None)
    if engine:
        found.append(("Docker Engine", f"{engine.version()}, client {version([engine.client, '--version'])}"))
        buildx = engine.docker("buildx", "version") if engine.buildx else ""
        found.append(("docker buildx", number(buildx) if buildx else "not to be had: BuildKit is that of `docker build` itself"))
        found.append(("buildah", version(["buildah", "--version"])))
        found.append(("skopeo", version(["skopeo", "--version"])))
    return found


def processor() -> str:
    match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return match.group(1) if match else platform.machine()


def file_system(folder: Path) -> str:
    """Of the longest mount point that the folder is below."""
    best = ("", "unknown")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split(" ")
        if f"{folder}/".startswith(point.rstrip("/") + "/") and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


def version(words: Sequence[str]) -> str:
    try:
        shown = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return "missing"
    return number(shown.stdout + shown.stderr)


def number(text: str) -> str:
    """The first thing that looks like a version."""
    match = re.search(r"\d+\.\d+(\.\d+)?", text)
    return match.group(0) if match else text.strip().split("\n")[0]
