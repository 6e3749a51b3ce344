"""A replica for tests of restarts: ``restart_child.py STORE URL NAME KILL_AT``.

For each line ``RUN`` on standard input it enters that run and says so, waits for another line, fails, and writes what
it is told. ``STORE`` is ``sqlite:PATH``, ``files:PATH`` or ``postgres:DSN|SCHEMA``. At the step ``KILL_AT`` of the
protocol it kills itself with SIGKILL: ``trigger``, ``claim``, ``read`` or ``decide``, with ``<`` before and ``>`` after
the call.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from headgate.restart import Cause, Failure, RestartConfig, RestartCoordinator, configured_sources
from headgate.restart.codec import decode
from headgate.storage import FileStore, PostgresStore, SqliteStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headgate.restart import Answer, Cycle, RestartSource


class Steps:
    """Ends the process at one step of the protocol."""

    def __init__(self, kill_at: str) -> None:
        self._kill_at = kill_at

    def step(self, name: str) -> None:
        if name == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


class SteppedStore:
    """A store whose writes are steps, before and after."""

    def __init__(self, store: Any, steps: Steps) -> None:
        self._store = store
        self._steps = steps

    async def read_register(self, name: str) -> tuple[int, bytes]:
        found: tuple[int, bytes] = await self._store.read_register(name)
        return found

    async def write_register(self, name: str, data: bytes, *, after: int) -> bool:
        record = decode(data)
        step = "decide" if record.decisions else "claim" if record.lease else ""
        self._steps.step(f"{step}<")
        done: bool = await self._store.write_register(name, data, after=after)
        self._steps.step(f"{step}>")
        return done


class SteppedSource:
    """A source whose calls are steps, before and after."""

    def __init__(self, source: RestartSource, steps: Steps) -> None:
        self.name, self.elsewhere = source.name, source.elsewhere
        self._source = source
        self._steps = steps

    async def trigger(self, cycle: Cycle) -> None:
        self._steps.step("trigger<")
        await self._source.trigger(cycle)
        self._steps.step("trigger>")

    async def read(self, cycle: Cycle) -> Answer | None:
        self._steps.step("read<")
        answer = await self._source.read(cycle)
        self._steps.step("read>")
        return answer


def open_store(spec: str) -> Any:
    kind, _, place = spec.partition(":")
    match kind:
        case "sqlite":
            return SqliteStore(place)
        case "files":
            return FileStore(place)
        case _:
            dsn, _, schema = place.partition("|")
            return PostgresStore(dsn, schema=schema)


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def hear() -> str:
    line: str = await anyio.to_thread.run_sync(sys.stdin.readline)
    return line.strip()


async def live(
    run: str, store: SteppedStore, sources: Sequence[RestartSource], config: RestartConfig, name: str
) -> None:
    async with RestartCoordinator(run, store, sources=sources, config=config, replica=name) as replica:
        entry = await replica.enter()
        say("entered", entry.cycle, entry.closed.action if entry.closed else "")
        if entry.closed is None:
            await hear()
            replica.failed(Failure(Cause("crash")))
            decision = await replica.decision()
            say("told", decision.cycle, decision.action, decision.basis, decision.replica, decision.at)


async def main(spec: str, url: str, name: str, kill_at: str) -> None:
    config = RestartConfig(service_url=url, timeout=20.0, lease=1.5, poll=0.1, rules=False)
    steps = Steps(kill_at)
    store = open_store(spec)
    async with configured_sources(config) as sources:
        stepped = [SteppedSource(source, steps) for source in sources]
        while run := await hear():
            await live(run, SteppedStore(store, steps), stepped, config, name)
    await store.aclose()


if __name__ == "__main__":
    _, where, service, own_name, at = sys.argv
    anyio.run(partial(main, where, service, own_name, at), backend="asyncio")
