"""Comparing two results: which way a number went, whether that means anything, and files that cannot be compared."""

from __future__ import annotations

import json
from math import inf
from typing import TYPE_CHECKING

import pytest

from benchmarks.__main__ import main
from benchmarks.compare import NotComparable, Pair, Verdict, as_table, compare, read_result, share_scenarios
from benchmarks.provenance import provenance
from benchmarks.result import FORMAT, Better, CaseResult, Goal, MetricResult, Result, ScenarioResult
from benchmarks.writer import as_json

if TYPE_CHECKING:
    from pathlib import Path


def result(metrics: list[MetricResult], case: str = "four columns", scenario: str = "overhead") -> Result:
    measured = ScenarioResult(
        name=scenario, what="What.", seconds=1.0, cases=(CaseResult(name=case, runs=1, metrics=tuple(metrics)),)
    )
    return Result(format=FORMAT, provenance=provenance(seed=1, effort="quick", argv=()), scenarios=(measured,))


def metric(name: str, value: float, better: Better = Better.LOWER, **more: object) -> MetricResult:
    return MetricResult.of(name, "us", (value,), None, better=better, **more)  # type: ignore[arg-type]


def only_pair(old: MetricResult, new: MetricResult, tolerance: float = 0.15) -> Pair:
    (pair,) = compare(result([old]), result([new]), tolerance=tolerance).pairs
    return pair


@pytest.mark.parametrize(
    ("better", "old", "new", "verdict"),
    [
        (Better.LOWER, 100.0, 114.0, Verdict.SAME),
        (Better.LOWER, 100.0, 116.0, Verdict.WORSE),
        (Better.LOWER, 100.0, 80.0, Verdict.BETTER),
        (Better.HIGHER, 100.0, 116.0, Verdict.BETTER),
        (Better.HIGHER, 100.0, 80.0, Verdict.WORSE),
        (Better.NEITHER, 100.0, 500.0, Verdict.UNJUDGED),
        (Better.LOWER, 0.0, 0.0, Verdict.SAME),
        (Better.LOWER, 0.0, 1.0, Verdict.WORSE),
        (Better.LOWER, 1.0, 0.0, Verdict.BETTER),
        (Better.HIGHER, 128.0, 0.0, Verdict.WORSE),
    ],
)
def test_which_way_a_number_went(better: Better, old: float, new: float, verdict: Verdict) -> None:
    assert only_pair(metric("m", old, better), metric("m", new, better)).verdict is verdict


def test_the_tolerance_is_the_same_both_ways() -> None:
    """Twice as slow and half as slow are equally far from the same."""
    for old, new in ((1.0, 1.99), (1.99, 1.0)):
        assert only_pair(metric("m", old), metric("m", new), tolerance=1.0).verdict is Verdict.SAME
    assert only_pair(metric("m", 1.0), metric("m", 2.01), tolerance=1.0).verdict is Verdict.WORSE
    assert only_pair(metric("m", 2.01), metric("m", 1.0), tolerance=1.0).verdict is Verdict.BETTER


def test_a_machine_that_is_slow_today_makes_nothing_worse() -> None:
    """Twice the CPU where the baseline took twice as much too is no change; less for the baseline alone is one."""

    def measured(own: float, raw: float) -> Result:
        noisy = metric("CPU", own, noisy=True, baseline="raw")
        return result([noisy, metric("raw", raw, Better.NEITHER, noisy=True)])

    slow_day = compare(measured(100.0, 8.0), measured(200.0, 16.0), tolerance=0.15)
    assert [pair.verdict for pair in slow_day.pairs] == [Verdict.SAME, Verdict.UNJUDGED]
    assert slow_day.pairs[0].ratio == 1.0
    worse = compare(measured(100.0, 8.0), measured(200.0, 8.0), tolerance=0.15)
    assert worse.worse == worse.pairs[:1]
    hidden = compare(measured(100.0, 8.0), measured(100.0, 4.0), tolerance=0.15)
    assert hidden.pairs[0].verdict is Verdict.WORSE, "the machine got faster, and this did not"


def test_noise_without_a_baseline_is_shown_and_not_judged() -> None:
    pair = only_pair(metric("CPU", 1.0, noisy=True), metric("CPU", 9.0, noisy=True))
    assert (pair.ratio, pair.verdict) == (9.0, Verdict.UNJUDGED)
    without = only_pair(
        metric("CPU", 1.0, noisy=True, baseline="gone"), metric("CPU", 9.0, noisy=True, baseline="gone")
    )
    assert (without.baseline, without.verdict) == (None, Verdict.UNJUDGED)


def test_only_what_both_have_is_compared_and_the_rest_is_counted() -> None:
    old, new = result([metric("a", 1.0), metric("b", 1.0)]), result([metric("b", 1.0), metric("c", 1.0)])
    assert [pair.metric for pair in compare(old, new, tolerance=0.1).pairs] == ["b"]
    more = new.model_copy(
        update={"scenarios": (*new.scenarios, *result([metric("a", 1.0)], scenario="parked").scenarios)}
    )
    found = compare(old, more, tolerance=0.1)
    assert (found.only_old, found.only_new) == (0, 1)
    assert "1 only in the new" in as_table(found)


def test_two_machines_are_told_apart() -> None:
    old = result([metric("a", 1.0)])
    other = old.provenance.machine.model_copy(update={"cpus": 999})
    new = old.model_copy(update={"provenance": old.provenance.model_copy(update={"machine": other})})
    found = compare(old, new, tolerance=0.1)
    assert not found.same_machine
    assert "different machines" in as_table(found)


def test_the_table_names_what_got_worse() -> None:
    found = compare(result([metric("a", 0.0)]), result([metric("a", 2.0)]), tolerance=0.15)
    assert found.pairs[0].ratio == inf
    text = as_table(found)
    assert "| overhead / four columns | a | 0 us | 2 us | from nothing | **worse** |" in text
    assert "1 of 1 judged metrics are worse by more than 15%" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "no result of these benchmarks"),
        ("not json", "no result of these benchmarks"),
        ('{"format": 1, "whatever": 2}', f"has format 1, these benchmarks write format {FORMAT}"),
        (f'{{"format": {FORMAT}}}', "damaged: provenance: Field required"),
    ],
)
def test_a_file_that_cannot_be_compared_says_why(text: str, message: str) -> None:
    with pytest.raises(NotComparable, match=r"old\.json") as caught:
        read_result(text, "old.json")
    assert message in str(caught.value)


def test_nothing_in_common_is_an_error() -> None:
    old = result([metric("a", 1.0)])
    with pytest.raises(NotComparable, match="the file has overhead, to be measured is parked"):
        share_scenarios(old, ["parked"])
    share_scenarios(old, ["parked", "overhead"])
    with pytest.raises(NotComparable, match="no case in common"):
        compare(old, result([metric("a", 1.0)], case="other"), tolerance=0.1)


def written(path: Path, value: float, goal: Goal | None = None) -> str:
    path.write_text(as_json(result([MetricResult.of("a", "x", (value,), goal or Goal(at_most=9.0))])), encoding="utf-8")
    return str(path)


def test_the_exit_code_says_whether_anything_got_worse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, same, worse = (written(tmp_path / f"{value}.json", value) for value in (1.0, 1.1, 2.0))
    assert main(["--compare", old, "--result", same]) == 0
    assert main(["--compare", old, "--result", worse]) == 1
    assert "**worse**" in capsys.readouterr().err
    assert main(["--compare", old, "--result", worse, "--tolerance", "1"]) == 0


def test_the_exit_code_for_what_cannot_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is measured: the scenario named here takes minutes."""
    old = written(tmp_path / "old.json", 1.0)
    other = tmp_path / "format.json"
    other.write_text(json.dumps({"format": FORMAT - 1}), encoding="utf-8")
    for arguments, message in (
        (["--compare", str(tmp_path / "missing.json")], "cannot be read"),
        (["--compare", str(other)], f"has format {FORMAT - 1}"),
        (["--compare", old, "--scenario", "admission"], "nothing to compare"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
