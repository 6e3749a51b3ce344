"""What calls cost, and a run that stops before it spends more than it may, in all its lives together."""

from __future__ import annotations

import sys
import threading
from collections import UserDict
from importlib.abc import MetaPathFinder
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import structlog
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import headgate
from headgate.engine.usage import usage_of
from headgate.prices import PICO, Amount, BudgetGate, price_book
from headgate.reports import read_report
from headgate.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from pathlib import Path

PRICES = {"acme/m": {"input": 1.0, "output": 10.0}}
EACH = {"input_tokens": 100, "output_tokens": 50}  # 600 millionths of a dollar, 150 tokens
DOLLARS = 0.0006


class BudgetMachine(RuleBasedStateMachine):
    """Estimates are upper bounds or not; the cap is passed by no more than what was under way came to beyond them."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = BudgetGate[int](headgate.Budget(money=100 / PICO, tokens=60), Amount(7, 3))
        self.under_way: dict[int, tuple[Amount, Amount]] = {}
        self.beyond = Amount()
        self.total = Amount(7, 3)
        self.number = 0

    @rule(money=st.integers(0, 30), tokens=st.integers(0, 30))
    def begin(self, money: int, tokens: int) -> None:
        self.number += 1
        estimate = Amount(money, tokens)
        before = self.gate.spent.plus(self.gate.reserved)
        if self.gate.reserve(self.number, estimate):
            assert not money or before.money + money <= 100
            assert not tokens or before.tokens + tokens <= 60
            self.under_way[self.number] = estimate, Amount()
        else:
            assert before.money + money > 100 or before.tokens + tokens > 60

    @rule(pick=st.integers(0, 99), money=st.integers(0, 20), tokens=st.integers(0, 20))
    def report(self, pick: int, money: int, tokens: int) -> None:
        if not self.under_way:
            return
        key = sorted(self.under_way)[pick % len(self.under_way)]
        estimate, so_far = self.under_way[key]
        after = so_far.plus(Amount(money, tokens))
        self.under_way[key] = estimate, after
        self.total = self.total.plus(Amount(money, tokens))
        self.beyond = self.beyond.plus(
            Amount(
                max(0, after.money - estimate.money) - max(0, so_far.money - estimate.money),
                max(0, after.tokens - estimate.tokens) - max(0, so_far.tokens - estimate.tokens),
            )
        )
        self.gate.spend(key, Amount(money, tokens))

    @rule(pick=st.integers(0, 99))
    def end(self, pick: int) -> None:
        if self.under_way:
            key = sorted(self.under_way)[pick % len(self.under_way)]
            estimate, spent = self.under_way.pop(key)
            left = Amount(max(0, estimate.money - spent.money), max(0, estimate.tokens - spent.tokens))
            assert self.gate.release(key) == left
            assert self.gate.release(key) == Amount()

    @invariant()
    def the_cap_is_kept(self) -> None:
        self.gate.check()
        assert self.gate.spent == self.total
        assert self.gate.holds == len(self.under_way)
        together = self.gate.spent.plus(self.gate.reserved)
        assert together.money <= 100 + self.beyond.money
        assert together.tokens <= 60 + self.beyond.tokens
        if not self.under_way:
            assert self.gate.reserved == Amount()


BudgetMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
test_spent_and_reserved_never_pass_the_cap = BudgetMachine.TestCase


class Shop:
    """A provider that counts what was bought, and one column that buys; ``uses`` is what one request reports."""

    def __init__(self, uses: dict[str, int] | None = None, requests: int = 1, **column: Any) -> None:
        self.pipeline = headgate.Pipeline("shop")
        self.bought = self.most_at_once = self.at_once = 0
        self.store = headgate.MemoryStore()
        uses = EACH if uses is None else uses

        @self.pipeline.column(model="acme/m", **column)
        async def a(row: int) -> int:
            for _ in range(requests):
                async with headgate.request("acme/m") as lease:
                    self.at_once += 1
                    self.most_at_once = max(self.most_at_once, self.at_once)
                    await anyio.sleep(1.0)
                    self.at_once -= 1
                    self.bought += 1
                    lease.report(usage=uses or None)
            return row

    def run(self, rows: int = 100, **options: Any) -> headgate.RunReport:
        async def main() -> headgate.RunReport:
            async with headgate.Engine(limits={"acme/m": {"concurrency": 8}}, store=self.store, seed=1) as engine:
                run = await engine.start(self.pipeline, rows, **options)
                report = await run.wait()
                engine.admission.gate.check()
                assert engine.admission.gate.leases() == 0
                return report

        return run_virtual(main)


STATED: Any = {"tokens": 100, "max_output_tokens": 50}


@pytest.mark.parametrize(
    ("budget", "bought"),
    [
        (0.0061, 10),
        (headgate.Budget(tokens=1500), 10),
        (headgate.Budget(tokens=1499), 9),
        (headgate.Budget(1.0, 700), 4),
    ],
)
def test_a_run_ends_before_it_would_pass_its_budget(budget: object, bought: int) -> None:
    shop = Shop(**STATED)
    report = shop.run(prices=PRICES, budget=budget)
    assert (report.status, report.exit_code) == (headgate.RunStatus.BUDGET_EXHAUSTED, 6)
    assert shop.bought == report.done == bought
    assert report.held == report.accepted - bought
    assert report.spent is not None
    assert report.spent.tokens == 150 * bought
    assert report.cost == report.columns[0].cost == report.spent.money == pytest.approx(DOLLARS * bought)
    assert f"${DOLLARS * bought:.6g}" in str(report)


def test_a_budget_counts_all_lives_of_a_run() -> None:
    shop = Shop(**STATED)
    assert shop.run(prices=PRICES, budget=10.5 * DOLLARS).done == 10
    again = shop.run(prices=PRICES, budget=10.5 * DOLLARS)
    assert (again.status, shop.bought, again.restored) == (headgate.RunStatus.BUDGET_EXHAUSTED, 10, 10)
    more = shop.run(prices=PRICES, budget=25.5 * DOLLARS)
    assert (more.status, shop.bought, more.restored) == (headgate.RunStatus.BUDGET_EXHAUSTED, 25, 10)
    assert more.spent is not None
    assert more.spent.money == pytest.approx(25 * DOLLARS)
    assert more.cost == pytest.approx(15 * DOLLARS)
    other = shop.run(rows=3, run="other", prices=PRICES, budget=25.5 * DOLLARS)
    assert other.status is headgate.RunStatus.COMPLETED  # it has spent nothing yet


def test_the_end_of_a_budget_asks_for_a_larger_one(tmp_path: Path) -> None:
    shop = Shop(**STATED)
    place = str(tmp_path / "shop.db")
    report = headgate.run(shop.pipeline, 2, store=place, budget=headgate.Budget(tokens=140))
    assert report.resume_hint.startswith(
        f"resume with a larger budget: run it again with store={place!r} and run='shop'"
    )
    assert "resume" not in headgate.run(shop.pipeline, 0, store=place, budget=headgate.Budget(tokens=140)).resume_hint


def test_a_run_that_fits_is_not_held_up() -> None:
    shop = Shop(**STATED)
    report = shop.run(rows=24, prices=PRICES, budget=24 * DOLLARS)
    assert (report.status, report.done, shop.most_at_once) == (headgate.RunStatus.COMPLETED, 24, 8)
    assert report.seconds == pytest.approx(3.0, abs=0.1)


def test_estimates_that_are_too_high_slow_a_run_and_do_not_end_it() -> None:
    """Two at a time are let out where eight could go: then what they did not use is there for others."""
    shop = Shop(uses={"input_tokens": 1, "output_tokens": 1}, tokens=100, max_output_tokens=100)
    report = shop.run(rows=20, budget=headgate.Budget(tokens=440))
    assert (report.status, report.done, shop.most_at_once) == (headgate.RunStatus.COMPLETED, 20, 2)
    assert "budget" in report.resources[0].seconds


def test_a_column_that_states_nothing_begins_with_one_task_and_learns() -> None:
    shop = Shop()
    report = shop.run(budget=headgate.Budget(tokens=1600))
    assert report.status is headgate.RunStatus.BUDGET_EXHAUSTED
    assert shop.bought == 10
    assert shop.most_at_once == 8


def test_the_advice_for_a_column_that_tries_its_first_call_is_to_state_its_tokens() -> None:
    report = Shop().run(rows=2, budget=headgate.Budget(tokens=1600))
    assert report.status is headgate.RunStatus.COMPLETED
    assert "state both: it began with one call" in report.advice


def test_several_requests_of_one_task_are_learned_together() -> None:
    shop = Shop(requests=3)
    shop.run(budget=headgate.Budget(tokens=3000))
    assert 15 <= shop.bought <= 20
    assert shop.bought % 3 == 0


def test_a_task_that_reports_no_usage_counts_with_its_estimate() -> None:
    shop = Shop(uses={}, **STATED)
    report = shop.run(budget=headgate.Budget(tokens=1000))
    assert (report.status, shop.bought) == (headgate.RunStatus.BUDGET_EXHAUSTED, 6)
    assert report.spent is not None
    assert report.spent.tokens == 900


def test_an_estimate_that_counts_is_in_every_sum() -> None:
    shop = Shop(uses={}, **STATED)
    report = shop.run(rows=3, prices=PRICES, budget=1.0)
    assert report.spent is not None
    assert report.spent.money == pytest.approx(3 * DOLLARS)
    sums = (report.cost, report.columns[0].cost, report.resources[0].cost, read_report(shop.store, "shop").costs["a"])
    assert sums == (report.spent.money,) * 4


def test_local_work_goes_on_when_the_budget_is_used_up() -> None:
    shop = Shop(**STATED)

    @shop.pipeline.column
    async def b(a: int) -> int:
        await anyio.sleep(0.5)
        return a

    report = shop.run(budget=headgate.Budget(tokens=900))
    assert report.status is headgate.RunStatus.BUDGET_EXHAUSTED
    assert {one.column: one.done for one in report.columns} == {"a": 6, "b": 6}


def test_failed_attempts_are_paid_for_too() -> None:
    shop = Shop(**STATED)

    @shop.pipeline.column(model="acme/m", name="b", **STATED)
    async def failing(a: int) -> int:
        async with headgate.request("acme/m") as lease:
            lease.report(usage=EACH)
        raise ConnectionResetError

    report = shop.run(budget=headgate.Budget(tokens=1500), rows=4, max_attempts=2)
    assert report.spent is not None
    assert 1350 <= report.spent.tokens <= 1500
    assert report.status is headgate.RunStatus.BUDGET_EXHAUSTED


def test_a_retry_that_fits_is_waited_for_where_another_lane_is_out_of_budget() -> None:
    pipeline = headgate.Pipeline("lanes")
    seen: set[int] = set()

    @pipeline.column(model="acme/big", tokens=500, max_output_tokens=500)
    async def big(row: int) -> int:
        async with headgate.request("acme/big") as lease:
            lease.report(usage={"input_tokens": 500, "output_tokens": 500})
        return row

    @pipeline.column(model="acme/small", tokens=1, max_output_tokens=1)
    async def small(row: int) -> int:
        if row not in seen:
            seen.add(row)
            raise ConnectionError
        async with headgate.request("acme/small") as lease:
            lease.report(usage={"input_tokens": 1, "output_tokens": 1})
        return row

    async def main() -> headgate.RunReport:
        async with headgate.Engine(seed=1) as engine:
            return await (await engine.start(pipeline, 3, budget=headgate.Budget(tokens=2100))).wait()

    report = run_virtual(main)
    assert report.status is headgate.RunStatus.BUDGET_EXHAUSTED
    assert {one.column: one.done for one in report.columns} == {"big": 2, "small": 3}
    assert report.spent is not None
    assert report.spent.tokens == 2006


# Prices


def test_an_unknown_price_is_an_error_before_anything_is_sent() -> None:
    shop = Shop(**STATED)
    with pytest.raises(headgate.ConfigError, match="needs the price of acme/m, which is not known: give prices="):
        shop.run(budget=5.0)
    with pytest.raises(headgate.ConfigError, match="acme/m"):
        shop.run(budget=5.0, prices={"acme/other": {"input": 1.0}})
    assert shop.bought == 0
    assert shop.run(rows=2, budget=5.0, prices={"*": headgate.Price(1.0, 1.0)}).done == 2


def test_a_request_without_a_price_is_refused_where_there_is_a_budget_in_money() -> None:
    pipeline = headgate.Pipeline("p")

    @pipeline.column
    async def a(row: int) -> int:
        async with headgate.request("acme/unknown"):
            return row

    report = headgate.run(pipeline, 1, budget=1.0, prices=PRICES)
    assert report.failed == 1
    assert "price of acme/unknown" in report.failures[0].message
    unpriced = headgate.run(pipeline, 1, prices=PRICES)
    assert unpriced.done == 1


def test_a_price_that_nobody_knows_is_noticed() -> None:
    report = Shop().run(rows=2, prices={"acme/other": {"input": 1.0}})
    assert report.cost == 0.0
    assert report.notices[0] == "the price of acme/m is not known: it counts as free; give it in prices="


def test_own_prices_that_nothing_used_are_noticed_where_a_model_was_priced_otherwise() -> None:
    misspelt = {"acne/m": {"input": 1.0}, "*": {"input": 2.0}}
    said = "prices= has acne/m, which nothing used, and not acme/m: check the names"
    assert Shop(**STATED).run(rows=1, prices=misspelt, budget=1.0).notices == (said,)
    assert Shop().run(rows=2, prices=PRICES | {"acme/other": {"input": 1.0}}).notices == ()


def test_own_prices_that_no_column_names_are_told_of_before_the_first_request() -> None:
    """At the end it is too late: the budget was kept by the wrong prices."""
    said: list[str] = []
    pipeline = headgate.Pipeline("p")

    @pipeline.column(model="acme/m")
    async def a(row: int) -> int:
        said.append("asked")
        async with headgate.request("acme/judge"):
            return row

    def told(_: object, __: str, event: MutableMapping[str, Any]) -> str:
        said.append(event["notice"])
        raise structlog.DropEvent

    structlog.configure(processors=[told])
    try:
        report = headgate.run(pipeline, 1, prices={"acme/judge": {"input": 1.0}, "*": {}})
        headgate.run(pipeline, 1, prices={"acme/judge": {"input": 1.0}, "acme/m": {}})
    finally:
        structlog.reset_defaults()
    first = "prices= has acme/judge, which no column names, and not acme/m: check the names, unless a body asks for it"
    assert said == [first, "asked", "asked"]
    assert not any("check the names" in notice for notice in report.notices), "a body asked for it"


def test_a_notice_names_a_few_prices() -> None:
    many = price_book({f"acme/{number}": headgate.Price() for number in range(5)})
    assert (many.price("openai/gpt-4o"), many.notice) != (None, "")
    assert "acme/0, acme/1, acme/2 and 2 more" in many.notice


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"gpt-4o": headgate.Price()}, "'gpt-4o' does not name a model: write it as 'provider/model'"),
        ({"openai": headgate.Price()}, "'openai' does not name a model"),
        ({7: headgate.Price()}, "prices= has 7, which is no name of a model"),
        ({"acme/m": headgate.Price(), "acme/m:chat": headgate.Price()}, "has acme/m twice, once as 'acme/m:chat'"),
        (7, "prices must be a file, 'genai-prices' or a price per model, not 7"),
    ],
)
def test_prices_are_by_the_names_of_models(wrong: Any, said: str) -> None:
    with pytest.raises(headgate.ConfigError, match=said):
        price_book(wrong)


def test_a_price_holds_however_the_name_of_its_model_is_written() -> None:
    book = price_book({"acme/m:chat": {"input": 1.0}})
    assert book.price("acme/m") == book.price("acme/m:embedding") == headgate.Price(1.0)


@pytest.mark.parametrize(
    ("above", "said"),
    [
        ({200_000: {"input": 6}}, "must map 200000 tokens to a Price without above, not to {'input': 6}"),
        ({9: headgate.Price(above={1: headgate.Price()})}, "must map 9 tokens to a Price without above"),
        ({"200000": headgate.Price()}, "whole numbers of input tokens, one or more, not '200000'"),
        ({1.5: headgate.Price()}, "not 1.5"),
        ({True: headgate.Price()}, "not True"),
        ([1], "above must map numbers of input tokens to prices, not be \\[1\\]"),
    ],
)
def test_a_wrong_price_of_long_requests_is_named(above: Any, said: str) -> None:
    with pytest.raises(headgate.ConfigError, match=said):
        headgate.Price(1, 2, above=above)


def test_a_stored_report_has_no_cost_of_a_column_without_a_price() -> None:
    pipeline, store = headgate.Pipeline("shop"), headgate.MemoryStore()

    @pipeline.column(model="acme/m")
    async def a(row: int) -> int:
        async with headgate.request("acme/m") as lease:
            lease.report(usage=EACH)
        return row

    @pipeline.column(model="acme/other")
    async def b(a: int) -> int:
        async with headgate.request("acme/other") as lease:
            lease.report(usage=EACH)
        return a

    assert headgate.run(pipeline, 2, store=store, prices=PRICES).done == 2
    assert read_report(store, "shop").costs == pytest.approx({"a": 2 * DOLLARS})


def test_prices_of_genai_prices_are_those_it_states() -> None:
    found = price_book("genai-prices").price("openai/gpt-4o")
    assert found == headgate.Price(input=2.5, output=10.0, cached_input=1.25)
    assert price_book({"openai/gpt-4o": {"input": 9}}).price("openai/gpt-4o") == headgate.Price(9)
    assert price_book("genai-prices").price("acme/m") is None


def test_without_genai_prices_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    with pytest.raises(headgate.ConfigError, match=r"pip install 'headgate\[prices\]'"):
        Shop().run(prices="genai-prices")
    with pytest.raises(headgate.ConfigError, match=r"pip install 'headgate\[prices\]'"):
        Shop().run(budget=1.0)


def test_prices_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text('["acme/m"]\ninput = 1\noutput = 10\ncached_input = 0.25\n', encoding="utf-8")
    assert price_book(file).price("acme/m") == headgate.Price(1, 10, 0.25)


@pytest.mark.parametrize(
    "wrong",
    [
        {"prices": {"acme/m": {"inputs": 1}}},
        {"prices": {"acme/m": 3}},
        {"prices": {"acme/m": {"input": -1}}},
        {"prices": {"acme/m": {"above": {"many": {"input": 1}}}}},
        {"prices": {"acme/m": {"above": {0: {"input": 1}}}}},
        {"prices": {"acme/m": {"above": 5}}},
        {"prices": {"acme/m": {"above": {1.5: {"input": 1}}}}},
        {"prices": "/nowhere/prices.toml"},
        {"prices": {"acme/m": {"input": 10**400}}},
        {"budget": -1},
        {"budget": "five"},
        {"budget": True},
    ],
)
def test_what_cannot_be_meant_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(headgate.ConfigError):
        Shop().run(rows=1, **wrong)
    with pytest.raises(headgate.ConfigError):
        headgate.Budget()


@pytest.mark.parametrize(
    ("usage", "picos"),
    [
        ({"prompt_tokens": 100, "completion_tokens": 10}, 200 * 10**6),
        ({"prompt_tokens": 100, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 80}}, 40 * 10**6),
        ({"input_tokens": 20, "output_tokens": 0, "cache_read_input_tokens": 80}, 40 * 10**6),
        ({"input_tokens": 20, "output_tokens": 0, "cache_creation_input_tokens": 80}, 120 * 10**6),
    ],
)
def test_cached_tokens_have_their_own_price(usage: dict[str, object], picos: int) -> None:
    counted = usage_of(usage)
    assert counted is not None
    assert headgate.Price(input=1.0, output=10.0, cached_input=0.25, cache_write=1.25).of(counted) == picos


def test_counts_that_cannot_be_looked_at_are_not_told() -> None:
    class Stubborn(UserDict[str, object]):
        def get(self, key: str, default: object = None) -> object:
            raise RuntimeError(key)

    assert usage_of(Stubborn()) is None


def test_what_is_written_to_a_cache_counts_in_a_run() -> None:
    uses = {"input_tokens": 20, "output_tokens": 10, "cache_creation_input_tokens": 80, "cache_read_input_tokens": 40}
    prices = {"acme/m": {"input": 1.0, "output": 10.0, "cached_input": 0.1, "cache_write": 1.25}}
    report = Shop(uses).run(rows=2, prices=prices)
    assert report.spent is not None
    assert report.spent.tokens == 2 * 150
    assert report.cost == report.columns[0].cost == pytest.approx(2 * (20 + 4 + 100 + 100) / 1e6)


def test_a_long_request_has_its_own_price(tmp_path: Path) -> None:
    """All of it, from the first token; one request after the other, not their sum."""
    file = tmp_path / "prices.toml"
    file.write_text('["acme/m"]\ninput = 1\noutput = 10\n["acme/m".above.100]\ninput = 2\noutput = 15\n', "utf-8")
    price = headgate.Price(1, 10, above={100: headgate.Price(2, 15)})
    assert price_book(file).price("acme/m") == price
    assert price.of(headgate.Usage(100, 1)) == 110 * 10**6
    assert price.of(headgate.Usage(21, 1, 0, 40, 40)) == 217 * 10**6
    report = Shop({"input_tokens": 60, "output_tokens": 1}, requests=3).run(rows=1, prices=file)
    assert report.cost == report.columns[0].cost == pytest.approx(3 * 70 / 1e6)


def test_what_a_price_of_long_requests_leaves_out_is_that_of_others() -> None:
    stated = {"input": 3, "output": 15, "cached_input": 0.3, "above": {"200000": {"input": 6}}}
    price = price_book({"acme/m": stated}).price("acme/m")
    assert price == headgate.Price(3, 15, 0.3, above={200_000: headgate.Price(6, 15, 0.3)})
    assert price is not None
    assert price.of(headgate.Usage(300_000, 10_000)) == (1_800_000 + 150_000) * 10**6


def test_prices_of_long_requests_and_of_cache_writes_are_those_of_genai_prices() -> None:
    found = price_book(None).price("anthropic/claude-sonnet-4-5")
    assert found is not None
    assert (found.input, found.cache_write) == (3.0, 3.75)
    assert found.above == {200_000: headgate.Price(6.0, 22.5, 0.6, 7.5)}


def test_the_library_is_imported_in_a_thread_before_the_run_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a tenth of a second, in which no request would be let out."""
    importing: list[int] = []

    class Watch(MetaPathFinder):
        def find_spec(self, fullname: str, path: object, target: object = None) -> None:
            if fullname == "genai_prices":
                importing.append(threading.get_ident())

    monkeypatch.delitem(sys.modules, "genai_prices", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Watch(), *sys.meta_path])
    pipeline, loops = headgate.Pipeline("p"), set[int]()

    @pipeline.column
    async def a(row: int) -> int:
        loops.add(threading.get_ident())
        async with headgate.request("openai/gpt-4o") as lease:
            lease.report(usage=EACH)
        return row

    assert headgate.run(pipeline, 1, prices=PRICES).cost == pytest.approx((250 + 500) / 1e6)
    assert importing
    assert loops.isdisjoint(importing)
