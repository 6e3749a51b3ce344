"""A headless Chromium, spoken to in its own protocol: what a page says on its console, holds, and looks like."""

from __future__ import annotations

import base64
import shutil
import subprocess
import tempfile
import time
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE_S = 60.0
ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run"),
    "--remote-debugging-port=0",
)


class Page:
    """One page. ``said`` is what came up on its console or was thrown, ``asked`` what it tried to load."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self._loaded = False
        self.said: list[str] = []
        self.asked: list[str] = []

    async def begin(self) -> Self:
        for part in ("Page", "Runtime", "Log", "Network"):
            await self.do(f"{part}.enable")
        return self

    async def do(self, method: str, **params: object) -> dict[str, Any]:
        """Perform a command and return what it gives; what the page says meanwhile is kept."""
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        while (message := await self._next()).get("id") != self._number:
            pass
        assert "error" not in message, message
        result: dict[str, Any] = message["result"]
        return result

    async def look(self, width: int, height: int = 900, *, dark: bool = False) -> None:
        """From now on the page is seen at so many pixels, in light or in dark."""
        await self.do(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.do("Emulation.setEmulatedMedia", features=[scheme])

    async def open(self, address: str) -> None:
        """Open a page and wait until it has loaded."""
        self._loaded = False
        await self.do("Page.navigate", url=address)
        while not self._loaded:
            await self._next()

    async def value(self, expression: str) -> Any:
        """What ``expression`` comes to in the page, once it is settled."""
        found = await self.do("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def picture(self) -> bytes:
        """The whole page as a PNG."""
        shot = await self.do("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    async def _next(self) -> dict[str, Any]:
        message: dict[str, Any] = await self._socket.receive_json(timeout=PATIENCE_S)
        kind, params = message.get("method"), message.get("params", {})
        if kind == "Page.loadEventFired":
            self._loaded = True
        elif kind == "Runtime.exceptionThrown":
            self.said.append(str(params["exceptionDetails"]))
        elif kind == "Runtime.consoleAPICalled":
            self.said.append(f"{params['type']}: {params['args']}")
        elif kind == "Log.entryAdded":
            self.said.append(f"{params['entry']['level']}: {params['entry']['text']}")
        elif kind == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"])
        return message


@contextmanager
def chromium() -> Generator[str]:
    """A browser with one empty page, ended afterwards; where it is spoken to."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [CHROMIUM, *ARGUMENTS, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield f"http://127.0.0.1:{_port(process, Path(profile) / 'DevToolsActivePort')}"
        finally:
            process.terminate()
            process.wait(timeout=PATIENCE_S)


@asynccontextmanager
async def page_of(browser: str) -> AsyncGenerator[Page]:
    """The page of ``browser``, as long as somebody looks at it."""
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{browser}/json/list") as answer:
            (page, *_) = [one for one in await answer.json() if one["type"] == "page"]
        async with session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            yield await Page(socket).begin()


def _port(process: subprocess.Popen[bytes], told: Path) -> int:
    give_up_at = time.monotonic() + PATIENCE_S
    while not told.is_file() or len(told.read_text(encoding="utf-8").split()) < 2:
        assert process.poll() is None, f"chromium ended with {process.returncode}"
        assert time.monotonic() < give_up_at, "chromium opened no port"
        time.sleep(0.05)
    return int(told.read_text(encoding="utf-8").split()[0])
