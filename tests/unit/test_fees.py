"""Fees by request: in what a run costs, in what its tasks reserve, and in forecasts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

import headgate
from headgate.prices import PICO, price_book
from headgate.testing import run_virtual

if TYPE_CHECKING:
    from pathlib import Path

FEE = 0.01
FEES = {"acme/m": {"request": FEE}}
BOTH = {"acme/m": {"input": 1.0, "output": 10.0, "request": FEE}}
EACH = {"input_tokens": 100, "output_tokens": 50}  # 600 millionths of a dollar
STATED: Any = {"tokens": 100, "max_output_tokens": 50}


class Unavailable(Exception):
    status_code = 503


class Shop:
    """One column that calls once for each row; ``uses`` is what a call reports, ``failing`` the calls that fail."""

    def __init__(self, uses: dict[str, int] | None = None, failing: int = 0, **column: Any) -> None:
        self.pipeline = headgate.Pipeline("shop")
        self.answered = self.asked = 0

        @self.pipeline.column(model="acme/m", **column)
        async def a(row: int) -> int:
            await anyio.sleep(1.0)
            self.asked += 1
            if self.asked <= failing:
                raise Unavailable
            lease = headgate.current_lease()
            assert lease is not None
            lease.report(status=200, usage=uses)
            self.answered += 1
            return row

    def run(self, rows: int = 30, **options: Any) -> headgate.RunReport:
        async def main() -> headgate.RunReport:
            async with headgate.Engine(limits={"acme/m": {"concurrency": 8}}, seed=1) as engine:
                return await (await engine.start(self.pipeline, rows, **options)).wait()

        return run_virtual(main)


@pytest.mark.parametrize("uses", [None, EACH, {"input_tokens": 0, "output_tokens": 0}])
@pytest.mark.parametrize("budget", [None, 100.0])
def test_each_answered_request_costs_its_fee_whatever_it_reports(
    uses: dict[str, int] | None, budget: float | None
) -> None:
    shop = Shop(uses, failing=3)
    report = shop.run(prices=FEES, budget=budget)
    assert (report.done, shop.asked) == (30, 33)
    assert report.cost == report.columns[0].cost == report.resources[0].cost == pytest.approx(30 * FEE)
    assert report.spent is not None
    assert report.spent.money == pytest.approx(30 * FEE)


def test_a_fee_comes_on_top_of_the_tokens_once_for_a_request_that_reports_in_parts() -> None:
    pipeline = headgate.Pipeline("p")

    @pipeline.column(model="acme/m")
    async def a(row: int) -> int:
        async with headgate.request("acme/m") as lease:
            lease.report(usage={"input_tokens": 100, "output_tokens": 0})
            lease.report(usage={"input_tokens": 0, "output_tokens": 50})
        async with headgate.request("acme/m") as lease:
            lease.report(status=500)
        async with headgate.request("acme/free"):
            pass
        return row

    report = headgate.run(pipeline, 4, prices=BOTH | {"acme/free": {}})
    assert report.cost == pytest.approx(4 * (FEE + 0.0006))


def test_an_answer_that_cannot_be_used_costs_its_fee() -> None:
    pipeline = headgate.Pipeline("p")

    @pipeline.column(model="acme/m")
    async def a(row: int) -> int:
        return "no number"  # type: ignore[return-value]  # pyright: ignore[reportReturnType]

    report = headgate.run(pipeline, 1, prices=FEES, max_output_attempts=3)
    assert report.failed == 1
    assert report.cost == pytest.approx(3 * FEE)


@pytest.mark.parametrize("uses", [None, EACH])
@pytest.mark.parametrize("column", [{}, STATED])
def test_a_budget_is_not_passed_by_fees(uses: dict[str, int] | None, column: dict[str, int]) -> None:
    shop = Shop(uses, **column)
    report = shop.run(prices=BOTH if uses or column else FEES, budget=0.1)
    each = FEE + (0.0006 if uses or column else 0.0)
    assert report.status is headgate.RunStatus.BUDGET_EXHAUSTED
    assert shop.answered == report.done == int(0.1 / each + 1e-9)
    assert report.cost == pytest.approx(report.done * each)


@pytest.mark.parametrize(
    ("shop", "options", "said"),
    [
        (Shop(), {"prices": BOTH}, "no request to acme/m told its tokens, so they cost nothing here: headgate.attach"),
        (Shop(), {"prices": {"acme/other": {}}}, "the price of acme/m is not known: it counts as free"),
        (Shop(), {"prices": FEES}, ""),
        (Shop(EACH), {"prices": BOTH}, ""),
        (Shop(**STATED), {"prices": BOTH, "budget": 100.0}, ""),  # what was reserved is taken for what they used
        (Shop(), {}, ""),
    ],
)
def test_a_cost_that_leaves_something_out_is_told(shop: Shop, options: Any, said: str) -> None:
    notices = shop.run(rows=3, **options).notices
    assert notices[0].startswith(said) if said else notices == ()


def test_the_first_task_of_a_column_reserves_its_fee() -> None:
    report = Shop().run(prices=FEES, budget=0.009)
    assert (report.status, report.done, report.cost) == (headgate.RunStatus.BUDGET_EXHAUSTED, 0, 0.0)


def test_a_fee_is_stated_in_a_file_and_may_differ_for_long_requests(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(
        '["acme/m"]\nrequest = 0.01\n["acme/m".above.100]\ninput = 2\n["acme/m".above.200]\nrequest = 0.03\n'
    )
    price = price_book(file).price("acme/m")
    assert price is not None
    fees = [price.fee(headgate.Usage(read)) / PICO for read in (0, 100, 101, 201)]
    assert fees == [0.01, 0.01, 0.01, 0.03]
    with pytest.raises(headgate.ConfigError, match="request must be dollars per request, zero or more, not -1"):
        headgate.Price(request=-1)


def test_fees_of_genai_prices_are_those_it_states() -> None:
    assert price_book("genai-prices").price("perplexity/sonar") == headgate.Price(1.0, 1.0, request=0.012)


def test_a_model_of_which_nothing_is_counted_has_no_known_price() -> None:
    """By the hour, the page, the search: it would count as free, and nothing would say so."""
    assert price_book("genai-prices").price("x-ai/grok-voice-latest") is None


def test_a_model_that_is_charged_for_nothing_at_all_is_free() -> None:
    """A budget in money refused it, as if its price were not known."""
    assert price_book("genai-prices").price("mistral/mistral-nemo:free") == headgate.Price()


@pytest.mark.parametrize("again", [False, True])
def test_a_forecast_has_the_fees(again: bool) -> None:
    """A second call that runs nothing takes each cell for one request."""
    pipeline, store = headgate.Pipeline("p"), headgate.MemoryStore()

    @pipeline.column(model="acme/m")
    async def a(row: int) -> int:
        for _ in range(1 if again else 2):
            async with headgate.request("acme/m") as lease:
                lease.report(usage=EACH)
        return row

    for _ in range(1 + again):
        forecast = headgate.plan(pipeline, 100, sample=10, store=store, prices=BOTH).forecast
        assert forecast is not None
        assert forecast.cost is not None
        assert forecast.cost.likely == pytest.approx(90 * (1 if again else 2) * (FEE + 0.0006))
        assert forecast.columns[0].cost == forecast.cost
