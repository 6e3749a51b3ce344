"""Forecasts of a user's own pipeline: nothing of it is called, and what comes out is what the limits allow."""

from __future__ import annotations

from collections.abc import AsyncIterator  # noqa: TC003 - read by pydantic
from typing import TYPE_CHECKING, Any, Literal

import anyio
import anyio.lowlevel
import pytest
from pydantic import BaseModel, Field, field_validator

import headgate
from headgate.engine.spans import span
from headgate.errors import ConfigError
from headgate.testing import Assumptions, load_assumptions, simulate

if TYPE_CHECKING:
    from pathlib import Path

    from headgate.testing import SimulatedRun

ROWS = [{"text": f"row {number}"} for number in range(100)]
STEADY = {"latency": {"mean_s": 1.0}}


class Verdict(BaseModel):
    score: float = Field(ge=0, le=1)
    kind: Literal["good", "bad"]
    why: str


def _asks(question: str) -> bool:
    return "?" in question


def _words(text: Any) -> int:
    return len(text.words)


def _long(length: int) -> bool:
    return length > 5


def _seventh(text: str) -> str:
    return "why?" if text.endswith("7") else "no"


def tickets() -> headgate.Pipeline:
    """Whose functions must not be called."""
    pipeline = headgate.Pipeline("tickets")

    @pipeline.column(model="acme/small")
    async def question(text: str) -> str:
        raise SystemExit("called")

    @pipeline.column(model="acme/large", when=_asks)
    def verdict(question: str) -> Verdict:
        raise SystemExit("called")

    @pipeline.column
    def shout(verdict: Verdict) -> str:
        raise SystemExit("called")

    @pipeline.column(scope="group", model="acme/small")
    async def same(question: list[str]) -> list[bool]:
        raise SystemExit("called")

    return pipeline


def forecast(provider: dict[str, Any] | None = None, rows: Any = ROWS, **options: Any) -> SimulatedRun:
    return simulate(tickets(), rows, {"models": {"*": {**STEADY, **(provider or {})}}}, **options)


def test_a_pipeline_is_simulated_and_nothing_of_it_called() -> None:
    """Values fit the declared types, and the time is what the slots allow: 104 requests of 1.08 s at 8 at once."""
    found = forecast({"concurrency": 8}, limits={"*": {"concurrency": 8}})
    report = found.report
    assert (report.done, report.failed, report.status) == (100, 0, "completed")
    assert [column.done for column in report.columns] == [100, 100, 100, 100]
    small, large = found.resources
    assert (small.requests, large.requests, small.rejected) == (104, 100, {})
    assert 104 * 1.08 / 8 <= found.seconds <= 1.4 * 104 * 1.08 / 8
    assert small.limit == "concurrency"
    assert small.used["concurrency"] > 0.65
    assert any("verdict: its condition looks at question" in note for note in found.assumed)


def test_the_same_seed_gives_the_same_forecast_and_another_one_another() -> None:
    def told(seed: int) -> str:
        model = {"concurrency": 8, "latency": {"mean_s": 1, "sigma": 1}, "faults": {"error_500": 0.1}}
        return str(simulate(tickets(), 40, {"models": {"*": model}, "seed": seed}).report)

    assert told(1) == told(1)
    assert told(1) != told(2)


def test_rejections_are_counted_by_the_limit_that_they_were_about() -> None:
    found = forecast({"requests_per_minute": 60, "request_burst": 5})
    small = found.resources[0]
    assert small.rejected["requests"] > 0
    assert small.rejected_share == sum(small.rejected.values()) / small.requests
    assert small.limit == "requests_per_minute"
    assert small.requests_per_minute <= 66
    assert found.seconds >= 0.9 * (104 - 5)


def test_a_knob_that_gains_is_named_with_what_it_gains() -> None:
    """More slots at the provider gain nothing as long as headgate is told of eight."""
    provider = {"models": {"acme/small": {**STEADY, "concurrency": 8}, "acme/large": STEADY}}
    found = simulate(tickets(), ROWS, provider, limits={"acme/small": {"concurrency": 8}, "acme/large": {}}, knobs=True)
    assert found.knobs == ()
    found = simulate(tickets(), ROWS, provider, knobs=True)
    (knob,) = found.knobs
    assert (knob.knob, knob.before, knob.after) == ("acme/small concurrency", "8", "16")
    assert knob.seconds < 0.8 * found.seconds
    assert f"with acme/small concurrency 16 instead of 8: {span(knob.seconds)}" in str(found)
    assert "the limits that headgate is told" in [
        knob.knob
        for knob in simulate(tickets(), ROWS[:20], provider, limits={"*": {"concurrency": 2}}, knobs=True).knobs
    ]


def test_answers_decide_conditions_and_shares_stand_in_for_them() -> None:
    answered = forecast(answers={"question": _seventh})
    assert answered.report.columns[1].done == 10
    provider = {"models": {"*": STEADY}, "columns": {"verdict": {"share": 0.25}, "question": {"requests": 3}}}
    shared = simulate(tickets(), ROWS, provider)
    assert 12 <= shared.report.columns[1].done <= 40
    assert shared.resources[0].requests == 304
    constant = {"models": {"*": STEADY}, "columns": {"question": {"answer": "no"}}}
    assert simulate(tickets(), ROWS, constant).report.columns[1].skipped == 100


def test_an_answer_that_does_not_fit_fails_as_it_would() -> None:
    found = forecast(answers={"verdict": {"score": 7}}, rows=ROWS[:5])
    assert found.report.failure_counts == {("verdict", "invalid_output"): 5}


def test_a_type_that_cannot_be_made_up_goes_unchecked_and_is_named() -> None:
    class Even(BaseModel):
        number: int

        @field_validator("number")
        @classmethod
        def _never(cls, value: int) -> int:
            raise ValueError("no")

    pipeline = headgate.Pipeline("odd")

    @pipeline.column(model="acme/small", tokens=_words)
    async def even(text: str) -> Even:
        raise SystemExit("called")

    found = simulate(pipeline, 3, {"models": {"*": STEADY}})
    assert found.report.done == 3
    assert found.report.usage.input_tokens == 1500, "an estimate that makes nothing of made-up rows is left out"
    assert any(note.startswith("even: no value could be made up") for note in found.assumed)
    assert any("the rows are made up: text" in note for note in found.assumed)


def test_a_local_column_is_called_if_that_is_asked() -> None:
    pipeline = headgate.Pipeline("local")

    @pipeline.column
    def length(text: str) -> int:
        return len(text)

    @pipeline.column(model="acme/small", when=_long)
    async def more(text: str) -> str:
        raise SystemExit("called")

    assert simulate(pipeline, ROWS, {"models": {"*": STEADY}}, call=["length"]).report.columns[1].done == 90
    with pytest.raises(ConfigError, match="'more' asks a model"):
        simulate(pipeline, ROWS, {"models": {"*": STEADY}}, call=["more"])


@pytest.mark.anyio
async def test_it_can_be_asked_where_a_loop_goes_on() -> None:
    """As in a notebook."""
    assert forecast(rows=ROWS[:3]).report.done == 3
    await anyio.lowlevel.checkpoint()


async def _rows() -> AsyncIterator[object]:
    yield {"text": ""}


@pytest.mark.parametrize(
    ("provider", "options", "said"),
    [
        ({"models": {"acme/small": STEADY}}, {}, r'nothing is known of .acme/large.: add \[models\."acme/large"\]'),
        ({"models": {"*": {"concurrency": 3}}}, {}, r"latency: say how long an answer takes"),
        ({"models": {"*": {**STEADY, "rpm": 3}}}, {}, r"provider: models\.\*\.rpm: Extra inputs"),
        ({"models": {"*": STEADY}, "columns": {"x": {}}}, {}, r"there is no column 'x' \(columns: question"),
        ({"models": {"*": STEADY}}, {"answers": {"y": 1}}, r"there is no column 'y'"),
        ({"models": {"*": STEADY}}, {"rows": _rows()}, r"give it the rows as a list"),
        ("nowhere.toml", {}, r"nowhere.toml: there is no such file"),
    ],
)
def test_a_mistake_is_told_before_anything_runs(provider: Any, options: dict[str, Any], said: str) -> None:
    rows = options.pop("rows", ROWS)
    with pytest.raises(ConfigError, match=said):
        simulate(tickets(), rows, provider, **options)


def test_assumptions_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "provider.toml"
    file.write_text('seed = 3\n[models."acme/x"]\nlatency = { mean_s = 2 }\n[columns.a]\nanswer = false\n')
    found = load_assumptions(file)
    assert isinstance(found, Assumptions)
    assert (found.seed, found.model("acme/x").latency.mean_s, found.columns["a"].answered) == (3, 2, True)
    file.write_text("seed = ")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_assumptions(file)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0484, "48 ms"), (0.9999, "1.0 s"), (59.96, "1 min"), (3599.7, "1 h"), (250, "4 min 10 s"),
     (12_000, "3 h 20 min"), (187_200, "2 d 4 h"), (86_430, "1 d"), (float("inf"), "?")],
)  # fmt: skip
def test_a_length_of_time_is_told_in_two_units(seconds: float, said: str) -> None:
    assert span(seconds) == said
