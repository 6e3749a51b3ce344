"""`assert_ledger`: true reports pass, and of others it says which rows differ."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import headgate
from headgate.storage import MemoryStore
from headgate.storage.ports import CellRecord, CellStatus, HeldRecord, StoredRow
from headgate.testing import assert_ledger, run_virtual
from headgate.values import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Edit = Callable[[StoredRow], list[StoredRow]]
    EditRow = Callable[[int, Edit], None]


def unchanged(row: StoredRow) -> list[StoredRow]:
    return [row]


class Edited(MemoryStore):
    """A store that tells what it holds otherwise than it is."""

    def __init__(self) -> None:
        super().__init__()
        self.edit: Edit = unchanged

    def read_rows(self, run: str, **options: Any) -> Iterator[StoredRow]:
        for row in super().read_rows(run, **options):
            yield from self.edit(row)


def six_rows(store: MemoryStore) -> headgate.RunReport:
    """Row 3 fails, row 4 is skipped, all others are done."""
    pipeline = headgate.Pipeline("six")

    def wanted(row: int) -> bool:
        return row != 4

    @pipeline.column(when=wanted)
    async def half(row: int) -> int:
        if row == 3:
            raise TypeError("odd")
        return row // 2

    @pipeline.column
    async def quarter(half: int) -> int:
        return half // 2

    rows = [{"row": row, "name": f"n{row}"} for row in range(6)]
    return run_virtual(lambda: headgate.arun(pipeline, rows, store=store, row_id="name"))


@pytest.fixture(scope="module")
def store() -> Edited:
    return Edited()


@pytest.fixture(scope="module")
def honest(store: Edited) -> headgate.RunReport:
    return six_rows(store)


@pytest.fixture
def edit(store: Edited, monkeypatch: pytest.MonkeyPatch) -> EditRow:
    """Let the store tell something else of one row."""

    def of_row(number: int, change: Edit) -> None:
        def edited(row: StoredRow) -> list[StoredRow]:
            return change(row) if row.record.row == number else [row]

        monkeypatch.setattr(store, "edit", edited)

    return of_row


def test_a_true_report_passes(honest: headgate.RunReport) -> None:
    assert (honest.done, honest.failed, honest.skipped) == (4, 1, 1)
    assert_ledger(honest)


def test_counts_that_do_not_add_up(honest: headgate.RunReport) -> None:
    with pytest.raises(AssertionError, match="6 rows accepted, but 5 done"):
        assert_ledger(replace(honest, done=5))


def test_a_report_that_counts_a_failed_row_as_done(honest: headgate.RunReport) -> None:
    """The counts add up, and are wrong: the row is named with its reason."""
    columns = tuple(replace(column, done=column.total, failed=0, skipped=0) for column in honest.columns)
    said = replace(honest, done=5, failed=0, columns=columns)
    with pytest.raises(AssertionError) as caught:
        assert_ledger(said)
    assert str(caught.value) == (
        "run 'six': the report says 5 done, the store holds 4; "
        "the report says 0 failed, the store holds 1: row 3 (n3) failed in 'half' (bug)"
    )


def test_a_row_that_lost_a_cell(honest: headgate.RunReport, edit: EditRow) -> None:
    held = HeldRecord(5, "quarter", "rate_limited", 0.0, 1, b"{}")
    edit(5, lambda row: [replace(row, cells=row.cells[:1], held=(held,))])
    with pytest.raises(
        AssertionError, match=r"says 0 held, .* holds 1: row 5 \(n5\) waits for 'quarter' \(rate_limited\)"
    ):
        assert_ledger(honest)


def test_a_row_that_is_not_stored(honest: headgate.RunReport, edit: EditRow) -> None:
    edit(5, lambda row: [])
    with pytest.raises(AssertionError, match=r"the report says 4 done, the store holds 3; .*holds 1: "):
        assert_ledger(honest)


def test_a_row_that_is_stored_twice(honest: headgate.RunReport, edit: EditRow) -> None:
    edit(2, lambda row: [row, row])
    with pytest.raises(AssertionError, match=r"row 2 \(n2\) is stored 2 times$"):
        assert_ledger(honest)


def test_a_cell_with_two_outcomes(honest: headgate.RunReport, edit: EditRow) -> None:
    again = CellRecord(1, "half", CellStatus.FAILED, None, "bug", "", 1, None, Usage(), 0.0)
    edit(1, lambda row: [replace(row, cells=(again, *row.cells))])
    with pytest.raises(AssertionError, match=r"row 1 \(n1\): column 'half' has 2 outcomes$"):
        assert_ledger(honest)


def test_a_stopped_run_and_one_whose_rows_are_gone() -> None:
    """What was not written yet is held; what was handed out and forgotten cannot be looked at."""

    async def stopped() -> headgate.RunReport:
        async with headgate.Engine() as engine:
            run = await engine.start(identity(asleep=True), 50)
            await anyio.sleep(1)
            run.stop()
            report = await run.wait()
            assert_ledger(report)
        return report

    async def handed_out() -> headgate.RunReport:
        async with headgate.Engine() as engine:
            run = await engine.start(identity(), 50)
            async for row in run.rows():
                assert row.status == "done"
            return await run.wait()

    report = run_virtual(stopped)
    assert (report.done, report.held) == (21, 29)
    assert_ledger(run_virtual(handed_out))


def identity(*, asleep: bool = False) -> headgate.Pipeline:
    pipeline = headgate.Pipeline("identity")

    @pipeline.column
    async def same(row: int) -> int:
        if asleep and row > 20:
            await anyio.sleep(3600)
        return row

    return pipeline
