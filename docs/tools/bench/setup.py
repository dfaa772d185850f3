"""Installs what the benchmark measures, and builds our side of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Mapping, Sequence

from .shell import BenchError, find, root_prefix

# Registries, engines and builders of the Debian that runs here.
PACKAGES = {"docker-registry": "docker-registry", "dockerd": "docker.io", "docker": "docker.io", "buildah": "buildah", "skopeo": "skopeo"}
# BuildKit's client is in no older Debian; the engine of the same release has the BuildKit to go with
# it. Both run on Debian 12 from a folder, without being installed.
NEWER = ("docker-buildx", "docker.io", "docker-cli")
NEWER_SUITE = "trixie"
# What the release image holds.
RELEASE = ("systemprompt", "system-tools", "systemprompt-infrastructure", "systemprompt-admin")


def tools(target: Path) -> Path:
    """Where the newer engine is unpacked; `cargo xtask test --setup` brings the same."""
    return target / "test-tools" / "debian"


def install(checkout: Path, target: Path) -> None:
    debian(PACKAGES)
    if not (tools(target) / "usr/sbin/dockerd").exists():
        newer(tools(target))
    build(checkout)
    if not all((target / "release" / name).exists() for name in RELEASE):
        command(["cargo", "xtask", "build-all"], folder=checkout)


def debian(wanted: Mapping[str, str]) -> None:
    """Installs the packages of programs that are missing."""
    packages = sorted({package for program, package in wanted.items() if find(program) is None})
    if packages:
        say(f"installing {' '.join(packages)}")
        apt = [*root_prefix(), "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=600"]
        command([*apt, "update"])
        command([*apt, "install", "-y", "--no-install-recommends", *packages])


def newer(folder: Path) -> None:
    """Unpacks the engine and buildx of a newer Debian, with that Debian's list of packages alone."""
    say(f"fetching {' '.join(NEWER)} of Debian {NEWER_SUITE}")
    state = folder / "apt"
    (state / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (state / "cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    (state / "sources.list").write_text(f"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {mirror()} {NEWER_SUITE} main\n")
    (state / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{state}/sources.list"; Dir::Etc::sourceparts "-"; Dir::State::lists "{state}/lists";\n'
        f'Dir::Cache "{state}/cache"; APT::Sandbox::User "root";\n'
    )
    apt = ["apt-get", "-qq", "-c", str(state / "apt.conf")]
    command([*apt, "update"])
    command([*apt, "download", *NEWER], folder=state)
    for package in state.glob("*.deb"):
        command(["dpkg", "-x", str(package), str(folder)])
        package.unlink()


def mirror() -> str:
    """The server that this Debian's own packages come from."""
    listed = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI)|$(ORIGIN)|$(CODENAME)"], capture_output=True, text=True, check=False)
    for line in listed.stdout.splitlines():
        uri, origin, codename = line.split("|")
        if origin == "Debian" and "-" not in codename:
            return uri
    raise BenchError("apt-get knows no server of Debian's main packages: the newer engine cannot be fetched")


def build(checkout: Path) -> None:
    """What is measured, as it stands now: our side in both profiles, and the server."""
    say("building what is measured")
    example = ["cargo", "build", "--locked", "--quiet", "-p", "deploy-image", "--example", "push_image"]
    command(example, folder=checkout)
    command([*example, "--release"], folder=checkout)
    command(["cargo", "build", "--locked", "--quiet", "--release", "-p", "systemprompt"], folder=checkout)


def command(words: Sequence[str], folder: Path | None = None) -> None:
    try:
        subprocess.run(words, check=True, cwd=folder, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    except FileNotFoundError as error:
        raise BenchError(f"{words[0]} is missing: install it and run --setup again") from error
    except subprocess.CalledProcessError as error:
        raise BenchError(f"`{' '.join(words)}` ended with {error.returncode}") from error


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
