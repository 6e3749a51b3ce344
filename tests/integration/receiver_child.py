"""A receiver of completions as a process of its own, for the outbox's tests: it remembers until it is killed.

Prints its port, serves until its standard input closes. ``boot`` is its incarnation. POST /control sets how it answers:
``{"status": 500, "headers": {...}, "hang": true, "known": [...]}``; GET /control tells what it got. With a file as
third argument it writes there what it takes, a line for each delivery, before it answers.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Posted = tuple[str, str, str]


@dataclass
class Receiver:
    boot: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict[str, str])
    hang: bool = False
    known: set[str] | None = None
    got: list[Posted] = field(default_factory=list[Posted])
    remembers: int | None = None

    async def done(self, request: web.Request) -> web.Response:
        if self.hang:
            await asyncio.sleep(3600)
        key, attempt = request.headers["Idempotency-Key"], request.headers["Headgate-Attempt"]
        self.got.append((key, attempt, await request.text()))
        if self.remembers is not None:
            os.write(self.remembers, f"{json.dumps(self.got.pop())}\n".encode())
            os.fsync(self.remembers)
        gone = self.known is not None and key not in self.known
        headers = {"Headgate-Receiver": self.boot, **self.headers}
        return web.Response(status=404 if gone else self.status, headers=headers, text="as you like")

    async def reconcile(self, request: web.Request) -> web.Response:
        keys: list[str] = (await request.json())["keys"]
        known = keys if self.known is None else [key for key in keys if key in self.known]
        self.got.append(("", str(len(keys)), "reconcile"))
        return web.json_response({"known": known}, headers={"Headgate-Receiver": self.boot})

    async def control(self, request: web.Request) -> web.Response:
        said: dict[str, Any] = await request.json()
        for name, value in said.items():
            setattr(self, name, set(value) if name == "known" else value)
        return web.json_response({})

    async def look(self, _: web.Request) -> web.Response:
        return web.json_response(self.got)


async def main() -> None:
    receiver = Receiver(boot=sys.argv[1])
    if len(sys.argv) > 3:
        receiver.remembers = os.open(sys.argv[3], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    app = web.Application()
    app.router.add_post("/done", receiver.done)
    app.router.add_post("/done/reconcile", receiver.reconcile)
    app.router.add_post("/control", receiver.control)
    app.router.add_get("/control", receiver.look)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", int(sys.argv[2]), reuse_address=True)
    await site.start()
    print(json.dumps(runner.addresses[0][1]), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
