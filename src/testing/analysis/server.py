"""The reference analysis service: what a service does that :class:`~headgate.restart.http.HttpSource` asks."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from urllib.parse import unquote

from aiohttp import web

from .spec import AnalysisAccount, AnalysisSpec

__all__ = ["AnalysisServer", "serve"]

_BOMB_BYTES = 64 * 1024 * 1024


class AnalysisServer:
    """Cycles by their ids: triggering one again changes nothing, and its verdict is the same for all who ask."""

    def __init__(self, spec: AnalysisSpec) -> None:
        self.spec = spec
        self._account = AnalysisAccount()
        self._begun: dict[str, float] = {}

    def app(self) -> web.Application:
        """The routes."""
        app = web.Application()
        app.router.add_post("/cycles", self._trigger)
        app.router.add_get("/cycles/{id}", self._read)
        app.router.add_post("/control", self._control)
        app.router.add_post("/forget", self._forget)
        app.router.add_get("/account", self._tell)
        return app

    async def _trigger(self, request: web.Request) -> web.StreamResponse:
        said = await request.json()
        cycle = str(said["id"])
        if unquote(request.headers.get("Idempotency-Key", "")) != cycle:
            return web.Response(status=400, text="the Idempotency-Key is not the id of the cycle")
        self._account.triggers[cycle] = self._account.triggers.get(cycle, 0) + 1
        if not self.spec.only_reads and (trouble := await self._trouble(request)) is not None:
            return trouble
        self._begun.setdefault(cycle, asyncio.get_running_loop().time())
        return web.json_response({"cycle": cycle}, status=202)

    async def _read(self, request: web.Request) -> web.StreamResponse:
        cycle = request.match_info["id"]
        self._account.reads[cycle] = self._account.reads.get(cycle, 0) + 1
        if (trouble := await self._trouble(request)) is not None:
            return trouble
        if cycle not in self._begun:
            return web.Response(status=404, text="no such cycle")
        if asyncio.get_running_loop().time() < self._begun[cycle] + self.spec.seconds:
            return web.Response(status=202)
        return web.json_response(self._verdict("another" if self.spec.trouble == "other_cycle" else cycle))

    def _verdict(self, cycle: str) -> dict[str, object]:
        return {"cycle": cycle, **self.spec.model_dump(mode="json", include={"verdict", "tasks", "reason"})}

    async def _trouble(self, request: web.Request) -> web.StreamResponse | None:
        """What is said instead of an answer; None if there is nothing the matter."""
        if self.spec.status is not None:
            return web.Response(status=self.spec.status, text=self.spec.body or "trouble")
        match self.spec.trouble:
            case "hangs":
                await asyncio.sleep(3600)
            case "drops":
                assert request.transport is not None
                request.transport.close()
            case "redirects":
                return web.HTTPTemporaryRedirect("/elsewhere")
            case "huge":
                return await self._endless(request)
            case "compressed":
                bomb = gzip.compress(b" " * _BOMB_BYTES)
                return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})
            case "other_cycle" | None:
                pass
        return None if self.spec.body is None else web.Response(text=self.spec.body)

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with suppress(ConnectionError):
            while True:  # until the client has enough
                await response.write(b" " * 65536)
        return response

    async def _control(self, request: web.Request) -> web.Response:
        self.spec = AnalysisSpec.model_validate_json(await request.read())
        return web.json_response({})

    async def _forget(self, _: web.Request) -> web.Response:
        self._begun.clear()
        return web.json_response({})

    async def _tell(self, _: web.Request) -> web.Response:
        return web.json_response(asdict(self._account))


async def serve(spec: str) -> None:
    """Serve on a free port of the loopback, say which, and end when standard input closes."""
    runner = web.AppRunner(
        AnalysisServer(AnalysisSpec.model_validate_json(spec)).app(), access_log=None, shutdown_timeout=0.1
    )
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    sys.stdout.write(json.dumps({"port": port, "pid": os.getpid()}) + "\n")
    sys.stdout.flush()
    closed, loop = asyncio.Event(), asyncio.get_running_loop()

    def watch() -> None:
        while sys.stdin.readline():
            pass
        loop.call_soon_threadsafe(closed.set)

    threading.Thread(target=watch, daemon=True).start()
    try:
        await closed.wait()
    finally:
        await runner.cleanup()
