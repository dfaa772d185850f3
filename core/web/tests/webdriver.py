"""A browser, driven over the WebDriver protocol (W3C) with nothing but the standard library."""

import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

LIMIT = 60
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars",
]
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
KEYS = {"Enter": "\ue007", "Escape": "\ue00c", "Tab": "\ue004"}


class Browser:
    """One window with a profile of its own, gone with `close`."""

    def __init__(self, width=1440, height=900, dark=False):
        if not (shutil.which("chromedriver") and shutil.which("chromium")):
            raise RuntimeError("the dashboard's tests need a browser: apt-get install --no-install-recommends chromium chromium-driver")
        self._profile = tempfile.mkdtemp(prefix="dashboard-browser-")
        # It leaves some of its temporary files behind: they go with the profile.
        environment = os.environ | {"TMPDIR": self._profile}
        self._driver = subprocess.Popen(["chromedriver", "--port=0"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            self._base = f"http://127.0.0.1:{self._port()}"
            options = {"args": [*FLAGS, f"--user-data-dir={self._profile}"]}
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            session = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            self._session = f"/session/{session['sessionId']}"
            self.resize(width, height)
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            self._devtools("Emulation.setEmulatedMedia", {"features": [scheme]})
        except BaseException:
            self._end()
            raise

    def close(self):
        try:
            self._call("DELETE", self._session)
        finally:
            self._end()

    def open(self, url):
        self._call("POST", f"{self._session}/url", {"url": url})

    def resize(self, width, height):
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._devtools("Emulation.setDeviceMetricsOverride", size)

    def run(self, script):
        return self._call("POST", f"{self._session}/execute/sync", {"script": script, "args": []})

    def text(self, selector="body"):
        return self.run(f"return document.querySelector({json.dumps(selector)})?.innerText ?? ''")

    def focus(self):
        return self.run("return document.activeElement?.id ?? ''")

    def click(self, selector):
        self._call("POST", f"{self._session}/element/{self._find(selector)}/click", {})

    def type(self, selector, text):
        self._call("POST", f"{self._session}/element/{self._find(selector)}/value", {"text": text})

    def press(self, key):
        value = KEYS[key]
        actions = [{"type": "keyDown", "value": value}, {"type": "keyUp", "value": value}]
        self._call("POST", f"{self._session}/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def until(self, condition, what):
        """Polls a Python function until it returns something true."""
        deadline = time.monotonic() + LIMIT
        while not (result := condition()):
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {LIMIT} s: {what}; the page shows:\n{self.text()}")
            time.sleep(0.05)
        return result

    def until_text(self, text, selector="body"):
        self.until(lambda: text in self.text(selector), f"{text!r} in {selector}")

    def complaints(self):
        """What the browser wrote to its console, without the refusals that the tests provoke."""
        entries = self._call("POST", f"{self._session}/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if "Failed to load resource" not in entry["message"]]

    def _find(self, selector):
        wanted = {"using": "css selector", "value": selector}
        return self._call("POST", f"{self._session}/element", wanted)[ELEMENT]

    def _devtools(self, command, parameters):
        self._call("POST", f"{self._session}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def _port(self):
        for line in self._driver.stdout:
            if "started successfully on port" in line:
                return int(line.rstrip().rstrip(".").rsplit(" ", 1)[1])
        raise RuntimeError("chromedriver ended before it listened")

    def _call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, method=method, data=data)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {path}: {error.read().decode()[:500]}") from None

    def _end(self):
        self._driver.terminate()
        self._driver.wait()
        self._driver.stdout.close()
        shutil.rmtree(self._profile, ignore_errors=True)
