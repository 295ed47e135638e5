"""Drives headless Chromium over its debugging pipe: real key presses, the console, the network, pictures."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Self

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
    "--no-first-run", "--hide-scrollbars", "--remote-debugging-pipe", "about:blank",
)  # fmt: skip
KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "Enter": 13, "Escape": 27, "Tab": 9, "Home": 36, "End": 35, "x": 88}


class Browser:
    """One page in a browser of its own. ``events`` has all that the page reported."""

    def __init__(self, profile: Path, width: int = 1240, height: int = 900) -> None:
        self.events: list[dict[str, Any]] = []
        self._buffer, self._number = b"", 0
        theirs, self._out = pipe()
        self._in, other = pipe()
        options = [*OPTIONS[:-1], f"--user-data-dir={profile}", f"--window-size={width},{height}", OPTIONS[-1]]

        def connect() -> None:  # Chromium reads commands from descriptor 3 and answers on 4
            os.dup2(theirs, 3)
            os.dup2(other, 4)

        command = [str(CHROMIUM), *options]
        self._process = subprocess.Popen(command, preexec_fn=connect, pass_fds=(3, 4), stderr=subprocess.DEVNULL)
        os.close(theirs)
        os.close(other)
        self._session: str | None = None

    def __enter__(self) -> Self:
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._out)
        os.close(self._in)

    def open(self, url: str) -> None:
        """Load a page and wait until it is complete."""
        self.send("Page.navigate", url=url)
        deadline = time.monotonic() + 120
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            assert time.monotonic() < deadline, "the page does not load"
            self._receive(1.0)

    def run(self, script: str) -> Any:
        """Evaluate an expression in the page."""
        result = self.send("Runtime.evaluate", expression=script, returnByValue=True, userGesture=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def until(self, condition: str, seconds: float = 20) -> None:
        """Wait until an expression is true; some events come only after the key that causes them."""
        deadline = time.monotonic() + seconds
        while not self.run(condition):
            assert time.monotonic() < deadline, f"never true: {condition}"
            time.sleep(0.05)

    def press(self, key: str, times: int = 1) -> None:
        """Press a key as a user does."""
        about: dict[str, Any] = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
        if key == "Enter":
            about["text"] = "\r"
        elif len(key) == 1:
            about["text"] = key
        for _ in range(times):
            self.send("Input.dispatchKeyEvent", type="keyDown", **about)
            self.send("Input.dispatchKeyEvent", type="keyUp", **about)

    def problems(self) -> list[str]:
        """Return console errors, exceptions and every request that left the file."""
        found = []
        for event in self.events:
            about = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(str(about["exceptionDetails"]))
            elif event["method"] == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert"):
                found.append(str(about["args"]))
            elif event["method"] == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
                found.append(str(about["entry"]))
            elif event["method"] == "Network.requestWillBeSent":
                url = about["request"]["url"]
                if not url.startswith(("file:", "data:", "about:", "blob:")):
                    found.append(url)
        return found

    def picture(self, path: Path, quality: int = 80) -> None:
        """Write what the window shows as JPEG."""
        shot = self.send("Page.captureScreenshot", format="jpeg", quality=quality)
        path.write_bytes(base64.b64decode(shot["data"]))

    def print_to(self, path: Path) -> None:
        """Print the page to a PDF."""
        path.write_bytes(base64.b64decode(self.send("Page.printToPDF", printBackground=True)["data"]))

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            for answer in self._receive(1.0):
                if answer.get("id") == self._number:
                    assert "error" not in answer, answer["error"]
                    return dict(answer["result"])
        raise AssertionError(f"no answer to {method}")

    def _receive(self, seconds: float) -> list[dict[str, Any]]:
        """Return the answers that came in; events are kept."""
        if select.select([self._in], [], [], seconds)[0]:
            self._buffer += os.read(self._in, 1 << 20)
        *messages, self._buffer = self._buffer.split(b"\0")
        parsed = [json.loads(message) for message in messages]
        self.events += [message for message in parsed if "method" in message]
        return [message for message in parsed if "id" in message]


def pipe() -> tuple[int, int]:
    """Return the reading and the writing end of a pipe, numbered so high that 3 and 4 are free."""
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return high[0], high[1]
