"""The registries and the engine, started for one benchmark and ended with it."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

from .shell import BenchError, Daemon, Workshop, eventually, need, root_prefix, run

REQUEST = re.compile(rb'"(?:GET|HEAD|POST|PUT|PATCH|DELETE) /v2/[^"]* HTTP/')


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status < 500
    except OSError:
        return False
    finally:
        connection.close()


class Registry:
    """CNCF distribution with file storage, for anyone on this machine."""

    def __init__(self, workshop: Workshop, name: str = "registry"):
        self.workshop = workshop
        self.name = name
        self.program = need("docker-registry")
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.log = workshop.path / f"{name}.log"
        self.daemon: Daemon | None = None

    def __enter__(self) -> "Registry":
        self.renew()
        return self

    def __exit__(self, *_: object) -> None:
        if self.daemon:
            self.daemon.stop()

    def renew(self) -> None:
        """Starts it with nothing in it."""
        if self.daemon:
            self.daemon.stop()
        storage = self.workshop.empty(self.name)
        config = self.workshop.path / f"{self.name}.yml"
        config.write_text(
            f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {storage}\n"
            f"http:\n  addr: {self.host}\n  secret: benchmark\n"
        )
        self.daemon = Daemon([self.program, "serve", config], self.log, {"OTEL_TRACES_EXPORTER": "none"})
        self.daemon.wait_until(lambda: answers(self.port, "/v2/"))

    def position(self) -> int:
        return self.log.stat().st_size

    def requests_since(self, position: int) -> int:
        """What it was asked, by its own log."""
        with open(self.log, "rb") as log:
            log.seek(position)
            return len(REQUEST.findall(log.read()))


class Embedded:
    """The platform server of this workspace, with its own registry."""

    def __init__(self, workshop: Workshop, program: Path, isolation: str = "off"):
        if not program.exists():
            raise BenchError("target/release/systemprompt is missing: run docs/tools/bench-image --setup")
        self.isolation = isolation
        self.workshop = workshop
        self.program = program
        self.daemon: Daemon | None = None
        self.host = ""
        self.token = ""

    def __enter__(self) -> "Embedded":
        self.renew()
        return self

    def __exit__(self, *_: object) -> None:
        if self.daemon:
            self.daemon.stop()

    def renew(self) -> None:
        """Starts it with nothing in it."""
        if self.daemon:
            self.daemon.stop()
        self.workshop.empty("embedded")
        self.start()

    def start(self) -> None:
        """Starts it on what there is."""
        data = self.workshop.folder("embedded")
        (data / "server.json").unlink(missing_ok=True)
        log = self.workshop.path / "embedded.log"
        words = [self.program, "serve", "--data", data, "--listen", "127.0.0.1:0", "--isolation", self.isolation]
        self.daemon = Daemon(words, log)
        self.daemon.wait_until((data / "server.json").exists)
        server = json.loads((data / "server.json").read_text())
        self.host = server["url"].split("://", 1)[1]
        self.store = Path(server["registry_store"]["path"])
        self.token = (data / "token").read_text().strip()

    def tenant(self, name: str) -> None:
        """A tenant, and with it a repository of its name."""
        self.ask("POST", "/api/v1/tenants", {"id": name, "name": name})

    def deploy(self, tenant: str, image: str, check: str) -> str:
        """Deploys an image and waits until it serves; where."""
        health = {"path": check, "interval_ms": 1000, "timeout_ms": 1000, "start_period_ms": 20000, "retries": 3}
        number = self.ask("POST", f"/api/v1/tenants/{tenant}/deploy", {"image": image, "health": health, "force": True})["deployment"]
        path = f"/api/v1/tenants/{tenant}/deployments/{number}"
        eventually("the deployment is not over", lambda: self.ask("GET", path)["state"] in ("succeeded", "failed", "rolled_back"))
        state = self.ask("GET", path)
        if state["state"] != "succeeded":
            raise BenchError(f"the deployment has failed: {state}")
        return str(self.ask("GET", f"/api/v1/tenants/{tenant}/status")["app_url"])

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """One request to the Management API; its data."""
        connection = http.client.HTTPConnection(self.host, timeout=30)
        try:
            headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read()
            if not 200 <= answer.status < 300:
                raise BenchError(f"the server refuses {method} {path}: {answer.status} {text[:300]!r}")
            return json.loads(text)["data"] if text else None
        finally:
            connection.close()

    def memory(self) -> int:
        """What the server itself has in memory, in bytes."""
        assert self.daemon
        status = Path(f"/proc/{self.daemon.process.pid}/status").read_text()
        match = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
        if not match:
            raise BenchError("the system does not say how much memory the server has")
        return int(match.group(1)) * 1024

    def credentials(self) -> dict[str, str]:
        return {"REGISTRY_USERNAME": "operator", "REGISTRY_PASSWORD": self.token}


class Nginx:
    """nginx as a proxy in front of one address, as its manual has it for kept connections."""

    def __init__(self, workshop: Workshop, upstream: str):
        self.folder = workshop.folder("nginx")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.upstream = upstream
        self.daemon: Daemon | None = None

    def __enter__(self) -> "Nginx":
        config = self.folder / "nginx.conf"
        config.write_text(
            f"""daemon off;
worker_processes auto;
pid {self.folder}/pid;
error_log {self.folder}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {self.folder}/body;
    proxy_temp_path {self.folder}/proxy;
    fastcgi_temp_path {self.folder}/fastcgi;
    uwsgi_temp_path {self.folder}/uwsgi;
    scgi_temp_path {self.folder}/scgi;
    keepalive_requests 1000000;
    upstream application {{ server {self.upstream}; keepalive 64; keepalive_requests 1000000; }}
    server {{
        listen 127.0.0.1:{self.port};
        location / {{
            proxy_pass http://application;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $host;
        }}
    }}
}}
"""
        )
        self.daemon = Daemon([need("nginx"), "-c", config, "-e", self.folder / "error.log"], self.folder / "log")
        self.daemon.wait_until(lambda: answers(self.port, "/"))
        return self

    def __exit__(self, *_: object) -> None:
        if self.daemon:
            self.daemon.stop()


class Engine:
    """A Docker Engine with its own data and socket, without network and firewall rules."""

    def __init__(self, workshop: Workshop, tools: Path):
        folder = workshop.folder("docker")
        # The newest there is: what --setup has brought, else the machine's.
        self.program = need("dockerd", [tools / "usr/sbin"])
        self.client = need("docker", [tools / "usr/bin", Path("/usr/bin")])
        self.folder = folder
        # A socket's path must be short.
        self.host = f"unix:///tmp/{workshop.path.name}.sock"
        self.environment = {"DOCKER_HOST": self.host, "DOCKER_CONFIG": str(workshop.folder("docker-client"))}
        plugin = next((tools / "usr").glob("lib*/docker/cli-plugins/docker-buildx"), None)
        if plugin:
            link = workshop.folder("docker-client/cli-plugins") / "docker-buildx"
            link.symlink_to(plugin)
        self.buildx = bool(plugin)
        self.daemon: Daemon | None = None

    def __enter__(self) -> "Engine":
        (self.folder / "daemon.json").write_text("{}")
        words = [
            self.program,
            f"--host={self.host}",
            f"--data-root={self.folder}/data",
            f"--exec-root={self.folder}/exec",
            f"--pidfile={self.folder}/pid",
            f"--config-file={self.folder}/daemon.json",
            f"--group={os.getgid()}",
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
        ]
        self.daemon = Daemon(words, self.folder / "log", as_root=True)
        try:
            self.daemon.wait_until(self._answers)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.daemon:
            self.daemon.stop()
        subprocess.run([*root_prefix(), "rm", "-f", self.host[len("unix://") :]], check=False)
        # The engine makes these for plugins; they stay when anybody else uses them.
        subprocess.run([*root_prefix(), "rmdir", "/run/docker/plugins", "/run/docker"], check=False, capture_output=True)

    def _answers(self) -> bool:
        asked = subprocess.run([self.client, "info"], env={**os.environ, **self.environment}, capture_output=True, timeout=60, check=False)
        return asked.returncode == 0

    def docker(self, *words: object, **environment: str) -> str:
        return run([self.client, *words], {**self.environment, **environment})

    def forget_everything(self) -> None:
        self.docker("image", "prune", "-af")
        self.docker("builder", "prune", "-af")

    def version(self) -> str:
        return self.docker("version", "--format", "{{.Server.Version}}").strip()
