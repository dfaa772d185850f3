"""A platform for the dashboard's tests: serves the page and answers what the test has set."""

import json
import threading
from datetime import datetime, timedelta, timezone
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlparse

DIST = Path(__file__).resolve().parents[1] / "dist"
# The policy of the real server (core/src/http/dashboard.rs).
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
TOKEN = "good-token"


def ago(seconds):
    moment = datetime.now(timezone.utc) - timedelta(seconds=seconds)
    return moment.isoformat().replace("+00:00", "Z")


def deployment(number, state, age, **more):
    return {
        "number": number, "tenant": "local", "kind": "deploy", "state": state,
        "image": f"127.0.0.1:8080/local:tag-{number}", "tag": f"tag-{number}",
        "digest": "sha256:" + f"{number:02x}" * 32, "strategy": "rolling", "actor": "operator",
        "source": {"git_sha": "a1b2c3d", "dirty": False}, "live": False,
        "created_at": ago(age), "finished_at": ago(age - 2), **more,
    }


class Platform:
    """State that a test changes, and the requests that have come."""

    def __init__(self):
        self.token = TOKEN
        self.broken = False
        self.tenants = [{"id": "local", "name": "Local", "app_url": "http://127.0.0.1:9"}, {"id": "docs", "name": "Documentation"}]
        self.status = {"local": {"status": "deployed"}, "docs": {"status": "pending"}}
        self.deployments = {"local": [], "docs": []}
        self.events = []
        self.logs = []
        self.rollback_refusal = None
        self.rollbacks = []
        self.words = []
        self.changed = threading.Condition()
        self._closed = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def close(self):
        with self.changed:
            self._closed = True
            self.changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def add_event(self, number, state, message):
        with self.changed:
            event = {"seq": len(self.events) + 1, "deployment": number, "state": state, "message": message, "at": ago(0)}
            self.events.append(event)
            self.changed.notify_all()

    def log(self, number, line, stream="stdout"):
        with self.changed:
            self.logs.append({"at": ago(0), "deployment": number, "stream": stream, "line": line})
            self.changed.notify_all()

    def follow(self, items, start):
        """Items as they come, from `start` on, until the platform is closed."""
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self._closed or len(items) > start)
                if self._closed:
                    return
                fresh = items[start:]
            yield from fresh
            start += len(fresh)


def handler(platform):
    class Handler(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def __init__(self, *arguments):
            super().__init__(*arguments, directory=DIST)

        def log_message(self, *_):
            pass

        def end_headers(self):
            self.send_header("content-security-policy", POLICY)
            super().end_headers()

        def do_GET(self):
            url = urlparse(self.path)
            if not url.path.startswith("/api/"):
                super().do_GET()
            elif url.path == "/api/v1/health":
                self.answer({"status": "healthy", "version": "1.2.3", "timestamp": ago(0)})
            elif self.is_known():
                self.route(url.path.split("/")[3:], parse_qs(url.query))

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or "null")
            if not self.is_known():
                return
            if platform.rollback_refusal:
                self.refuse(*platform.rollback_refusal)
                return
            if not self.path.endswith("/rollback"):
                platform.words.append("/".join(self.path.split("/")[-3:]))
                number = int(self.path.split("/")[-2])
                row = next(row for row in platform.deployments["local"] if row["number"] == number)
                self.answer({"data": row}, 202)
                return
            platform.rollbacks.append(body)
            self.answer({"data": {"status": "deploying", "deployment": 3}}, 202)

        def is_known(self):
            if self.headers.get("authorization") != f"Bearer {platform.token}":
                self.refuse(401, "unauthorized", "unknown token")
            elif platform.broken:
                self.refuse(500, "internal", "the disk is full")
            else:
                return True
            return False

        def route(self, parts, query):
            if parts == ["auth", "me"]:
                self.answer({"user": {"id": "1", "email": "operator@localhost", "name": "operator"}})
            elif parts == ["tenants"]:
                self.answer({"data": platform.tenants})
            elif parts[2:] == ["status"]:
                self.answer({"data": platform.status[parts[1]]})
            elif parts[2:] == ["deployments"]:
                self.answer({"data": platform.deployments[parts[1]]})
            elif parts[-1] == "events":
                last = int(self.headers.get("last-event-id", 0))
                self.stream(platform.follow(platform.events, last))
            elif parts[-1] == "logs" and "follow" in query:
                since = query["since"][0]
                start = sum(1 for line in platform.logs if line["at"] < since)
                self.stream(platform.follow(platform.logs, start))
            elif parts[-1] == "logs":
                self.answer({"data": platform.logs})
            else:
                self.refuse(404, "not_found", "no such route")

        def answer(self, value, status=200):
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def refuse(self, status, code, message):
            self.answer({"error": {"code": code, "message": message}}, status)

        def stream(self, items):
            self.close_connection = True
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("connection", "close")
            self.end_headers()
            try:
                # A heartbeat first; then events cut in two, as networks do.
                self.wfile.write(b": hello\n\n")
                for item in items:
                    event = f"id: {item.get('seq', '')}\ndata: {json.dumps(item)}\n\n".encode()
                    for half in (event[:17], event[17:]):
                        self.wfile.write(half)
                        self.wfile.flush()
            except OSError:
                pass  # the page has left

    return Handler
