"""Nothing that a run keeps grows with its rows: what was handed out is forgotten, what failed is cut."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Literal

import anyio
import pytest

import headgate
from headgate.errors import ResultExpired
from headgate.salvage import FailureKind, FailureLedger
from headgate.storage import Batch, CellRecord, CellStatus, MemoryStore, RowRecord, SpentRecord
from headgate.testing.clock import run_virtual
from headgate.values import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

both = pytest.mark.parametrize("backend", ["asyncio", "trio"])
Backend = Literal["asyncio", "trio"]


def doubling() -> headgate.Pipeline:
    pipeline = headgate.Pipeline("double")

    @pipeline.column(model="openai/gpt-x")
    async def double(row: int) -> int:
        await anyio.sleep(0.1)
        return 2 * row

    return pipeline


def kept(engine: headgate.Engine) -> int:
    """How many rows the engine's own store keeps."""
    store = engine.store
    assert isinstance(store, MemoryStore)
    runs = store._runs.values()  # pyright: ignore[reportPrivateUsage]
    return sum(len(run.rows) + sum(map(len, run.cells.values())) for run in runs)


@both
def test_without_a_store_rows_that_were_handed_out_are_kept_nowhere(backend: Backend) -> None:
    """A run of any length takes bounded memory. It cannot be read or resumed then, and says so instead of sending the
    requests again.
    """
    rows, most = 300, [0]

    async def main() -> headgate.RunReport:
        async with headgate.Engine(seed=1) as engine:
            run = await engine.start(doubling(), rows)
            async with aclosing(run.rows()) as finished:
                async for row in finished:
                    assert row.values == {"double": 2 * row.index}
                    most[0] = max(most[0], kept(engine))
            report = await run.wait()
            assert kept(engine) == 0
            assert engine.store.read_info("double").rows == rows
            with pytest.raises(ResultExpired, match="store="):
                list(report.results())
            with pytest.raises(ResultExpired, match="another name"):
                await engine.start(doubling(), rows)
            return report

    assert run_virtual(main, backend=backend).done == rows
    assert most[0] < 200


@both
def test_what_nobody_takes_is_kept_for_the_report(backend: Backend) -> None:
    """Without a reader the results are what the run was for: they stay, and another run of the name resumes."""

    async def main() -> list[dict[str, object]]:
        async with headgate.Engine(seed=1) as engine:
            report = await (await engine.start(doubling(), 40)).wait()
            again = await (await engine.start(doubling(), 50)).wait()
            assert (again.done, again.restored) == (50, 40)
            return [*report.results()]

    assert len(run_virtual(main, backend=backend)) == 50


@both
def test_a_store_that_was_named_keeps_what_was_handed_out(backend: Backend) -> None:
    async def main() -> Iterator[dict[str, object]]:
        async with headgate.Engine(store=MemoryStore(), seed=1) as engine:
            run = await engine.start(doubling(), 40)
            assert len([row async for row in run.rows()]) == 40
            return (await run.wait()).results()

    assert len(list(run_virtual(main, backend=backend))) == 40


async def test_tokens_of_forgotten_rows_stay_on_record(anyio_backend: str) -> None:
    store = MemoryStore()
    handle = await store.open_run("r", {"a": "1"})
    await handle.commit(
        Batch(
            rows=(RowRecord(0, "x", b"d", b"{}"), RowRecord(1, "y", b"e", b"{}")),
            cells=(CellRecord(0, "a", CellStatus.DONE, b"1", usage=Usage(3, 4)),),
            spent=(SpentRecord(0, "a", 1, "provider_error", Usage(1, 1)), SpentRecord(1, "a", 1, "bug", Usage(5, 5))),
        )
    )
    before = store.read_spent("r")
    handle.forget(0)
    assert store.read_spent("r") == before == {"a": Usage(9, 10)}
    assert await handle.find(["x", "y"]) == {"y": 1}
    assert [row.record.row_id for row in await handle.load(0, 2)] == ["y"]


def test_the_ledger_of_a_million_failures() -> None:
    """Entries are bounded, and tracebacks, the largest part, to the first hundred of each cause; counts stay exact."""
    ledger = FailureLedger()
    for row in range(20_000):
        ledger.record(row, "c", FailureKind.BUG, attempts=1, message="m" * 1_000, traceback="t" * 10_000)
    assert ledger.total == 20_000
    assert len(ledger) == 10_000
    assert sum(entry.traceback is not None for entry in ledger) == 100
    assert sum(len(entry.message) + len(entry.traceback or "") for entry in ledger) < 8_000_000
