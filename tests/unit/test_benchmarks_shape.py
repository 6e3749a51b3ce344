"""What the benchmarks write has one shape, says where it comes from, and is the same in all three places.

Every scenario runs here at its smallest size, so that none of them rots; no number that it gives is looked at.
"""

from __future__ import annotations

import json
import math
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from benchmarks.measure import Case, Effort, Plan, Sample, Scenario
from benchmarks.provenance import machine
from benchmarks.result import FORMAT, Better, CaseResult, Goal, MetricResult, Provenance, Result, ScenarioResult
from benchmarks.runner import run_scenario
from benchmarks.scenarios import SCENARIOS
from benchmarks.writer import as_json, as_markdown, result_line
from tests.integration.warm_children import run_warm

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).resolve().parents[2]


def sample(*, goal: Goal | None = None, values: tuple[float, ...] = (3.0, 1.0, 2.0)) -> Result:
    metric = MetricResult.of("CPU per cell", "us", values, goal)
    case = CaseResult(name="four columns", runs=len(values), metrics=(metric,))
    provenance = Provenance(
        revision="0" * 40,
        dirty=True,
        diff="abc",
        machine=machine(),
        versions={"anyio": "4.16"},
        seed=1,
        effort="quick",
        argv=("--quick",),
        started_at="2026-01-01T00:00:00+00:00",
    )
    scenario = ScenarioResult(name="overhead", what="What it costs.", seconds=1.0, cases=(case,))
    return Result(format=FORMAT, provenance=provenance, scenarios=(scenario,))


def test_the_command_writes_the_same_result_in_three_places(tmp_path: Path) -> None:
    files = [tmp_path / "new" / "out.json", tmp_path / "out.md"]
    command = [sys.executable, "-m", "benchmarks", "--scenario", "history", "--smoke", "--runs", "2", "--seed", "7"]
    command += ["--json", str(files[0]), "--markdown", str(files[1])]
    ran = run_warm(command, cwd=ROOT, imports=["benchmarks.scenarios"])
    assert ran.returncode == 0, ran.stderr
    (line,) = ran.stdout.splitlines()
    result = Result.model_validate_json(files[0].read_text(encoding="utf-8"), strict=True)
    assert line == result_line(result)
    assert files[1].read_text(encoding="utf-8") == as_markdown(result)
    assert result.format == FORMAT
    assert [scenario.name for scenario in result.scenarios] == ["history"]
    assert all(case.runs == len(m.values) == 2 for s in result.scenarios for case in s.cases for m in case.metrics)
    origin = result.provenance
    assert (origin.seed, origin.effort, origin.argv) == (7, "smoke", tuple(command[3:]))
    assert origin.machine == machine()
    assert origin.machine.cpus >= 1
    assert {"headgate", "anyio", "pydantic"} <= origin.versions.keys()
    if (ROOT / ".git").exists():
        assert origin.revision is not None
        assert len(origin.revision) == 40
        assert (origin.diff is not None) == origin.dirty
    for word in (str(origin.machine), origin.revision or "unknown revision", "--seed 7"):
        assert word in files[1].read_text(encoding="utf-8")


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_every_scenario_works(name: str) -> None:
    """Goals that are counts and not times (rows done, timeouts, refusals) hold on any machine and at any size."""
    result = run_scenario(SCENARIOS[name], Plan(Effort.SMOKE, seed=1, runs=1))
    assert result.name == name
    assert result.what
    assert result.cases
    assert len({case.name for case in result.cases}) == len(result.cases), "two cases have one name"
    for case in result.cases:
        assert case.metrics
        assert all(math.isfinite(value) for metric in case.metrics for value in metric.values)
        assert [metric.name for metric in case.metrics if metric.unit == "" and metric.met is False] == [], case.name


@pytest.mark.parametrize(("in_turns", "order"), [(False, "aaabbcc"), (True, "abcabca")])
def test_runs_of_a_case_follow_each_other_or_take_turns(in_turns: bool, order: str) -> None:
    ran: list[str] = []

    def measure(name: str) -> Iterable[Sample]:
        ran.append(name)
        yield Sample("place", "", len(ran))

    cases = [Case("a", partial(measure, "a"), 3), Case("b", partial(measure, "b")), Case("c", partial(measure, "c"), 2)]
    scenario = Scenario("order", "Who comes when.", lambda _: iter(cases), in_turns=in_turns)
    result = run_scenario(scenario, Plan(Effort.SMOKE, seed=1, runs=2))
    assert "".join(ran) == order
    for case in result.cases:
        assert list(case.metrics[0].values) == [place for place, name in enumerate(ran, 1) if name == case.name]
    assert [(case.name, case.runs) for case in result.cases] == [("a", 3), ("b", 2), ("c", 2)]


def test_median_spread_and_verdict() -> None:
    metric = MetricResult.of("m", "us", (3.0, 1.0, 2.0, 10.0), Goal(at_most=2.5))
    assert (metric.median, metric.least, metric.most, metric.met) == (2.5, 1.0, 10.0, True)
    assert MetricResult.of("m", "us", (3.0,), Goal(at_least=4.0)).met is False
    assert MetricResult.of("m", "us", (3.0,), None).met is None


def test_a_goal_says_which_way_is_better() -> None:
    assert MetricResult.of("m", "us", (3.0,), Goal(at_most=4.0)).better is Better.LOWER
    assert MetricResult.of("m", "us", (3.0,), Goal(at_least=4.0)).better is Better.HIGHER
    assert MetricResult.of("m", "us", (3.0,), Goal(at_least=4.0, at_most=5.0)).better is Better.NEITHER
    assert MetricResult.of("m", "us", (3.0,), None).better is Better.NEITHER
    assert MetricResult.of("m", "us", (3.0,), None, better=Better.HIGHER).better is Better.HIGHER


def test_a_result_comes_back_from_its_json_and_unknown_keys_are_errors() -> None:
    result = sample(goal=Goal(at_most=1.0))
    text = as_json(result)
    assert Result.model_validate_json(text, strict=True) == result
    changed = json.loads(text)
    changed["provenance"]["host"] = "mine"
    with pytest.raises(ValidationError, match="host"):
        Result.model_validate(changed)


def test_the_line_for_machines_is_one_line_and_names_what_was_missed() -> None:
    line = result_line(sample(goal=Goal(at_most=1.0)))
    name, _, rest = line.partition("=")
    assert name == "BENCHMARK_RESULT"
    assert "\n" not in line
    summary = json.loads(rest)
    assert summary["scenarios"] == {"overhead": {"four columns": {"CPU per cell": 2.0}}}
    assert summary["missed"] == ["overhead/four columns/CPU per cell"]


def test_the_table_shows_median_spread_and_goal() -> None:
    text = as_markdown(sample(goal=Goal(at_most=1.0)))
    assert "| four columns | CPU per cell | 2 us | 1 to 3 | 3 | <= 1 | **missed** |" in text
    assert "with changes (abc)" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["--scenario", "nothing"],
        ["--runs", "0"],
        ["--quick", "--smoke"],
        ["--tolerance", "-1"],
        ["--result", "new.json"],
    ],
)
def test_arguments_that_cannot_be_meant(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    ran = run_warm(command, cwd=ROOT, imports=["benchmarks.scenarios"])
    assert ran.returncode == 2
    assert arguments[-1].lstrip("-") in ran.stderr or arguments[0] in ran.stderr
    assert ran.stdout == ""
