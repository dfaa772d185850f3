"""docs/benchmarks.md: what was asked for and what was reached, then all figures."""

from __future__ import annotations

import argparse
import statistics
from typing import Optional, Sequence

from .material import HUGE, SYNTHETIC
from .report import MEGABYTE, Figures, Requirement, at_least, at_most, case_table, duration, megabytes, spread, table, within

BARE = "hash + POST + PUT, 4 at a time"
COPY = "hash + copy, 4 at a time"
FLUSH = "hash + copy + flush to the disk, 4 at a time"
MOUNTS = "mount of every blob, 4 at a time, + PUT of the manifest"
BASELINES = (("bare", BARE), ("copy", COPY), ("flush", FLUSH), ("mounts", MOUNTS))
CASES = (("first", "first push"), ("nothing", "nothing changed"), ("changed", "one binary changed"))
TITLES = {"synthetic": "Four binaries, 107 MB of machine code", "release": "This workspace's release image"}
REGISTRIES = {"repositories": "docker-registry", "tenants": "embedded"}
DOCKERS = ("docker, classic builder", "docker, BuildKit")
MEMORY_LIMIT = 64 * MEGABYTE
# What "a few milliseconds" for one more repository is taken to mean: of docker-registry beside what it takes itself
# for the requests that no push can do without.
REPOSITORY_LIMIT = 0.010


def write(figures: Figures, facts: Sequence[tuple[str, str]], arguments: argparse.Namespace) -> str:
    parts = [
        "# Benchmarks\n",
        "Written by `just bench-image` (`docs/tools/bench-image`); not edited by hand. Everything was measured side by\n"
        f"side in one run, {arguments.runs} runs of each, in turn. Shown are medians, and in brackets the quickest and the slowest run.\n",
        "Times are of whole commands, from before the process starts to after it has ended: for docker and buildah of `build`\n"
        "and `push` together. `in the process` is what our program itself measures, without its start. `dev` is the\n"
        "profile that `cargo xtask` has, `release` the optimised one. Requests are counted by the registry.\n",
        machine_section(facts),
        required_section(figures),
        *image_sections(figures),
        baselines_section(figures),
        embedded_section(figures),
        repositories_section(figures),
        memory_section(figures),
        what_is_compared(),
    ]
    return "\n".join(part for part in parts if part)


def machine_section(facts: Sequence[tuple[str, str]]) -> str:
    return "## Machine\n\n" + table(["", ""], ([name, value] for name, value in facts))


def required_section(figures: Figures) -> str:
    """Both profiles beside each other: what users have, and what optimisation would give."""
    rows = []
    for dev, release in zip(requirements(figures, "dev"), requirements(figures, "release")):
        rows.append([*dev.row(), *release.row()[2:]])
    header = ["case", "required", "dev", "reached", "release", "reached"]
    return (
        "## What was asked for\n\nAgainst docker means against the quicker of its two builders, with our image uncompressed "
        "where nothing else is said.\n\n" + table(header, rows)
    )


def requirements(figures: Figures, profile: str) -> list[Requirement]:
    plain, gzip = (f"ours, {kind} ({profile})" for kind in ("uncompressed", "gzip"))
    command = lambda case, whom: figures.seconds("synthetic", case, whom)  # noqa: E731
    docker = lambda case: quickest(figures, case)  # noqa: E731
    inside = lambda image, case: figures.seconds(image, case, plain, inside=True)  # noqa: E731
    nothing, changed, first, zipped = "nothing changed", "one binary of 27 MB changed", "first push, uncompressed", "first push, gzip"
    return [
        requests(figures, nothing, plain),
        at_least(nothing, 30, docker("nothing"), command("nothing", plain), "docker"),
        at_most(nothing, 0.015, inside("synthetic", "nothing"), "in the process", duration),
        at_least(changed, 8, docker("changed"), command("changed", plain), "docker"),
        at_least(changed, 4, command("changed", "buildah"), command("changed", plain), "buildah"),
        at_least(first, 8, docker("first"), command("first", plain), "docker"),
        within(first, 1.3, inside("synthetic", "first"), figures.seconds("baselines", "bare", BARE), BARE),
        at_least(zipped, 5, docker("first"), command("first", gzip), "docker"),
        within("first push into the embedded registry", 2, inside("embedded", "first"), figures.seconds("baselines", "copy", COPY), COPY),
        *(memory(figures, size, name) for size in (SYNTHETIC, HUGE) for name in (plain, gzip)),
        *more_repositories(figures, plain),
    ]


def quickest(figures: Figures, case: str) -> Optional[float]:
    known = [figures.seconds("synthetic", case, docker) for docker in DOCKERS]
    return min((seconds for seconds in known if seconds is not None), default=None)


def requests(figures: Figures, case: str, contestant: str) -> Requirement:
    asked = [sample.requests for sample in figures.of("synthetic", "nothing", contestant) if sample.requests is not None]
    if not asked:
        return Requirement(case, "1 request", "", None)
    return Requirement(case, "1 request", str(max(asked)), max(asked) == 1)


def memory(figures: Figures, size: int, contestant: str) -> Requirement:
    kind = "gzip" if "gzip" in contestant else "uncompressed"
    peaks = [sample.report["peak_memory_bytes"] for sample in figures.of("memory", str(size), contestant)]
    return at_most(f"peak memory, {size // MEGABYTE} MB, {kind}", MEMORY_LIMIT, max(peaks, default=None), "peak", megabytes)


def more_repositories(figures: Figures, contestant: str) -> list[Requirement]:
    """Whether the second and further repositories get blobs, and what each of them costs."""
    bare = figures.seconds("baselines", "mounts", MOUNTS)
    return [
        *further(figures, "100 repositories of docker-registry", "repositories", contestant, bare),
        *further(figures, "100 tenants of the embedded registry", "tenants", contestant, 0.0),
    ]


def further(figures: Figures, case: str, image: str, contestant: str, bare: Optional[float]) -> list[Requirement]:
    later = [push for sample in figures.of(image, "100", contestant) for push in sample.report["pushes"][1:]]
    what = "each further one" if bare == 0 else "each further one, above the bare mounts and PUT"
    if not later or bare is None:
        return [Requirement(case, "no blob sent after the first", "", None), at_most(case, REPOSITORY_LIMIT, None, what, duration)]
    blobs = sum(push["uploaded"] for push in later)
    cost = max(0.0, statistics.median(push["seconds"] for push in later) - bare)
    return [
        Requirement(case, "no blob sent after the first", f"{blobs} blobs", blobs == 0),
        at_most(case, REPOSITORY_LIMIT, cost, what, duration),
    ]


def image_sections(figures: Figures) -> list[str]:
    return [f"## {TITLES[image]}\n\n{case_table(figures, image, CASES)}" for image in figures.images() if image in TITLES]


def baselines_section(figures: Figures) -> str:
    known = [(name, [sample.seconds for sample in figures.of("baselines", case, name)]) for case, name in BASELINES]
    rows = [[name, spread(seconds)] for name, seconds in known if seconds]
    text = (
        "## Baselines\n\nThe same 107 MB, by a few lines of Python: into docker-registry, from one file to another, and to a further repository of docker-registry "
        "(the median is that of each one of 100). The embedded registry flushes every blob before it confirms it, a copy does not.\n\n"
    )
    return text + table(["", ""], rows) if rows else ""


def embedded_section(figures: Figures) -> str:
    if "embedded" not in figures.images():
        return ""
    return (
        "## Into the embedded registry\n\n107 MB in four binaries, made right in the registry's store, which is on the same machine and belongs to the same user, as `cargo xtask deploy` does "
        "it; the server is the release build.\n\n"
    ) + case_table(figures, "embedded", CASES)


def repositories_section(figures: Figures) -> str:
    rows = []
    for image, count, contestant in figures.samples:
        if image not in REGISTRIES:
            continue
        samples = figures.of(image, count, contestant)
        later = [push["seconds"] for sample in samples for push in sample.report["pushes"][1:]]
        last = samples[-1].report["pushes"][-1]
        sent = "–" if count == "1" else f"{last['bytes_sent']} bytes, {last['requests']} requests"
        rows.append([REGISTRIES[image], contestant, count, spread([sample.seconds for sample in samples]), spread(later), sent])
    header = ["registry", "", "repositories", "all of it", "each further one", "of which the last sent"]
    return "## One image, many repositories\n\n" + table(header, rows) if rows else ""


def memory_section(figures: Figures) -> str:
    rows = [
        [contestant, f"{int(size) // MEGABYTE} MB", megabytes(max(sample.report["peak_memory_bytes"] for sample in samples)), duration(samples[0].seconds)]
        for (image, size, contestant), samples in figures.samples.items()
        if image == "memory"
    ]
    return "## Peak memory\n\nOf our process, by the kernel's account (`VmHWM`), in a first push.\n\n" + table(["", "image", "peak", "took"], rows) if rows else ""


def what_is_compared() -> str:
    return (
        "## What is compared\n\n"
        "- All build the same Dockerfile from the same context and push to the same `docker-registry` on loopback, which stores files and asks for no\n"
        "  password. It is started anew, empty, before each first push; binaries are new for every contestant and run, so no cache knows them.\n"
        "- The machine code is that of the compiler's own library, cut into four files of equal length. The release image stands on the\n"
        "  loader and libraries of the machine, copied like its other files, because no base image can be pulled by all contestants alike.\n"
        "- docker and buildah compress layers with gzip when they push. Ours does not for a registry on this machine, as `cargo xtask deploy` does\n"
        "  not; the rows with gzip are of its default for registries elsewhere, level 1 of libdeflate, whose layers are a few per cent\n"
        "  larger than those of level 6, which docker takes.\n"
        "- docker's daemon runs throughout, and its start is not measured. buildah runs as root on overlayfs, with `--layers`.\n"
        "- skopeo builds nothing: it sends an image that is assembled and compressed already. Its row is for the push alone.\n"
    )
