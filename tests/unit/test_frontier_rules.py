"""The frontier's rules one by one, and the traps that engines with row bookkeeping fell into."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, Any

import pytest

from headgate.scheduler.frontier import CellState, Frontier, Task
from headgate.scheduler.graph import ColumnSpec, Graph, Scope
from headgate.scheduler.row_group import OpenRow, RowGroup

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from headgate.scheduler.frontier import Progress

DONE, FAILED, SKIPPED = CellState.DONE, CellState.FAILED, CellState.SKIPPED
WIDE = 64


def cell(name: str, *needs: str) -> ColumnSpec:
    return ColumnSpec(name, needs)


def group(name: str, *needs: str) -> ColumnSpec:
    return ColumnSpec(name, needs, scope=Scope.GROUP)


def frontier(*specs: ColumnSpec, finish_siblings: bool = False) -> Frontier:
    return Frontier(Graph.build(specs), finish_siblings=finish_siblings)


def lines_run(call: Callable[[], object]) -> int:
    """How many lines of Python ``call`` executes: a cost that no clock can blur."""
    lines = 0

    def trace(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return lines


def records_alive() -> int:
    gc.collect()
    return sum(isinstance(thing, (OpenRow, RowGroup)) for thing in gc.get_objects())


def test_a_row_ends_with_its_last_cell() -> None:
    rows = frontier(cell("question", "topic"), cell("verdict", "question"))
    assert rows.add_row(7, 0).ready == [Task(0, 7)]
    progress = rows.finish(Task(0, 7))
    assert progress.ready == [Task(1, 7)]
    assert progress.finished_rows == []
    progress = rows.finish(Task(1, 7))
    assert progress.closed == [(7, 1, DONE, "")]
    assert progress.finished_rows == [7]
    assert rows.seal_group(0).finished_groups == [0]


def test_a_join_waits_for_both() -> None:
    """S3: a cell never starts before all it needs is there."""
    rows = frontier(cell("a"), cell("b"), cell("join", "a", "b"))
    assert rows.add_row(0, 0).ready == [Task(0, 0), Task(1, 0)]
    assert rows.finish(Task(1, 0)).ready == []
    assert rows.finish(Task(0, 0)).ready == [Task(2, 0)]


def test_reasons_name_the_origin() -> None:
    chain = (cell("a"), cell("b", "a"), cell("c", "b"), cell("other"))
    rows = frontier(*chain)
    rows.add_row(0, 0)
    closed = rows.skip(Task(0, 0)).closed
    assert closed == [
        (0, 0, SKIPPED, "when"),
        (0, 1, SKIPPED, "upstream a skipped"),
        (0, 2, SKIPPED, "upstream a skipped"),
    ]
    rows.add_row(1, 0)
    closed = rows.fail(Task(0, 1), "rejected").closed
    assert [state for _, _, state, _ in closed] == [FAILED, SKIPPED, SKIPPED, SKIPPED]
    assert [reason for _, _, _, reason in closed] == [
        "rejected",
        "upstream a failed",
        "upstream a failed",
        "row failed",
    ]


def test_finish_siblings_keeps_the_rest_of_the_row() -> None:
    rows = frontier(cell("a"), cell("b", "a"), cell("other"), finish_siblings=True)
    rows.add_row(0, 0)
    progress = rows.fail(Task(0, 0), "rejected")
    assert progress.cancel == []
    assert rows.unfinished(0) == [(2, CellState.READY)]
    assert rows.finish(Task(2, 0)).finished_rows == [0]


def test_group_column_waits_for_the_seal_and_for_every_live_row() -> None:
    rows = frontier(cell("q", "topic"), group("dedupe", "q"), cell("after", "dedupe"), group("last", "after"))
    for row in (0, 1, 2):
        rows.add_row(row, 5)
    rows.finish(Task(0, 0))
    rows.skip(Task(0, 1))
    assert rows.seal_group(5).ready == []
    dedupe = Task(1, 5)
    assert rows.finish(Task(0, 2)).ready == [dedupe]
    assert rows.live_rows(dedupe) == [0, 2]
    assert rows.state(0, 1) == CellState.READY
    assert rows.finish(dedupe).ready == [Task(2, 0), Task(2, 2)]
    rows.finish(Task(2, 0))
    assert rows.finish(Task(2, 2)).ready == [Task(3, 5)]
    progress = rows.finish(Task(3, 5))
    assert (progress.finished_rows, progress.finished_groups) == ([0, 2], [5])


def test_a_failed_row_does_not_block_its_group() -> None:
    rows = frontier(cell("q"), group("dedupe", "q"))
    rows.add_row(0, 0)
    rows.add_row(1, 0)
    rows.seal_group(0)
    rows.finish(Task(0, 0))
    assert rows.fail(Task(0, 1), "poisoned").ready == [Task(1, 0)]
    assert rows.live_rows(Task(1, 0)) == [0]


def test_a_group_without_live_rows_has_no_task() -> None:
    rows = frontier(cell("q"), group("dedupe", "q"))
    rows.add_row(0, 0)
    rows.add_row(1, 0)
    rows.skip(Task(0, 0))
    rows.skip(Task(0, 1))
    progress = rows.seal_group(0)
    assert (progress.ready, progress.finished_groups) == ([], [0])


def test_a_group_task_is_not_both_ready_and_cancelled_in_one_step() -> None:
    """The undecided row dies and would make the second task ready; the same event takes its live rows."""
    rows = frontier(cell("q"), group("first", "topic"), group("second", "q"))
    for row in range(3):
        rows.add_row(row, 0)
    rows.finish(Task(0, 1))
    rows.finish(Task(0, 2))
    assert rows.seal_group(0).ready == [Task(1, 0)]
    progress = rows.fail(Task(1, 0), "bug")
    assert (progress.ready, progress.cancel) == ([], [Task(0, 0)])
    assert progress.finished_groups == [0]


def test_rows_of_a_group_may_fail_one_by_one() -> None:
    rows = frontier(group("dedupe", "topic"), cell("after", "dedupe"))
    for row in range(3):
        rows.add_row(row, 0)
    rows.seal_group(0)
    progress = rows.finish_group(Task(0, 0), {1: FAILED, 2: SKIPPED}, {1: "invalid_output"})
    assert progress.ready == [Task(1, 0)]
    assert [entry for entry in progress.closed if entry[1] == 0] == [
        (0, 0, DONE, ""), (1, 0, FAILED, "invalid_output"), (2, 0, SKIPPED, "skipped"),
    ]  # fmt: skip


def test_an_earlier_run_is_taken_over() -> None:
    """S2, the part that is decided here: what was closed is not ready again, and what follows from it
    happens.
    """
    rows = frontier(cell("a"), cell("b", "a"), cell("c", "b"))
    assert rows.add_row(0, 0, {0: DONE}).ready == [Task(1, 0)]
    assert rows.add_row(1, 0, {0: DONE, 1: DONE, 2: DONE}).finished_rows == [1]
    progress = rows.add_row(2, 0, {0: FAILED})
    assert (progress.ready, progress.finished_rows) == ([], [2])
    assert progress.closed == [(2, 1, SKIPPED, "upstream a failed"), (2, 2, SKIPPED, "upstream a failed")]


def test_held_work_is_not_load() -> None:
    """A row that has only held work does not count against the horizon of the others, and its cell stays
    open.
    """
    rows = frontier(cell("a"), cell("b"))
    rows.add_row(0, 0)
    rows.hold(Task(0, 0))
    assert (rows.load, rows.counts().idle_rows) == (1, 0)
    rows.hold(Task(1, 0))
    assert (rows.load, rows.counts().idle_rows, rows.counts().open_rows) == (0, 1, 1)
    assert rows.unfinished(0) == [(0, CellState.HELD), (1, CellState.HELD)]
    assert rows.resume(Task(1, 0))
    assert (rows.load, rows.counts().idle_rows) == (1, 0)


def test_t23_column_barriers() -> None:
    """A public engine ran column by column: judge endpoints idled until every row had its first column."""
    rows = frontier(cell("question"), cell("verdict", "question"))
    for row in range(100):
        rows.add_row(row, row // 10)
    assert rows.finish(Task(0, 42)).ready == [Task(1, 42)]


def test_t24_cost_per_task_grows_with_columns() -> None:
    """A public engine took 283 us of CPU per no-op task with one column and 3,095 us with 64."""

    def cost(columns: int) -> int:
        chain = [cell("c0")] + [cell(f"c{i}", f"c{i - 1}") for i in range(1, columns)]
        rows = frontier(*chain)
        rows.add_row(0, 0)
        return lines_run(lambda: rows.finish(Task(0, 0)))

    assert cost(2) == cost(WIDE)


def test_t25_one_event_does_not_touch_all_rows() -> None:
    """In a public engine 20,000 cells became ready in one step (741 ms); dropping 2,000 rows took 161 ms."""

    def costs(open_rows: int) -> list[int]:
        rows = frontier(cell("q"), cell("v", "q"), group("dedupe", "v"))
        for row in range(open_rows):
            rows.add_row(row, row // 10)
        last = open_rows - 1
        reports: list[Callable[[], Progress | bool]] = [
            lambda: rows.finish(Task(0, 0)),
            lambda: rows.hold(Task(0, 1)),
            lambda: rows.resume(Task(0, 1)),
            lambda: rows.fail(Task(0, last), "poisoned"),
            lambda: rows.add_row(open_rows, 10_000),
        ]
        return [lines_run(report) for report in reports]

    assert costs(20) == costs(2_000)


def test_t28_no_memory_up_front() -> None:
    """Engines held 253 to 420 MiB for a million row groups before the first request: rows come and go."""
    rows = frontier(cell("q"), group("dedupe", "q"))
    before = records_alive()
    for row in range(500):
        rows.add_row(row, row)
        rows.finish(Task(0, row))
        rows.seal_group(row)
        assert rows.finish(Task(1, row)).finished_groups == [row]
        rows.forget_row(row)
    assert records_alive() == before


def test_t31_siblings_run_on() -> None:
    """A dropped row's other requests in flight went on and were paid for: they are named for cancellation."""
    rows = frontier(cell("a"), cell("running"), cell("held"), cell("later", "running"))
    rows.add_row(0, 0)
    rows.hold(Task(2, 0))
    progress = rows.fail(Task(0, 0), "rejected")
    assert progress.cancel == [Task(1, 0), Task(2, 0)]
    assert progress.finished_rows == [0]
    late = rows.finish(Task(1, 0))
    assert (late.closed, late.ready, late.finished_rows) == ([], [], [])


def test_t31_a_group_task_that_nobody_needs_is_cancelled() -> None:
    """The same for a group column: it runs on only while one of its rows is alive."""
    rows = frontier(group("dedupe", "topic"), cell("risky"))
    rows.add_row(0, 0)
    rows.add_row(1, 0)
    rows.seal_group(0)
    assert rows.fail(Task(1, 0), "rejected").cancel == []
    assert rows.fail(Task(1, 1), "rejected").cancel == [Task(0, 0)]


def test_t32_one_batch_one_fate() -> None:
    """An exception in a batch of 50 turned all 50 rows into None: each row has its own outcome."""
    rows = frontier(group("batch", "topic"))
    for row in range(50):
        rows.add_row(row, 0)
    rows.seal_group(0)
    progress = rows.finish_group(Task(0, 0), {13: FAILED}, {13: "invalid_output"})
    assert sorted(row for row, _, _, _ in progress.closed) == list(range(50))
    assert [entry for entry in progress.closed if entry[2] != DONE] == [(13, 0, FAILED, "invalid_output")]


def test_t32_a_failed_group_task_accounts_for_each_row() -> None:
    rows = frontier(group("batch", "topic"), cell("after", "batch"))
    for row in range(50):
        rows.add_row(row, 0)
    rows.seal_group(0)
    progress = rows.fail(Task(0, 0), "rejected")
    assert {(row, reason) for row, column, _, reason in progress.closed if column == 0} == {
        (row, "rejected") for row in range(50)
    }
    assert progress.finished_groups == [0]


def test_the_contract_is_asserted() -> None:
    rows = frontier(cell("a"), cell("b", "a"))
    rows.add_row(0, 0)
    with pytest.raises(AssertionError, match="has not been ready"):
        rows.finish(Task(1, 0))
    with pytest.raises(AssertionError, match="is there already"):
        rows.add_row(0, 0)
    with pytest.raises(AssertionError, match="is not finished"):
        rows.forget_row(0)
    with pytest.raises(AssertionError, match="no group task"):
        rows.finish_group(Task(0, 1), {}, {})
    with pytest.raises(AssertionError, match="not all that it needs"):
        rows.add_row(1, 0, {1: DONE})
    rows.seal_group(0)
    with pytest.raises(AssertionError, match="is sealed"):
        rows.add_row(2, 0)
