"""How a suite makes stores, and the stage on which one contract test plays: a place, its stores, what closes them."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar, Final

import anyio
from anyio import to_thread

from ...storage.ports import NOT_RENEWED

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
    from contextlib import AbstractContextManager

    from ...storage.ports import Batch, RunHandle, RunInfo, RunStore, StoredRow
    from ...values import Usage

__all__ = ["COLUMNS", "RUN", "Stage", "StoreMaker", "staged"]

RUN: Final = "tickets"
COLUMNS: Final = {"a": "1", "b": "1"}


class StoreMaker:
    """What a suite has to know about the stores that it tests: override ``open_store``, and what else differs."""

    openers: ClassVar[int] = 2
    """How many stores look at one place at the same time; 1 for a store that only its own object can reach."""
    durable: ClassVar[bool] = True
    """Whether what was acknowledged is still there in a store that is opened at the same place later."""
    backend: ClassVar[str] = "asyncio"
    """The event loop to run on, as anyio names it."""
    share: ClassVar[float] = 1.0
    """Which part of the examples of hypothesis' profile the state machine plays: less for a store that takes long."""

    def open_store(self, place: Any) -> RunStore:
        """Open the store at ``place`` for values of up to :data:`MAX_PAYLOAD` bytes; make it if it is not there."""
        # Not an abstract method: pytest collects the suite itself too, and would fail to make one of it.
        raise NotImplementedError(f"{type(self).__name__} has to say how its store is opened: open_store()")

    def open_retaining(self, place: Any, retention_s: float) -> RunStore | None:
        """As ``open_store``, with ``retention_s``, the least that a sweep must keep; None if yours takes no such."""
        return None

    def new_place(self) -> AbstractContextManager[Any]:
        """Give a place where no store is yet, and clean it up on leaving: an empty directory, as a path."""
        return _new_directory()

    def abandon(self, store: RunStore) -> None:
        """Let go of the store as a crash would. It is closed when the test is over; nobody calls it before."""


@contextmanager
def _new_directory() -> Generator[Path]:
    with TemporaryDirectory(prefix="headgate-store-", ignore_cleanup_errors=True) as name:
        yield Path(name)


class Stage:
    """One place, and the stores at it. ``store`` and ``other`` are as two processes; of some stores the same."""

    def __init__(self, maker: StoreMaker, place: Any, exits: AsyncExitStack) -> None:
        self._maker = maker
        self.place = place
        self._exits = exits
        self.store = self._open()
        self.other = self._open() if maker.openers > 1 else self.store

    async def open(
        self, run: str = RUN, columns: Mapping[str, str] = COLUMNS, *, store: RunStore | None = None
    ) -> RunHandle:
        """Open a run, in ``store`` or else the first one."""
        return await (store or self.store).open_run(run, columns)

    async def begin(self, batch: Batch, run: str = RUN) -> RunHandle:
        """Open a run and commit a first batch."""
        handle = await self.open(run)
        await handle.commit(batch)
        return handle

    def retaining(self, retention_s: float) -> RunStore | None:
        """A store at the place that was told what a sweep must keep; None if such stores cannot be told."""
        store = self._maker.open_retaining(self.place, retention_s)
        if store is not None:
            self._exits.push_async_callback(store.aclose)
        return store

    async def reopen(self) -> None:
        """Close the first store, and open it again if it outlives that."""
        if self._maker.durable:
            await self.store.aclose()
            self.store = self._open()

    def crash(self) -> None:
        """Let the process of the first store die, if the store outlives that."""
        if self._maker.durable:
            self._maker.abandon(self.store)
            self.store = self._open()

    async def rows(
        self, run: str = RUN, *, batch: int = 500, renewed: Mapping[str, str] = NOT_RENEWED
    ) -> list[StoredRow]:
        """What the other store reads."""
        return await to_thread.run_sync(lambda: list(self.other.read_rows(run, batch=batch, renewed=renewed)))

    async def runs(self) -> tuple[str, ...]:
        """The runs that the other store knows."""
        return await to_thread.run_sync(self.other.read_runs)

    async def info(self, run: str = RUN) -> RunInfo:
        """The run as the other store sees it."""
        return await to_thread.run_sync(self.other.read_info, run)

    async def spent(self, run: str = RUN) -> Mapping[str, Usage]:
        """The tokens on record as the other store sees them."""
        return await to_thread.run_sync(self.other.read_spent, run)

    async def learned(self, run: str = RUN) -> bytes | None:
        """What the run learned last as the other store sees it."""
        return await to_thread.run_sync(self.other.read_learned, run)

    async def outcomes(self, run: str = RUN) -> int:
        """How many outcomes are on record as the other store sees it."""
        return await to_thread.run_sync(self.other.count_outcomes, run)

    async def payloads(self, run: str = RUN) -> dict[tuple[int, str], bytes | None]:
        """The payloads that the other store reads, by row and column."""
        return {(cell.row, cell.column): cell.payload for row in await self.rows(run) for cell in row.cells}

    def _open(self) -> RunStore:
        store = self._maker.open_store(self.place)
        self._exits.push_async_callback(store.aclose)
        return store


@asynccontextmanager
async def _stage(maker: StoreMaker) -> AsyncGenerator[Stage]:
    with maker.new_place() as place:
        async with AsyncExitStack() as exits:
            yield Stage(maker, place, exits)


async def _play(body: Callable[[Any, Stage], Coroutine[Any, Any, None]], suite: StoreMaker) -> None:
    async with _stage(suite) as stage:
        await body(suite, stage)


def staged(body: Callable[[Any, Stage], Coroutine[Any, Any, None]]) -> Callable[[Any], None]:
    """Make a plain test method of one that is async and wants a stage: so no plugin has to run it."""

    def test(self: StoreMaker) -> None:
        anyio.run(partial(_play, body, self), backend=self.backend)

    # Not functools.wraps: pytest would look for a fixture that is called as the argument.
    test.__name__, test.__qualname__, test.__doc__ = body.__name__, body.__qualname__, body.__doc__
    test.__module__ = body.__module__
    return test
