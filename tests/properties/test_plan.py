"""A plan says what the run then does: whatever happened in the lives before, whatever has changed since.

The pipeline has a chain, a column beside it and a group column, no conditions; nothing fails in the life that is
compared, so every cell that was planned runs, and none besides.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import anyio
from hypothesis import given
from hypothesis import strategies as st

import headgate

COLUMNS = ("first", "second", "third", "beside", "group")


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

    def answer(column: int, row: int) -> int:
        called[COLUMNS[column]] += 1
        if (column, row) in fails:
            raise ValueError("no")
        return row

    @pipeline.column(version=str(life.versions[0]))
    async def first(row: int) -> int:
        return answer(0, row)

    @pipeline.column(version=str(life.versions[1]))
    async def second(row: int, first: int) -> int:
        return answer(1, row)

    @pipeline.column(version=str(life.versions[2]))
    async def third(row: int, second: int) -> int:
        return answer(2, row)

    @pipeline.column(version=str(life.versions[3]))
    async def beside(row: int) -> int:
        return answer(3, row)

    @pipeline.column(scope="group", version=str(life.versions[4]))
    async def group(row: list[int], first: list[int]) -> list[int]:
        called["group"] += 1
        called["rows of groups"] += len(row)
        if any((4, one) in fails for one in row):
            raise ValueError("no")
        return row

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

    anyio.run(main)
