"""What a store knows of one run, in numbers."""

from __future__ import annotations

import anyio
import pytest

import headgate
from headgate.errors import UnknownRun
from headgate.storage import Batch, CellRecord, CellStatus, HeldRecord, MemoryStore, RowRecord, SpentRecord
from headgate.storage.overview import RunOverview, read_overview
from headgate.testing import run_virtual
from headgate.values import Usage

ROWS = tuple(RowRecord(n, f"id{n}", b"d", b"{}") for n in range(6))


class Refused(Exception):
    def __init__(self, status_code: int) -> None:
        super().__init__(status_code)
        self.status_code = status_code


def done(row: int, column: str, at: float) -> CellRecord:
    return CellRecord(row, column, CellStatus.DONE, b"1", usage=Usage(3, 2), finished_at=at)


def failed(row: int, column: str, reason: str) -> CellRecord:
    return CellRecord(row, column, CellStatus.FAILED, None, reason, "no", 2, 400, Usage(1, 0), 5.0)


def held(row: int, column: str, until: float) -> HeldRecord:
    return HeldRecord(row, column, "rate_limited", until, 1, b"[]")


CELLS = (
    *(done(0, "a", 7.0), CellRecord(0, "b", CellStatus.SKIPPED, None, "when", finished_at=8.0)),
    *(done(1, "a", 2.0), failed(1, "b", "rejected")),
    *(failed(2, "a", "bug"), CellRecord(2, "b", CellStatus.SKIPPED, None, "row failed", finished_at=1.0)),
    done(3, "a", 3.0),
)


async def overview(status: str | None = "held") -> RunOverview:
    store = MemoryStore()
    handle = await store.open_run("r", {"a": "1", "b": "1"})
    spent = (SpentRecord(3, "b", 0, "rate_limited", Usage(10, 0)),)
    waiting = (held(3, "b", 99.0), held(5, "a", 88.0), held(2, "b", 1.0))
    await handle.commit(Batch(rows=ROWS, cells=CELLS, held=waiting, spent=spent))
    if status is not None:
        await handle.finish(status)
    return read_overview(store, "r")


def test_rows_and_cells_are_counted_by_what_became_of_them() -> None:
    found = anyio.run(overview, None)
    assert (found.whole, found.failed, found.held, found.pending) == (1, 2, 2, 1)
    assert sum((found.whole, found.failed, found.held, found.pending)) == found.info.rows
    counts = {c.column: (c.done, c.failed, c.skipped, c.held, c.open) for c in found.columns}
    assert counts == {"a": (3, 1, 0, 1, 1), "b": (0, 1, 2, 1, 2)}
    assert {sum(one) for one in counts.values()} == {found.info.rows}
    assert {c.column: c.usage for c in found.columns} == {"a": Usage(10, 6), "b": Usage(11, 0)}
    assert (found.next_at, found.last_at) == (88.0, 8.0)


def test_what_a_run_leaves_at_its_end_is_held() -> None:
    """The report of a run said "869 held" where the store's page said "2 held, 867 pending"."""
    found = anyio.run(overview)
    assert (found.whole, found.failed, found.held, found.pending) == (1, 2, 3, 0)
    assert {c.column: (c.held, c.open) for c in found.columns} == {"a": (2, 0), "b": (3, 0)}
    assert found.info.status == "held"


@pytest.mark.parametrize("finish_siblings", [False, True])
def test_report_and_store_count_the_rows_of_a_run_alike(finish_siblings: bool) -> None:
    """Also rows of which one cell failed and another is held."""
    pipeline = headgate.Pipeline("halves")

    @pipeline.column(model="x/held")
    async def held_one(row: int) -> int:
        raise Refused(503 if row % 3 else 200)

    @pipeline.column(model="x/failed")
    async def failed_one(row: int) -> int:
        if row % 2:
            raise Refused(400)
        return row

    async def main() -> tuple[headgate.RunReport, RunOverview]:
        store = MemoryStore()
        limits = {"x/held": {"concurrency": 4}, "x/failed": {"concurrency": 4}}
        report = await headgate.arun(
            pipeline, 90, limits=limits, store=store, patience=5, finish_siblings=finish_siblings, seed=1
        )
        return report, read_overview(store, "halves")

    report, found = run_virtual(main)
    assert report.status == "held"
    assert report.failed
    assert (found.whole, found.failed, found.held, found.pending) == (
        report.done + report.skipped,
        report.failed,
        report.held,
        report.accepted - found.info.rows,
    )
    assert {c.column: (c.done, c.failed, c.held, c.skipped) for c in found.columns} == {
        c.column: (c.done, c.failed, c.held, c.skipped) for c in report.columns
    }


def test_failures_are_counted_by_cause_and_the_first_are_shown() -> None:
    found = anyio.run(overview)
    assert found.failure_counts == {("a", "bug"): 1, ("b", "rejected"): 1}
    assert [(cell.row_id, cell.column, cell.attempts, cell.http_status) for cell in found.failures] == [
        ("id1", "b", 2, 400),
        ("id2", "a", 2, 400),
    ]


def test_a_run_that_is_not_there_is_unknown() -> None:
    with pytest.raises(UnknownRun):
        read_overview(MemoryStore(), "nobody's")
