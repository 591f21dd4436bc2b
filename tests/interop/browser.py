"""A headless Chromium, spoken to over a pipe in the DevTools protocol, which needs no package."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find_browser():
    """$BALLAST_BROWSER, or the first browser in the path."""
    for name in filter(None, (os.environ.get("BALLAST_BROWSER"), *NAMES)):
        if path := shutil.which(name):
            return path
    raise RuntimeError(
        "no Chromium: tools/packages.sh browser installs Debian's; elsewhere install one (" + ", ".join(NAMES)
        + ") or name it in BALLAST_BROWSER"
    )


class Browser:
    """One browser process, with one page at a time."""

    def __init__(self):
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_browser, self._commands = os.pipe()
        self._answers, from_browser = os.pipe()
        # The browser reads commands from descriptor 3 and writes answers to descriptor 4.
        shell = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
        options = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
            "--no-first-run", "--disable-background-networking", "--disable-component-update", "--force-color-profile=srgb",
            f"--user-data-dir={self._profile.name}", "--remote-debugging-pipe", "about:blank",
        ]
        self._process = subprocess.Popen(
            ["bash", "-c", shell, find_browser(), *options], pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer = b""
        self._last = 0
        self._session = None
        self._events = []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self):
        self._session = None
        try:
            self.call("Browser.close")
        except EOFError:
            pass
        self._process.wait(timeout=30)
        os.close(self._commands)
        os.close(self._answers)
        self._profile.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _receive(self):
        while b"\0" not in self._buffer:
            part = os.read(self._answers, 1 << 20)
            if not part:
                raise EOFError("the browser has ended")
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def call(self, method, **parameters):
        """Sends a command and returns its result; what the browser tells in between is kept."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self._events.append(answer)

    def evaluate(self, expression):
        """The value of a JavaScript expression in the page, waited for when it is a promise."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"]["exception"].get("description", expression))
        return result["result"].get("value")

    def view(self, width=1200, height=900, scale=1, dark=False):
        """Sets the window's size and the colours that the page is asked for."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale,
                  mobile=width < 600)
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def open(self, file):
        """Opens a report and waits until all of it is drawn. Returns the milliseconds that took."""
        self._events.clear()
        self.call("Page.navigate", url=Path(file).resolve().as_uri())
        self.evaluate(
            "new Promise(done => { const look = () => document.readyState === 'complete' && document.body.dataset.drawn"
            " || performance.now() > 20000 ? done() : setTimeout(look, 5); look(); })"
        )
        drawn = self.evaluate("document.body.dataset.drawn")
        assert drawn, f"the page is not drawn within 20 seconds: {self.complaints()}"
        return float(drawn)

    def complaints(self):
        """What the page has written to the console, thrown or asked of a network since open()."""
        found = []
        for event in self._events:
            method, parameters = event.get("method"), event.get("params", {})
            if method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
                found.append(json.dumps(parameters)[:600])
            if method == "Network.requestWillBeSent":
                url = parameters["request"]["url"]
                if not url.startswith(("file:", "data:", "about:", "blob:")):
                    found.append(f"request: {url}")
        return found

    def screenshot(self, file, whole=True):
        picture = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        Path(file).write_bytes(base64.b64decode(picture["data"]))

    def pdf(self, file):
        page = self.call("Page.printToPDF", printBackground=False, preferCSSPageSize=True)
        Path(file).write_bytes(base64.b64decode(page["data"]))
