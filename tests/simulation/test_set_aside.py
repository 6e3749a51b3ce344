"""Cells that are set aside are not tried: they fail as such, durably, and everything else goes on."""

from __future__ import annotations

import pytest

import headgate
from headgate.errors import ConfigError
from headgate.storage import CellStatus, MemoryStore
from headgate.testing import run_virtual

calls: list[tuple[str, str]] = []


def pipeline() -> headgate.Pipeline:
    made = headgate.Pipeline("tickets")

    @made.column()
    async def question(topic: str) -> str:
        calls.append(("question", topic))
        return topic.upper()

    @made.column()
    async def verdict(question: str) -> str:
        calls.append(("verdict", question))
        return question + "!"

    @made.column(scope="group")
    async def together(question: list[str]) -> list[str]:
        return question

    return made


ROWS = [{"topic": "a"}, {"topic": "b"}, {"topic": "c"}]


def run(store: MemoryStore, **options: object) -> headgate.RunReport:
    calls.clear()

    async def main() -> headgate.RunReport:
        return await headgate.arun(pipeline(), ROWS, store=store, **options)  # type: ignore[arg-type]

    return run_virtual(main)


def test_what_is_set_aside_is_not_tried_and_the_rest_is_done() -> None:
    store = MemoryStore()
    report = run(store, set_aside=[(1, "verdict")])
    assert ("verdict", "B") not in calls
    assert ("verdict", "A") in calls
    assert (report.done, report.failed) == (2, 1)
    assert report.failure_counts == {("verdict", "set_aside"): 1}
    cells = {(row.record.row, cell.column): cell for row in store.read_rows("tickets") for cell in row.cells}
    assert (cells[1, "verdict"].status, cells[1, "verdict"].reason) == (CellStatus.FAILED, "set_aside")


def test_what_is_set_aside_stays_so_and_can_be_tried_again() -> None:
    store = MemoryStore()
    run(store, set_aside=[(1, "verdict"), (2, "question")])
    assert ("question", "c") not in calls
    again = run(store)
    assert calls == []
    assert again.failed == 2
    last = run(store, retry_failed=True, set_aside=frozenset({(2, "question")}))
    assert ("verdict", "B") in calls
    assert (last.done, last.failed) == (2, 1)


def test_what_is_done_is_not_set_aside() -> None:
    store = MemoryStore()
    run(store)
    report = run(store, set_aside=[(0, "verdict")])
    assert (report.done, report.failed) == (3, 0)


def test_a_group_is_set_aside_as_a_whole() -> None:
    """By any row that is in it; other groups of the column are not touched."""
    report = run(MemoryStore(), set_aside=[(1, "together")], group_size=2)
    assert report.failure_counts == {("together", "set_aside"): 2}
    assert (report.done, report.failed) == (1, 2)
    assert run(MemoryStore(), set_aside=[(1, "together"), (1, "question")]).failure_counts == {
        ("question", "set_aside"): 1
    }, "a row that has failed is in no group any more"


def test_what_cannot_be_set_aside_is_said_before_anything_is_spent() -> None:
    with pytest.raises(ConfigError, match="no column 'colour'"):
        run(MemoryStore(), set_aside=[(0, "colour")])
    assert calls == []
