"""Runs under a budget, over random costs: it is never passed, and nothing that would have fitted is left undone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headgate
from headgate.engine import left_lanes
from headgate.engine.steps import Steps
from headgate.events import ResourceGivenUp
from headgate.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from headgate.events import Event

ROWS = 8
WRITTEN = 1
"""Output tokens of each cell."""


@dataclass
class Work:
    """One run: each column has a model, and input tokens for all its cells or for the cell of each row."""

    costs: Sequence[int | list[int]]
    models: Sequence[str]
    done: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])
    store: headgate.MemoryStore = field(default_factory=headgate.MemoryStore)
    fails_first: bool = False
    concurrency: int = 4

    def cost(self, column: int, row: int) -> int:
        """What that cell takes in all."""
        cost = self.costs[column]
        return (cost[row] if isinstance(cost, list) else cost) + WRITTEN

    def pipeline(self) -> headgate.Pipeline:
        """Columns ``c0``, ``c1``, ...; the last one of four needs the first."""
        pipeline = headgate.Pipeline("work")
        for column, (cost, model) in enumerate(zip(self.costs, self.models, strict=True)):
            stated = self._by_row(cost) if isinstance(cost, list) else cost
            options: Any = {"name": f"c{column}", "model": model, "tokens": stated, "max_output_tokens": WRITTEN}
            pipeline.column(self._body(column), **options)
        return pipeline

    @staticmethod
    def _by_row(costs: list[int]) -> Callable[[int], int]:
        def stated(row: int) -> int:
            return costs[row]

        return stated

    def _body(self, column: int) -> Callable[..., Any]:
        tried: set[int] = set()

        async def body(row: int) -> int:
            await anyio.sleep(1.0 + row % 3)
            used = {"input_tokens": self.cost(column, row) - WRITTEN, "output_tokens": WRITTEN}
            if self.fails_first and column and row not in tried:
                tried.add(row)
                raise ConnectionResetError
            lease = headgate.current_lease()
            assert lease is not None
            lease.report(usage=used)
            self.done.add((column, row))
            return row

        async def needs(row: int, c0: int) -> int:
            return await body(row)

        return needs if column == 3 else body

    def run(self, tokens: int, rows: Any = ROWS, **options: Any) -> headgate.RunReport:
        """Run it with so many tokens."""

        async def main() -> headgate.RunReport:
            limits = {"p": {"concurrency": self.concurrency}}
            async with headgate.Engine(limits=limits, store=self.store, seed=1) as engine:
                budget = headgate.Budget(tokens=tokens)
                return await (await engine.start(self.pipeline(), rows, budget=budget, **options)).wait()

        return run_virtual(main)

    def would_fit(self, left: int) -> set[tuple[int, int]]:
        """Cells that could have been begun with ``left`` tokens."""
        return {
            (column, row)
            for column in range(len(self.costs))
            for row in range(ROWS)
            if (column, row) not in self.done
            and (column != 3 or (0, row) in self.done)
            and self.cost(column, row) <= left
        }


COSTS = st.one_of(st.integers(1, 60), st.lists(st.integers(1, 60), min_size=ROWS, max_size=ROWS))


@settings(max_examples=30)
@given(
    st.lists(st.tuples(COSTS, st.sampled_from(["p/a", "p/b"])), min_size=1, max_size=4),
    st.integers(0, 900),
    st.booleans(),
)
def test_a_budget_is_kept_and_used_up(columns: list[tuple[Any, str]], tokens: int, fails_first: bool) -> None:
    work = Work([cost for cost, _ in columns], [model for _, model in columns], fails_first=fails_first)
    report = work.run(tokens, min_open_rows=ROWS)
    spent = sum(work.cost(column, row) for column, row in work.done)
    assert report.spent is not None
    assert report.spent.tokens == spent <= tokens
    whole = len(work.done) == ROWS * len(columns)
    assert report.status is (headgate.RunStatus.COMPLETED if whole else headgate.RunStatus.BUDGET_EXHAUSTED)
    assert not work.would_fit(tokens - spent)


def test_a_column_that_does_not_fit_leaves_the_others_of_its_model_alone() -> None:
    work = Work([1999, 1], ["p/m", "p/m"])
    report = work.run(1500)
    assert report.status is headgate.RunStatus.BUDGET_EXHAUSTED
    assert work.done == {(1, row) for row in range(ROWS)}


def test_a_row_that_does_not_fit_leaves_the_others_of_its_column_alone() -> None:
    work = Work([[999, 20, 999, 20, 20, 30, 999, 20]], ["p/m"])
    report = work.run(130)
    assert report.status is headgate.RunStatus.BUDGET_EXHAUSTED
    assert work.done == {(0, row) for row in (1, 3, 4, 5, 7)}


def test_a_retry_that_fits_is_waited_for_where_its_model_is_out_of_budget() -> None:
    work = Work([1999, 1], ["p/m", "p/m"], fails_first=True)
    assert work.run(1500).status is headgate.RunStatus.BUDGET_EXHAUSTED
    assert work.done == {(1, row) for row in range(ROWS)}


def test_a_resumed_run_looks_at_all_rows_at_hand_before_it_ends() -> None:
    """Its rows come in lots, each with a look at the store; the first lots have nothing left that fits."""
    store = headgate.MemoryStore()
    rows = 200

    def run(tokens: int) -> tuple[headgate.RunReport, set[tuple[int, int]]]:
        work = Work([500, [1] * rows], ["p/m", "p/m"], store=store)
        report = work.run(tokens, rows, min_open_rows=rows, max_open_rows=rows)
        return report, work.done

    first, done = run(2 * 40)
    assert first.status is headgate.RunStatus.BUDGET_EXHAUSTED
    assert done == {(1, row) for row in range(40)}
    again, done = run(2 * 190)
    assert again.status is headgate.RunStatus.BUDGET_EXHAUSTED
    assert done == {(1, row) for row in range(40, 190)}


def test_a_source_that_pauses_is_not_waited_for_when_nothing_in_hand_fits() -> None:
    """It may pause for ever; whoever reads it again under a larger budget goes on with the row after the last."""
    work = Work([[999, 1, 1, 1, 1, 1, 1, 1]], ["p/m"])
    closed: list[int] = []

    async def source() -> AsyncIterator[dict[str, int]]:
        try:
            for row in range(ROWS):
                yield {"row": row}
                await anyio.sleep(60.0)
        finally:
            closed.append(1)

    report = work.run(500, source())
    assert (report.status, report.accepted, report.held) == (headgate.RunStatus.BUDGET_EXHAUSTED, 1, 1)
    assert report.seconds < 60.0
    assert closed == [1]
    assert work.run(2000, source()).status is headgate.RunStatus.COMPLETED


# The room of finished rows


def _rows_of_ten(skipped: range = range(0), large: range = range(1)) -> headgate.Pipeline:
    """Rows in ``large`` are too large, those in ``skipped`` need no call, and every other one takes ten tokens."""
    pipeline = headgate.Pipeline("work")

    def stated(row: int) -> int:
        return 999 if row in large else 9

    def wanted(row: int) -> bool:
        return row not in skipped

    @pipeline.column(model="p/m", tokens=stated, max_output_tokens=WRITTEN, when=wanted)
    async def c(row: int) -> int:
        await anyio.sleep(1.0)
        lease = headgate.current_lease()
        assert lease is not None
        lease.report(usage={"input_tokens": stated(row), "output_tokens": WRITTEN})
        return row

    return pipeline


def test_rows_that_need_no_call_make_room_for_others_before_a_run_ends() -> None:
    """They are whole as soon as they come, and take up room until they are committed."""

    async def main() -> headgate.RunReport:
        async with headgate.Engine(limits={"p": {"concurrency": 4}}, seed=1) as engine:
            budget = headgate.Budget(tokens=205)
            return await (await engine.start(_rows_of_ten(range(1, 60)), 100, budget=budget)).wait()

    report = run_virtual(main)
    assert (report.status, report.done, report.skipped) == (headgate.RunStatus.BUDGET_EXHAUSTED, 20, 59)


@pytest.mark.parametrize("pause", [0.0, 3.0])
@pytest.mark.parametrize(("large", "done"), [(range(1), 60), (range(2, 100), 2)])
def test_rows_that_nobody_took_yet_make_room_for_others_before_a_run_ends(
    large: range, done: int, pause: float
) -> None:
    """``pause``: how many seconds whoever takes them spends on each. Where all that follow are too large, the last one
    to be taken makes room for none.
    """

    async def main() -> tuple[headgate.RunReport, int]:
        async with headgate.Engine(limits={"p": {"concurrency": 4}}, seed=1) as engine:
            run = await engine.start(
                _rows_of_ten(large=large), 100, budget=headgate.Budget(tokens=605), stall_timeout=60.0
            )
            taken = 0
            async for _ in run.rows():
                taken += 1
                await anyio.sleep(pause)
            return await run.wait(), taken

    report, taken = run_virtual(main)
    assert (report.status, report.done, taken) == (headgate.RunStatus.BUDGET_EXHAUSTED, done, done)


def test_the_smallest_of_rows_that_were_too_large_is_looked_at_again() -> None:
    """What the first task took beyond what was stated of it is expected of all, until others take less."""
    stated = [1, 1, 1, 1, 1, 1, 1000, 440]
    pipeline = headgate.Pipeline("work")

    def tokens(row: int) -> int:
        return stated[row]

    @pipeline.column(model="p/m", tokens=tokens)
    async def c(row: int) -> int:
        await anyio.sleep(5.0 if row else 1.0)
        lease = headgate.current_lease()
        assert lease is not None
        lease.report(usage={"input_tokens": stated[row], "output_tokens": 0 if row else 100})
        return row

    async def main() -> headgate.RunReport:
        async with headgate.Engine(limits={"p": {"concurrency": 8}}, seed=1) as engine:
            return await (await engine.start(pipeline, ROWS, budget=headgate.Budget(tokens=606))).wait()

    report = run_virtual(main)
    assert (report.status, report.done) == (headgate.RunStatus.BUDGET_EXHAUSTED, 7)


# What is held back, left or stopped beside columns that are passed over


@pytest.mark.parametrize("concurrency", [1, 4])
def test_what_the_budget_has_no_room_for_is_no_work_that_retries_wait_behind(concurrency: int) -> None:
    """Retries keep to three a minute while other work of their model is ready that pays for them. What is not sent pays
    for none, also in the moment after an end, when it is looked at again.
    """
    rows, seconds = 4 * ROWS, list[float]()
    for model in ("p/m", "p/other"):
        work = Work([1999, [1] * rows], [model, "p/m"], fails_first=True, concurrency=concurrency)
        seconds.append(work.run(1500, rows, min_open_rows=rows).seconds)
        assert work.done == {(1, row) for row in range(rows)}
    assert seconds[0] == pytest.approx(seconds[1])


def test_a_model_that_works_again_while_it_is_given_up_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ready tasks are left in parts. Between two of them a call that was under way succeeds, so the others stay."""
    monkeypatch.setattr(left_lanes, "LEFT_PER_STEP", 8)
    given_up: list[float] = []

    def run(ends_at: float, turns: int) -> headgate.RunReport:
        pipeline = headgate.Pipeline("work")

        @pipeline.column(model="p/m", tokens=100, max_output_tokens=WRITTEN)
        async def c(row: int) -> int:
            lease = headgate.current_lease()
            assert lease is not None
            if row == 0:
                await anyio.sleep(0.5)
                lease.report(usage={"input_tokens": 100, "output_tokens": WRITTEN})
                raise ConnectionResetError
            await anyio.sleep_until(ends_at)
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            lease.report(usage={"input_tokens": 1, "output_tokens": 0})
            return row

        def told(event: Event) -> None:
            if isinstance(event, ResourceGivenUp):
                given_up.append(anyio.current_time())

        async def main() -> headgate.RunReport:
            async with headgate.Engine(limits={"p": {"concurrency": 4}}, seed=1, events=told) as engine:
                budget, patience = headgate.Budget(tokens=210), 0.05
                rows = 40
                options: Any = {"patience": patience, "stall_timeout": 60.0, "grace": 1.0, "min_open_rows": rows}
                return await (await engine.start(pipeline, rows, budget=budget, **options)).wait()

        return run_virtual(main)

    run(9.0, 0)
    at = given_up[0]
    ends = [run(at, turns) for turns in range(6)]
    assert headgate.RunStatus.BUDGET_EXHAUSTED in {report.status for report in ends}
    assert headgate.RunStatus.STALLED not in {report.status for report in ends}


def test_a_run_that_was_stopped_sleeps_until_what_is_under_way_has_ended() -> None:
    """What ends first makes room for columns that were passed over, but nobody is to be looked at any more."""
    pipeline = headgate.Pipeline("work")
    steps = 0

    @pipeline.column(model="p/m", tokens=9, max_output_tokens=WRITTEN)
    async def c(row: int) -> int:
        await anyio.sleep(1.0 + 5.0 * row)
        lease = headgate.current_lease()
        assert lease is not None
        lease.report(usage={"input_tokens": 9, "output_tokens": WRITTEN})
        return row

    def counted(self: Steps, now: float, alone: bool) -> None:
        nonlocal steps
        steps += 1
        assert steps < 100, f"it does not sleep at {now} s"
        step(self, now, alone)

    async def main() -> headgate.RunReport:
        async with headgate.Engine(limits={"p": {"concurrency": 4}}, seed=1) as engine:
            run = await engine.start(pipeline, ROWS, budget=headgate.Budget(tokens=25))
            await anyio.sleep(0.5)
            run.stop(grace=30.0)
            return await run.wait()

    step = Steps.step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Steps, "step", counted)
        report = run_virtual(main)
    assert (report.status, report.done) == (headgate.RunStatus.STOPPED, 2)
    assert 5.0 < report.seconds < 7.0
