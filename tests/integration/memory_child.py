"""A supervisor in a control group that is short of memory, for its tests: its one life takes more than there is.

Enters the group whose file of processes is named, and prints how its life ended, and for what cause, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import anyio

from headgate.restart import ProcessLives, RestartConfig, RestartCoordinator, Supervisor
from headgate.storage import MemoryStore

GREEDY = "parts = []\nwhile True: parts.append(b'x' * 8_000_000)"


async def main() -> None:
    async with RestartCoordinator("greedy", MemoryStore(), config=RestartConfig(budget=0)) as coordinator:
        lives = ProcessLives(lambda _: [sys.executable, "-I", "-S", "-c", GREEDY], lambda: 0)
        ended = await Supervisor(coordinator, lives.live).run()
    assert ended.end is not None
    assert ended.end.cause is not None
    print(json.dumps([ended.end.status, ended.end.cause.kind, ended.end.cause.message]), flush=True)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(str(os.getpid()), encoding="ascii")
    anyio.run(main)
