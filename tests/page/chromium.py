"""A headless Chromium, driven over its DevTools protocol through two pipes: it needs nothing but the browser."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

from tests.waiting import until

PATH = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
    # No traffic to other machines.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
]


class Chromium:
    """One browser with one page, from construction until the end of its ``with``.

    Attributes:
        console: errors, exceptions and violations of the page's policy, from its console.
    """

    def __init__(self) -> None:
        assert PATH is not None, "there is no Chromium here: apt-get install chromium"
        self.console: list[str] = []
        self._folder = tempfile.mkdtemp(prefix="chromium-")
        commands, answers = os.pipe(), os.pipe()
        # The browser expects the pipes as 3 and 4. The shell renumbers them, so here they must have other numbers.
        given = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (commands[0], answers[1])]
        shell = f'exec 3<&{given[0]} 4>&{given[1]} {given[0]}<&- {given[1]}>&-; exec "$@"'
        command = ["bash", "-c", shell, "bash", PATH, *_FLAGS, f"--user-data-dir={self._folder}"]
        self._process = subprocess.Popen(command, pass_fds=given, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for end in (*given, commands[0], answers[1]):
            os.close(end)
        self._commands = os.fdopen(commands[1], "wb", buffering=0)
        self._answers = os.fdopen(answers[0], "rb")
        self._waiting: dict[int, Future[dict[str, Any]]] = {}
        self._session: str | None = None
        self._loaded = threading.Event()
        self._threads = deque([threading.Thread(target=self._listen, daemon=True)])
        self._threads[0].start()
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM", "Network"):
            self.send(f"{domain}.enable")
        self.resize(1100, 800)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command, and return its result."""
        number = len(self._waiting) + 1
        self._waiting[number] = Future()
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        answer = self._waiting[number].result(30)
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, address: str) -> None:
        """Load a page."""
        self._loaded.clear()
        self.send("Page.navigate", url=address)
        assert self._loaded.wait(30)

    def reload(self) -> None:
        self._loaded.clear()
        self.send("Page.reload")
        assert self._loaded.wait(30)

    def run(self, script: str) -> Any:
        """Return the value of a JavaScript expression in the page; of a promise, the value that it settles to."""
        result = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def text(self, selector: str = "body") -> str:
        """The visible text of an element, or nothing if there is none."""
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def wait_for(self, script: str, *, seconds: float = 60) -> None:
        """Wait until a JavaScript expression in the page is true."""
        until(lambda: self.run(f"Boolean({script})"), seconds=seconds, every=0.1)

    def wait_for_text(self, text: str, selector: str = "body", *, seconds: float = 60) -> None:
        until(lambda: text in self.text(selector), seconds=seconds, every=0.1)

    def click(self, selector: str) -> None:
        """Click in the middle of an element, as a mouse does."""
        box = self.run(
            f"(() => {{ const it = document.querySelector({json.dumps(selector)}); "
            "it.scrollIntoView({ block: 'center' }); const box = it.getBoundingClientRect(); "
            "return [box.x + box.width / 2, box.y + box.height / 2] })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key of the keyboard."""
        keys = {"key": key, "windowsVirtualKeyCode": code, "code": key}
        self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **keys)
        self.send("Input.dispatchKeyEvent", type="keyUp", **keys)

    def choose(self, selector: str, files: Sequence[Path]) -> None:
        """Choose files in a file field."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def drop(self, files: Sequence[Path]) -> None:
        """Drop files onto the page."""
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.send("Input.dispatchDragEvent", type=kind, x=300, y=200, data=data)

    def resize(self, width: int, height: int) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )

    def dark(self, is_dark: bool) -> None:
        value = "dark" if is_dark else "light"
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])

    def slow_down(self, bytes_a_second: int) -> None:
        """Limit the speed of uploads; -1 for no limit."""
        self.send(
            "Network.emulateNetworkConditions",
            offline=False, latency=0, downloadThroughput=-1, uploadThroughput=bytes_a_second,
        )  # fmt: skip

    def screenshot(self, file: Path, height: float = 4000) -> None:
        """Write the page into a PNG file, from the top to at most ``height`` pixels."""
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], height), "scale": 1}
        picture = self.send("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(picture))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._commands.close()
        self._threads.pop().join(30)
        self._answers.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _listen(self) -> None:
        rest = b""
        while some := self._answers.read1(1 << 16):
            *messages, rest = (rest + some).split(b"\0")
            for message in messages:
                self._take(json.loads(message))

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            self._waiting[message["id"]].set_result(message)
            return
        method, event = message["method"], message.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded.set()
        elif method == "Runtime.exceptionThrown":
            details = event["exceptionDetails"]
            self.console.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and event["type"] in {"error", "assert"}:
            self.console.append(str([argument.get("value") for argument in event["args"]]))
        elif method == "Log.entryAdded" and event["entry"]["level"] == "error":
            self.console.append(f"{event['entry']['text']} {event['entry'].get('url', '')}")
