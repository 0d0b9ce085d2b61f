"""A real browser for tests: Chromium without a window, told what to do over its own protocol."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import re
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from tornado.websocket import WebSocketClientConnection, websocket_connect

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str:
    """Return the browser's program; the test is skipped where there is none."""
    for name in NAMES:
        found = shutil.which(name)
        if found is not None:
            return found
    pytest.skip("there is no Chromium here (on Debian: apt-get install chromium)")


class Page:
    """A page in the browser."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: WebSocketClientConnection) -> None:
        self._loop = loop
        self._socket = socket
        self._numbers = itertools.count(1)

    def ask(self, method: str, **parameters: Any) -> Any:
        return self._loop.run_until_complete(self._ask(method, parameters))

    async def _ask(self, method: str, parameters: dict[str, Any]) -> Any:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        await self._socket.write_message(json.dumps(message))
        while True:
            answer = await asyncio.wait_for(self._socket.read_message(), 60)
            assert answer is not None, "the browser went away"
            told = json.loads(answer)
            if told.get("id") == number:
                assert "error" not in told, told["error"]
                return told["result"]

    def open(self, url: str) -> None:
        self.ask("Page.enable")
        self.ask("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete'")

    def value(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 60) -> Any:
        until = monotonic() + seconds
        while not (value := self.value(expression)):
            assert monotonic() < until, f"waited {seconds} seconds and still not: {expression}"
            sleep(0.05)
        return value

    def picture(self, width: int, height: int, file: Path) -> None:
        """Take a picture as on a screen of this size."""
        size = {"width": width, "height": height}
        self.ask(
            "Emulation.setDeviceMetricsOverride", **size, deviceScaleFactor=1, mobile=width < 600
        )
        taken = self.ask("Page.captureScreenshot", format="png")
        file.write_bytes(base64.b64decode(taken["data"]))

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than the screen."""
        return int(self.value("document.documentElement.scrollWidth - window.innerWidth"))


@contextmanager
def browser() -> Iterator[Page]:
    """Start the browser with one empty page."""
    program = chromium()
    with tempfile.TemporaryDirectory(prefix="fcdcc-browser-", ignore_cleanup_errors=True) as folder:
        errors = Path(folder) / "stderr"
        with errors.open("wb") as stderr:
            process = subprocess.Popen(
                [
                    program,
                    "--headless",
                    "--no-sandbox",
                    "--disable-gpu",
                    "--disable-dev-shm-usage",
                    "--hide-scrollbars",
                    "--remote-debugging-port=0",
                    f"--user-data-dir={folder}/profile",
                    "about:blank",
                ],
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        loop = asyncio.new_event_loop()
        try:
            port = _port(errors, process)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
                pages = [page for page in json.load(answer) if page["type"] == "page"]
            url = pages[0]["webSocketDebuggerUrl"]
            socket = loop.run_until_complete(_connected(url))
            yield Page(loop, socket)
            loop.run_until_complete(_close(socket))
        finally:
            process.terminate()
            process.wait(20)
            loop.close()


async def _connected(url: str) -> WebSocketClientConnection:
    return await websocket_connect(url, max_message_size=50_000_000)


async def _close(socket: WebSocketClientConnection) -> None:
    socket.close()
    await asyncio.sleep(0.1)


def _port(errors: Path, process: subprocess.Popen[bytes]) -> int:
    until = monotonic() + 60
    while monotonic() < until:
        found = re.search(r"DevTools listening on ws://[^:]+:(\d+)/", errors.read_text("utf-8"))
        if found is not None:
            return int(found[1])
        assert process.poll() is None, errors.read_text("utf-8")
        sleep(0.05)
    raise AssertionError(errors.read_text("utf-8"))
