"""Replicas, their source and their store in virtual time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import anyio

from headgate.errors import StoreUnavailable
from headgate.restart import (
    Answer,
    Cause,
    Cycle,
    Decision,
    Failure,
    RestartConfig,
    RestartCoordinator,
    SourceUnreachable,
    Verdict,
)
from headgate.storage import MemoryStore
from headgate.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from headgate.restart import RestartSource


STOP = Answer(Verdict.STOP, reason="the disk is full")
RESTART = Answer(Verdict.RESTART)
CRASH = Failure(Cause("crash", "summary"))
Backend = Literal["asyncio", "trio"]


@dataclass
class Service:
    """An analysis service that all replicas ask: one analysis for each cycle, which takes ``seconds``."""

    seconds: float = 5.0
    answer: Answer = RESTART
    name: str = "service"
    elsewhere: bool = True
    begun: dict[str, float] = field(default_factory=dict[str, float])
    triggers: int = 0
    hangs: bool = False
    reachable: bool = True
    broken: bool = False

    async def trigger(self, cycle: Cycle) -> None:
        self.triggers += 1
        if not self.reachable:
            raise SourceUnreachable("connection refused")
        self.begun.setdefault(cycle.id, anyio.current_time())

    async def read(self, cycle: Cycle) -> Answer | None:
        if self.broken:
            raise ZeroDivisionError("a source with a fault")
        if not self.reachable:
            raise SourceUnreachable("connection refused")
        if self.hangs:
            await anyio.sleep_forever()
        begun = self.begun.get(cycle.id)
        if begun is None or anyio.current_time() < begun + self.seconds:
            return None
        return self.answer


@dataclass
class FlakyStore(MemoryStore):
    """Registers that can be away, or do what they are asked and lose the answer."""

    away: bool = False
    silent: bool = False
    loses_answers: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    async def read_register(self, name: str) -> tuple[int, bytes]:
        if self.away:
            raise StoreUnavailable("no connection")
        if self.silent:
            await anyio.sleep_forever()
        return await super().read_register(name)

    async def write_register(self, name: str, data: bytes, *, after: int) -> bool:
        if self.away:
            raise StoreUnavailable("no connection")
        done = await super().write_register(name, data, after=after)
        if self.loses_answers:
            self.loses_answers -= 1
            raise StoreUnavailable("the connection broke")
        return done


def coordinator(
    store: MemoryStore,
    sources: Sequence[RestartSource] = (),
    config: RestartConfig | None = None,
    name: str = "a",
) -> RestartCoordinator:
    return RestartCoordinator("tickets", store, sources=sources, config=config, replica=name, clock=lambda: 1e9)


async def one_failure(replica: RestartCoordinator, failure: Failure = CRASH) -> Decision:
    replica.failed(failure)
    return await replica.decision()


def play(backend: Backend, body: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await body()

    run_virtual(main, backend=backend)
