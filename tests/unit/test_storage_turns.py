"""A large commit to the store in memory lets others have their turns, and nobody ever sees half of it (T25, D2)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import anyio
import anyio.lowlevel
import pytest

from headgate.errors import ConflictingResult, FencedOut, ResultExpired
from headgate.storage import Batch, CellRecord, CellStatus, HeldRecord, MemoryStore, RowRecord, SpentRecord, rules
from headgate.storage.memory import RECORDS_PER_TURN, MemoryRun
from headgate.testing.clock import run_virtual
from headgate.values import Usage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from headgate.storage import RunHandle

Backend = Literal["asyncio", "trio"]
backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])

ROWS = 3 * RECORDS_PER_TURN
TURNS = 6  # in which a batch of so many rows with a cell each is checked


def large(*, last: bytes = b"1") -> Batch:
    cells = [CellRecord(row, "c", CellStatus.DONE, b"1") for row in range(ROWS)]
    cells[-1] = replace(cells[-1], payload=last)
    return Batch(tuple(RowRecord(row, f"id{row}", b"{}", b"{}") for row in range(ROWS)), tuple(cells), learned=b"{}")


def one(payload: bytes) -> Batch:
    return Batch(
        (RowRecord(ROWS - 1, f"id{ROWS - 1}", b"{}", b"{}"),), (CellRecord(ROWS - 1, "c", CellStatus.DONE, payload),)
    )


class Scene:
    """A run that a large batch is being committed to."""

    handle: RunHandle

    def __init__(self, batch: Batch) -> None:
        self.store = MemoryStore()
        self.batch = batch
        self.error: Exception | None = None
        self.over = False

    async def commit(self) -> None:
        try:
            await self.handle.commit(self.batch)
        except Exception as error:
            self.error = error
        finally:
            self.over = True

    def meanwhile(self, backend: Backend, act: Callable[[Scene, anyio.CancelScope], Awaitable[None]]) -> None:
        """Call ``act`` when the commit has begun, and wait for both."""

        async def main() -> None:
            self.handle = await self.store.open_run("run", {"c": "1"})
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.commit)
                while not self.committing():
                    await anyio.lowlevel.checkpoint()
                await anyio.lowlevel.checkpoint()
                assert not self.over
                await act(self, tasks.cancel_scope)

        run_virtual(main, backend=backend)

    def committing(self) -> bool:
        return any(state.commits for state in self.store._runs.values())  # pyright: ignore[reportPrivateUsage]

    def seen(self) -> tuple[int, int]:
        """Rows and cells that a reader sees."""
        rows = list(self.store.read_rows("run"))
        return len(rows), sum(len(row.cells) for row in rows)


@backends
def test_t25_a_large_commit_takes_turns_and_is_seen_as_a_whole(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = [0]
    check = rules.check_sizes

    def counted(run: str, batch: Batch, limit: int) -> int:
        checked[0] += batch.records
        return check(run, batch, limit)

    monkeypatch.setattr(rules, "check_sizes", counted)
    looks: list[tuple[int, int]] = []
    steps: list[int] = []

    async def look(scene: Scene, _: anyio.CancelScope) -> None:
        while not scene.over:
            before = checked[0]
            assert scene.store.read_info("run").rows == scene.seen()[0]
            assert len(await scene.handle.load(0, ROWS)) == len(
                await scene.handle.find([f"id{r}" for r in range(ROWS)])
            )
            looks.append(scene.seen())
            await anyio.lowlevel.checkpoint()
            steps.append(checked[0] - before)

    scene = Scene(large())
    scene.meanwhile(backend, look)
    assert scene.error is None
    assert scene.seen() == (ROWS, ROWS)
    assert set(looks) <= {(0, 0), (ROWS, ROWS)}
    assert looks.count((0, 0)) >= TURNS - 2
    # A look of trio's may come first in one turn and last in the next.
    assert max(steps) <= RECORDS_PER_TURN * (2 if backend == "trio" else 1)


@backends
def test_its_caller_is_cancelled_and_it_is_not(backend: Backend) -> None:
    async def cancel(scene: Scene, scope: anyio.CancelScope) -> None:
        assert scene.seen() == (0, 0)
        scope.cancel()

    scene = Scene(large())
    scene.meanwhile(backend, cancel)
    assert scene.seen() == (ROWS, ROWS)


def test_its_task_is_cancelled_and_it_is_not() -> None:
    """As asyncio does it, from outside all scopes."""
    store = MemoryStore()

    async def main() -> None:
        handle = await store.open_run("run", {"c": "1"})
        task = asyncio.create_task(handle.commit(large()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()

    anyio.run(main)
    assert store.read_info("run").rows == ROWS


@backends
def test_its_caller_is_cancelled_and_it_is_refused(backend: Backend) -> None:
    """The cancellation is what the caller hears."""

    async def cancel(scene: Scene, scope: anyio.CancelScope) -> None:
        scope.cancel()

    scene = Scene(Batch(large().rows, (*large().cells, CellRecord(0, "c", CellStatus.DONE, b"2"))))
    scene.meanwhile(backend, cancel)
    assert scene.error is None
    assert scene.seen() == (0, 0)


@backends
def test_another_opening_fences_it_out(backend: Backend) -> None:
    """D4: checked in the moment in which it would be written."""

    async def open_again(scene: Scene, _: anyio.CancelScope) -> None:
        await scene.store.open_run("run", {})

    scene = Scene(large())
    scene.meanwhile(backend, open_again)
    assert isinstance(scene.error, FencedOut)
    assert scene.seen() == (0, 0)


@backends
@pytest.mark.parametrize("payload", [b"1", b"2"])
def test_a_small_commit_overtakes_it(backend: Backend, payload: bytes) -> None:
    """D3: the first outcome wins, the same again is nothing, also where the large one had looked before."""

    async def overtake(scene: Scene, scope: anyio.CancelScope) -> None:
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        assert not scene.over
        await scene.handle.commit(one(payload))
        assert scene.seen() == (1, 1)

    scene = Scene(Batch(tuple(reversed(large().rows)), tuple(reversed(large().cells))))
    scene.meanwhile(backend, overtake)
    if payload == b"1":
        assert scene.error is None
        assert scene.seen() == (ROWS, ROWS)
    else:
        assert isinstance(scene.error, ConflictingResult)
        assert scene.seen() == (1, 1)


@backends
def test_nothing_of_a_refused_one_is_there(backend: Backend) -> None:
    """All or nothing, though the record that is refused comes last."""

    async def nothing(scene: Scene, _: anyio.CancelScope) -> None:
        assert scene.store.read_spent("run") == {}

    held = HeldRecord(0, "c", "overloaded", 1.0, 0, b"[]")
    spent = (SpentRecord(0, "c", 1, "x", Usage(1, 1)), SpentRecord(ROWS, "c", 1, "x", Usage(1, 1)))
    scene = Scene(Batch(large().rows, large().cells[1:], held=(held,), spent=spent, learned=b"{}"))
    scene.meanwhile(backend, nothing)
    assert scene.error is not None
    assert scene.seen() == (0, 0)
    assert scene.store.read_spent("run") == {}

    async def learned() -> bytes | None:
        return (await scene.store.open_run("other", {})).learned

    assert run_virtual(learned, backend=backend) is None


@backends
def test_rows_are_forgotten_while_it_goes_on(backend: Backend) -> None:
    """It had seen a row that is gone when it is written: nothing is left of that row, and its tokens are counted."""

    async def forget(scene: Scene, _: anyio.CancelScope) -> None:
        assert isinstance(scene.handle, MemoryRun)
        scene.handle.forget(ROWS - 1)
        with pytest.raises(ResultExpired, match="1 rows"):
            scene.store.read_rows("run")

    cell = CellRecord(ROWS - 1, "c", CellStatus.DONE, b"1", usage=Usage(3, 4))
    batch = large()
    scene = Scene(Batch(batch.rows, (*batch.cells[:-1], cell)))

    async def first() -> None:
        handle = await scene.store.open_run("run", {"c": "1"})
        await handle.commit(Batch(batch.rows[-1:]))

    run_virtual(first, backend=backend)
    scene.meanwhile(backend, forget)
    assert scene.error is None
    assert scene.store.read_info("run").rows == ROWS
    assert scene.store.read_spent("run")["c"] == Usage(3, 4)
    state = scene.store._runs["run"]  # pyright: ignore[reportPrivateUsage]
    assert ROWS - 1 not in state.rows
    assert ROWS - 1 not in state.cells["c"]
    assert len(state.positions) == len(state.rows) == ROWS - 1


def test_parts_of_a_batch() -> None:
    """Every record once, in the order of the fields, so many at most; what is small is not touched."""
    batch = Batch(
        large().rows[:5],
        large().cells[:4],
        ((1, "c"), (2, "c")),
        (HeldRecord(0, "c", "", 1.0, 0, b"[]"),) * 3,
        (SpentRecord(0, "c", 1, "", Usage()),),
        b"{}",
    )
    parts = list(batch.parts(2))
    assert max(part.records for part in parts) == 2
    together = Batch(
        sum((part.rows for part in parts), start=()),
        sum((part.cells for part in parts), start=()),
        sum((part.unheld for part in parts), start=()),
        sum((part.held for part in parts), start=()),
        sum((part.spent for part in parts), start=()),
        parts[-1].learned,
    )
    assert together == batch
    kinds = [[bool(kind) for kind in (part.rows, part.cells, part.unheld, part.held, part.spent)] for part in parts]
    assert kinds == sorted(kinds, reverse=True)
    assert list(batch.parts(15)) == [batch]
    assert next(batch.parts(15)) is batch
