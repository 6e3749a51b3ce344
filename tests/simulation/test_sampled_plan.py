"""A plan with a sample: the first rows are run and kept, and what is forecast of the rest is what it then takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

import headgate
from headgate import MemoryStore, Usage, current_lease
from headgate.errors import ConfigError
from headgate.testing import run_virtual

if TYPE_CHECKING:
    from headgate import RunPlan

ROWS = 200
LIMITS: dict[str, Any] = {"acme/small": {"concurrency": 4}, "acme/large": {"concurrency": 2}}


class Tickets:
    def __init__(self) -> None:
        self.calls = {"question": 0, "verdict": 0}
        self.pipeline = headgate.Pipeline("tickets")
        self.store = MemoryStore()

        @self.pipeline.column(model="acme/small")
        async def question(row: int) -> str:
            await self._ask("question", 1.0, Usage(100, 50))
            return "?"

        @self.pipeline.column(model="acme/large", when=_fourth)
        async def verdict(row: int, question: str) -> str:
            await self._ask("verdict", 3.0, Usage(1000, 10))
            return "!"

    async def _ask(self, column: str, seconds: float, usage: Usage) -> None:
        self.calls[column] += 1
        lease = current_lease()
        assert lease is not None
        await anyio.sleep(seconds)
        lease.report(usage=usage)

    def plan(self, sample: int, **options: Any) -> RunPlan:
        given: dict[str, Any] = {"limits": LIMITS, **options}

        async def planned() -> RunPlan:
            return await headgate.aplan(self.pipeline, ROWS, sample=sample, store=self.store, **given)

        return run_virtual(planned)


def _fourth(row: int) -> bool:
    return row % 4 == 0


def _price(model: str, usage: Usage) -> float:
    return usage.input_tokens / 1000 if model == "acme/large" else 0.0


def test_a_sample_of_which_nothing_ended_forecasts_nothing() -> None:
    pipeline = headgate.Pipeline("away")

    @pipeline.column(model="acme/small")
    async def question(row: int) -> str:
        raise ConnectionError("nobody there")

    async def planned() -> RunPlan:
        return await headgate.aplan(
            pipeline, ROWS, sample=5, store=MemoryStore(), limits=LIMITS, patience=5.0, price=_price
        )

    plan = run_virtual(planned)
    assert plan.forecast is not None
    assert (plan.forecast.seconds, plan.forecast.cost) == (None, None)
    assert "nothing is known of the rest" in str(plan)
    assert "time" not in str(plan).split("nothing is known")[0].splitlines()[-1]


def test_a_forecast_is_what_the_run_then_takes() -> None:
    tickets = Tickets()
    plan = tickets.plan(40, price=_price)
    assert tickets.calls == {"question": 40, "verdict": 10}
    forecast = plan.forecast
    assert forecast is not None
    assert (forecast.sampled, plan.rows, [column.to_run for column in plan.columns]) == (40, ROWS, [160, 160])
    question, verdict = forecast.columns
    assert question.input_tokens.low == question.input_tokens.high == 16_000
    assert verdict.input_tokens.likely == 40_000
    assert verdict.input_tokens.low < 40_000 < verdict.input_tokens.high
    assert forecast.cost is not None
    assert forecast.cost.likely == 40
    assert forecast.seconds is not None
    assert forecast.pace == "acme/large: concurrency"

    async def finish() -> headgate.RunReport:
        return await headgate.arun(tickets.pipeline, ROWS, store=tickets.store, limits=LIMITS)

    report = run_virtual(finish)
    assert tickets.calls == {"question": 200, "verdict": 50}, "what the sample paid for was paid again"
    assert report.seconds == pytest.approx(forecast.seconds.likely, rel=0.1)
    assert forecast.seconds.low <= report.seconds <= forecast.seconds.high
    assert report.resources[1].usage == Usage(40_000, 400)


def test_the_same_sample_again_costs_nothing_and_a_larger_one_its_own_rows() -> None:
    tickets = Tickets()
    first = tickets.plan(8).forecast
    again = tickets.plan(8).forecast
    assert tickets.calls["question"] == 8
    assert first is not None
    assert again is not None
    assert (again.seconds, again.input_tokens) == (None, first.input_tokens)
    assert "no request of question, verdict was made this time" in again.notices[0]
    assert tickets.plan(16).forecast is not None
    assert tickets.calls["question"] == 16


def test_cells_that_the_sample_had_to_leave_do_not_count_as_done() -> None:
    """The sample has a deadline: a cell still takes a second of a slot, not what the time is over all of them."""
    limits = {"acme/small": {"concurrency": 4}, "acme/large": {"concurrency": 50}}
    plan = Tickets().plan(80, limits=limits, deadline=5.5)
    left = plan.columns[0].to_run
    assert 160 < left < 190
    assert plan.forecast is not None
    assert plan.forecast.seconds is not None
    assert plan.forecast.pace == "acme/small: concurrency"
    assert plan.forecast.seconds.likely == pytest.approx(left / 4, rel=0.02)


def test_a_limit_that_nothing_has_shown_makes_the_time_uncertain_and_is_named() -> None:
    forecast = Tickets().plan(4, limits=None).forecast
    assert forecast is not None
    assert forecast.seconds is not None
    assert forecast.seconds.high > 20 * forecast.seconds.low
    assert any(notice.startswith("acme/small has not shown its limit") for notice in forecast.notices)


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        (10, {"store": None}, "give a store= that keeps it"),
        (iter([{"row": 1}]), {}, "the rows are read twice"),
        (10, {"sample": -1}, "one row or more, not -1"),
    ],
)
def test_a_sample_that_cannot_be_meant_is_refused(rows: Any, options: dict[str, Any], said: str) -> None:
    tickets = Tickets()
    given: dict[str, Any] = {"sample": 5, "store": tickets.store, **options}
    with pytest.raises(ConfigError, match=said):
        headgate.plan(tickets.pipeline, rows, **given)
    assert tickets.calls["question"] == 0
