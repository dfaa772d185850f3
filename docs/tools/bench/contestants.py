"""Whoever builds an image from a context and pushes it, each as its users run it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Mapping, Optional

from .daemons import Engine, Registry
from .material import Material
from .shell import BenchError, Workshop, need, root_prefix, run

# What `cargo xtask deploy` takes for a registry elsewhere, unless told otherwise.
GZIP_LEVEL = 1


@dataclass
class Sample:
    """One run."""

    seconds: float
    requests: Optional[int] = None
    # What the run says about itself, ours alone does.
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def inside(self) -> Optional[float]:
        """Seconds in the process, without the start of it."""
        return self.report.get("seconds")


class Contestant:
    name: str
    # Work that it does not do, so that it is not compared in full.
    note = ""

    def deliver(self, material: Material, image: str) -> dict[str, Any]:
        """Builds and pushes; a report where there is one."""
        raise NotImplementedError

    def prepare(self, material: Material, image: str) -> None:
        """What is not measured."""

    def forget(self) -> None:
        """Removes what it keeps, so that the next round is the first again."""

    def measure(self, material: Material, image: str) -> Sample:
        begun = time.perf_counter()
        report = self.deliver(material, image)
        return Sample(time.perf_counter() - begun, report=report)


class Ours(Contestant):
    """This workspace's libraries, through the example program of deploy-image."""

    def __init__(self, workshop: Workshop, program: Path, profile: str, gzip: bool, store: str = "", credentials: Optional[Mapping[str, str]] = None, registry_store: Optional[Path] = None):
        if not program.exists():
            raise BenchError("the example push_image is not built: run docs/tools/bench-image --setup")
        self.name = f"ours, {'gzip' if gzip else 'uncompressed'} ({profile})"
        self.gzip = gzip
        self.profile = profile
        self.program = program
        self.workshop = workshop
        self.store = workshop.folder(f"store-{store or profile}-{'gzip' if gzip else 'plain'}")
        self.credentials = dict(credentials or {})
        # Of a registry on this machine that is ours, as the embedded platform's is.
        self.registry_store = registry_store

    def deliver(self, material: Material, image: str, repositories: int = 1) -> dict[str, Any]:
        words: list[object] = [self.program, "--context", material.context, "--store", self.store, "--repositories", repositories]
        if self.gzip:
            words += ["--gzip", GZIP_LEVEL]
        if self.registry_store:
            words += ["--registry-store", self.registry_store]
        return json.loads(run([*words, image], self.credentials))

    def forget(self) -> None:
        self.workshop.empty(self.store.name)


class Docker(Contestant):
    """`docker build` and `docker push`."""

    def __init__(self, engine: Engine, buildkit: bool):
        self.name = "docker, BuildKit" if buildkit else "docker, classic builder"
        self.engine = engine
        # Debian's newer client builds with BuildKit through its plugin alone, the older has it built in.
        self.environment = {"DOCKER_BUILDKIT": "1" if buildkit else "0"}

    def deliver(self, material: Material, image: str) -> dict[str, Any]:
        self.engine.docker("build", "-q", "-t", image, material.context, **self.environment)
        self.engine.docker("push", "-q", image)
        return {}

    def forget(self) -> None:
        self.engine.forget_everything()


class Buildah(Contestant):
    """`buildah build` and `buildah push`, with a cache as docker has one."""

    name = "buildah"

    def __init__(self, workshop: Workshop):
        storage = workshop.folder("buildah")
        options = ["--root", storage / "root", "--runroot", storage / "run", "--storage-driver", "overlay"]
        self.words = [*root_prefix(), need("buildah"), *options]

    def deliver(self, material: Material, image: str) -> dict[str, Any]:
        run([*self.words, "bud", "--quiet", "--layers", "--isolation", "chroot", "--tag", image, material.context])
        run([*self.words, "push", "--quiet", "--tls-verify=false", image])
        return {}

    def forget(self) -> None:
        run([*self.words, "rmi", "--all", "--force"])


class Skopeo(Contestant):
    """`skopeo copy` of a finished OCI layout: it builds nothing and compresses nothing here."""

    name = "skopeo copy (push only)"
    note = "only sends: assembled and compressed before"

    def __init__(self, workshop: Workshop, maker: Ours, elsewhere: Registry):
        self.program = need("skopeo")
        self.workshop = workshop
        self.maker = maker
        self.elsewhere = elsewhere

    def prepare(self, material: Material, image: str) -> None:
        """Ours makes the image, in another registry; skopeo takes it from there."""
        made = f"{self.elsewhere.host}/made:1"
        self.maker.deliver(material, made)
        self.workshop.empty("layout")
        run([self.program, "copy", "--quiet", "--src-tls-verify=false", f"docker://{made}", self._layout()])

    def deliver(self, material: Material, image: str) -> dict[str, Any]:
        run([self.program, "copy", "--quiet", "--dest-tls-verify=false", self._layout(), f"docker://{image}"])
        return {}

    def forget(self) -> None:
        self.maker.forget()
        self.elsewhere.renew()
        self.workshop.empty("layout")

    def _layout(self) -> str:
        return f"oci:{self.workshop.path / 'layout'}:1"
