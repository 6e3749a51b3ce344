"""A plan says what the run then does: whatever happened in the lives before, whatever has changed since.

The pipeline has a chain, a column beside it and a group column, no conditions; nothing fails in the life that is
compared, so every cell that was planned runs, and none besides. Each answer is another one and holds those that it was
made of, so that a row shows whether they belong together.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

import headgate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from headgate.storage import RunStore

COLUMNS = ("first", "second", "third", "beside", "group")
READS = (("second", "first"), ("third", "second"), ("group", "first"))
numbers = count()
Answer = list[Any]  # its number, then the answer that it was made of


@dataclass(frozen=True)
class Life:
    """One life of the run: the versions of its columns, how many rows it has, which cells fail."""

    versions: tuple[int, int, int, int, int]
    rows: int
    fails: frozenset[tuple[int, int]]
    on_change: str
    retry_failed: bool
    finish_siblings: bool

    @property
    def options(self) -> dict[str, object]:
        return {
            "on_change": self.on_change,
            "retry_failed": self.retry_failed,
            "finish_siblings": self.finish_siblings,
            "group_size": 3,
        }


lives = st.builds(
    Life,
    versions=st.tuples(*[st.integers(1, 2)] * 5),
    rows=st.integers(0, 10),
    fails=st.frozensets(st.tuples(st.integers(0, 4), st.integers(0, 9)), max_size=4),
    on_change=st.sampled_from(["auto", "keep", "rerun"]),
    retry_failed=st.booleans(),
    finish_siblings=st.booleans(),
)


def build(life: Life, called: Counter[str], *, may_fail: bool) -> headgate.Pipeline:
    pipeline = headgate.Pipeline("p")
    fails = life.fails if may_fail else frozenset[tuple[int, int]]()

    def answer(column: int, row: int, *read: Answer) -> Answer:
        called[COLUMNS[column]] += 1
        if (column, row) in fails:
            raise ValueError("no")
        return [next(numbers), *read]

    @pipeline.column(version=str(life.versions[0]))
    async def first(row: int) -> Answer:
        return answer(0, row)

    @pipeline.column(version=str(life.versions[1]))
    async def second(row: int, first: Answer) -> Answer:
        return answer(1, row, first)

    @pipeline.column(version=str(life.versions[2]))
    async def third(row: int, second: Answer) -> Answer:
        return answer(2, row, second)

    @pipeline.column(version=str(life.versions[3]))
    async def beside(row: int) -> Answer:
        return answer(3, row)

    @pipeline.column(scope="group", version=str(life.versions[4]))
    async def group(row: list[int], first: list[Answer]) -> list[Answer]:
        called["group"] += 1
        called["rows of groups"] += len(row)
        if any((4, one) in fails for one in row):
            raise ValueError("no")
        return [[next(numbers), one] for one in first]

    return pipeline


@given(before=st.lists(lives, max_size=3), last=lives)
def test_d7_a_plan_says_what_the_run_then_does(before: list[Life], last: Life) -> None:
    """D7: said before anything is spent, exactly."""

    async def main() -> None:
        store = headgate.MemoryStore()
        for life in before:
            pipeline = build(life, Counter(), may_fail=True)
            await headgate.arun(pipeline, life.rows, store=store, **life.options)  # type: ignore[arg-type]
        called = Counter[str]()
        pipeline = build(last, called, may_fail=False)
        plan = await headgate.aplan(pipeline, last.rows, store=store, **last.options)  # type: ignore[arg-type]
        assert called.total() == 0
        report = await headgate.arun(pipeline, last.rows, store=store, **last.options)  # type: ignore[arg-type]
        assert {one.column: one.calls for one in plan.columns} == {name: called[name] for name in COLUMNS}
        planned = {one.column: one.to_run for one in plan.columns}
        assert planned["group"] == called["rows of groups"]
        for column, ended in zip(plan.columns, report.columns, strict=True):
            assert column.done + column.to_run == ended.done
            assert (column.failed, column.skipped) == (ended.failed, ended.skipped)
        check_belong_together(report)

    anyio.run(main)


def check_belong_together(report: headgate.RunReport) -> None:
    for row in report.results():
        answers: dict[str, Any] = row
        for name, read in READS:
            if answers[name] is not None:  # skipped, because another cell of its row had failed
                assert answers[name][1] == answers[read], (name, row)


def lived(first: int, second: int, third: int, beside: int, group: int, *, rows: int, on_change: str = "auto") -> Life:
    versions = first, second, third, beside, group
    return Life(versions, rows, frozenset(), on_change, retry_failed=False, finish_siblings=False)


# Each ends with columns that were there before. Beside it, how many cells run again in the last life.
TAKEN_BACK = {
    "nothing was done, so nothing was kept": (
        0,
        [
            lived(2, 1, 1, 1, 1, rows=1),
            lived(1, 1, 1, 1, 1, rows=0),
            lived(2, 1, 1, 1, 2, rows=0, on_change="keep"),
            lived(2, 1, 1, 1, 1, rows=1),
        ],
    ),
    "what is kept has the fingerprint of what is put aside": (
        1,
        [
            lived(2, 1, 1, 1, 1, rows=1),
            lived(1, 1, 1, 1, 1, rows=1),
            lived(2, 1, 1, 1, 2, rows=1, on_change="keep"),
            lived(2, 1, 1, 1, 1, rows=1),
        ],
    ),
    "what is kept is less than what is put aside": (
        5,
        [
            lived(2, 1, 1, 1, 1, rows=2),
            lived(1, 1, 1, 1, 1, rows=1),
            lived(2, 1, 1, 1, 2, rows=1, on_change="keep"),
            lived(2, 1, 1, 1, 1, rows=2),
        ],
    ),
    "what was kept has left its fingerprint to others": (
        4,
        [
            lived(1, 1, 1, 1, 1, rows=1),
            lived(1, 1, 1, 1, 2, rows=1),
            lived(2, 1, 1, 1, 2, rows=1, on_change="keep"),
            lived(1, 1, 1, 1, 1, rows=1),
        ],
    ),
    "what was kept comes back": (
        0,
        [
            lived(2, 1, 1, 1, 1, rows=1),
            lived(1, 1, 1, 1, 1, rows=1),
            lived(2, 1, 1, 1, 1, rows=1, on_change="keep"),
            lived(1, 1, 1, 1, 1, rows=1),
            lived(2, 1, 1, 1, 1, rows=1),
        ],
    ),
}


@pytest.mark.parametrize("kind", ["memory", "sqlite", "files"])
@pytest.mark.parametrize("case", TAKEN_BACK)
def test_d7_what_comes_back_was_made_of_what_is_there(case: str, kind: str, tmp_path: Path) -> None:
    again, lives = TAKEN_BACK[case]
    stores: dict[str, Callable[[], RunStore]] = {
        "memory": headgate.MemoryStore,
        "sqlite": lambda: headgate.SqliteStore(tmp_path / "s.db"),
        "files": lambda: headgate.FileStore(tmp_path / "s"),
    }
    store = stores[kind]()

    async def main() -> None:
        for number, one in enumerate(lives, 1):
            called = Counter[str]()
            pipeline = build(one, called, may_fail=False)
            plan = await headgate.aplan(pipeline, one.rows, store=store, **one.options)  # type: ignore[arg-type]
            report = await headgate.arun(pipeline, one.rows, store=store, **one.options)  # type: ignore[arg-type]
            assert {column.column: column.calls for column in plan.columns} == {name: called[name] for name in COLUMNS}
            check_belong_together(report)
            if number == len(lives):
                assert plan.to_run == again
                assert report.done == one.rows
        await store.aclose()

    anyio.run(main)
