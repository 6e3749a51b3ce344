"""A headless Chromium, spoken to in its own protocol: what a page says on its console, holds, and looks like."""

from __future__ import annotations

import base64
import shutil
import subprocess
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
START_S = 30.0


class Page:
    """One page. ``said`` is what came up on its console or was thrown, ``asked`` what it tried to load."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self.said: list[str] = []
        self.asked: list[str] = []

    async def begin(self) -> Self:
        for part in ("Page", "Runtime", "Log", "Network"):
            await self.do(f"{part}.enable")
        return self

    async def do(self, method: str, **params: object) -> dict[str, Any]:
        """Perform a command; what the page says meanwhile is kept."""
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        while True:
            message = await self._socket.receive_json(timeout=START_S)
            if message.get("id") == self._number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self._hear(message)

    async def look(self, width: int, height: int = 900, *, dark: bool = False) -> None:
        """From now on the page is seen at so many pixels, in light or in dark."""
        await self.do(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.do("Emulation.setEmulatedMedia", features=[scheme])

    async def open(self, file: Path) -> None:
        """Open ``file`` and wait until it has loaded."""
        await self.do("Page.navigate", url=file.as_uri())
        with anyio.fail_after(START_S):
            while await self.value("document.readyState") != "complete":
                await anyio.sleep(0.05)

    async def value(self, expression: str) -> Any:
        """What ``expression`` comes to in the page, once it is settled."""
        found = await self.do("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def picture(self, out: Path) -> None:
        """The whole page as a PNG."""
        shot = await self.do("Page.captureScreenshot", captureBeyondViewport=True)
        out.write_bytes(base64.b64decode(shot["data"]))

    def _hear(self, message: dict[str, Any]) -> None:
        kind, params = message.get("method"), message.get("params", {})
        if kind == "Runtime.exceptionThrown":
            self.said.append(str(params["exceptionDetails"]))
        elif kind == "Runtime.consoleAPICalled":
            self.said.append(f"{params['type']}: {params['args']}")
        elif kind == "Log.entryAdded":
            self.said.append(f"{params['entry']['level']}: {params['entry']['text']}")
        elif kind == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"])


@asynccontextmanager
async def browser() -> AsyncGenerator[Page]:
    """A browser with one empty page, ended afterwards."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
        quiet = ["--remote-debugging-port=0", f"--user-data-dir={profile}", "--no-first-run", "about:blank"]
        process = subprocess.Popen([CHROMIUM, *arguments, *quiet], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            port = await _port(Path(profile) / "DevToolsActivePort")
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                    pages = [one for one in await answer.json() if one["type"] == "page"]
                async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    yield await Page(socket).begin()
        finally:
            process.terminate()
            process.wait(timeout=START_S)


async def _port(told: Path) -> int:
    with anyio.fail_after(START_S):
        while not told.is_file() or len(told.read_text().split()) < 2:
            await anyio.sleep(0.05)
    return int(told.read_text().split()[0])
