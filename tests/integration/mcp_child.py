"""An MCP server for tests: prints its port, serves until its standard input closes."""

from __future__ import annotations

import logging
import socket
import sys
import threading
from typing import Any

import anyio
import uvicorn
from mcp.server.mcpserver import MCPServer

calls: list[str] = []
server = MCPServer("analysis", log_level="CRITICAL")


@server.tool()
async def restart_verdict(cycle: dict[str, Any]) -> dict[str, Any]:
    """Say STOP in the second call for a cycle."""
    calls.append(cycle["id"])
    if calls.count(cycle["id"]) < 2:
        return {"verdict": "pending"}
    tasks = [{"row": 3, "column": cycle["failure"]["cause"]["where"]}]
    return {"verdict": "quarantine", "tasks": tasks, "cycle": cycle["id"], "reason": "saw it"}


@server.tool()
async def hangs(cycle: dict[str, Any]) -> dict[str, Any]:
    """Never answer."""
    await anyio.sleep(3600)
    return cycle


async def main() -> None:
    logging.disable()
    listening = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(f"{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    running = uvicorn.Server(uvicorn.Config(server.streamable_http_app(), log_level="critical"))

    def watch() -> None:
        sys.stdin.read()
        running.should_exit = True
        running.force_exit = True

    threading.Thread(target=watch, daemon=True).start()
    await running.serve(sockets=[listening])


if __name__ == "__main__":
    anyio.run(main)
