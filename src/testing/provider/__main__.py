"""Serve a provider: ``python -m headgate.testing.provider --spec provider.json --port 8000``.

The first line on standard output is JSON with ``port`` and ``pid``. ``--spec -`` reads the specification from
the first line of standard input, and then serves until standard input closes: a child never outlives its
parent. Otherwise it serves until Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import threading
from pathlib import Path

from pydantic import ValidationError

from .server import ProviderServer
from .spec import ProviderSpec


def main() -> int:
    """Read the command line and serve. Exit code 2 for a specification that cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m headgate.testing.provider", description=__doc__)
    parser.add_argument("--spec", required=True, help="a JSON file, JSON text, or - for a line on standard input")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 (the default) takes a free port")
    options = parser.parse_args()
    try:
        spec = ProviderSpec.model_validate_json(_spec_text(options.spec))
    except (OSError, ValidationError) as error:
        sys.stderr.write(f"--spec: {error}\n")
        return 2
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(spec, options.host, options.port, until_closed=options.spec == "-"))
    return 0


def _spec_text(given: str) -> str:
    if given == "-":
        return sys.stdin.readline()
    return given if given.lstrip().startswith("{") else Path(given).read_text(encoding="utf-8")


async def _serve(spec: ProviderSpec, host: str, port: int, *, until_closed: bool) -> None:
    server = ProviderServer(spec)
    port = await server.start(host, port)
    sys.stdout.write(json.dumps({"port": port, "pid": os.getpid()}) + "\n")
    sys.stdout.flush()
    closed = asyncio.Event()
    if until_closed:
        watch = threading.Thread(target=_watch_stdin, args=(asyncio.get_running_loop(), closed), daemon=True)
        watch.start()
    try:
        await closed.wait()
    finally:
        await server.stop()


def _watch_stdin(loop: asyncio.AbstractEventLoop, closed: asyncio.Event) -> None:
    while sys.stdin.readline():
        pass
    loop.call_soon_threadsafe(closed.set)


if __name__ == "__main__":
    sys.exit(main())
