"""What the admission benchmark writes: its tables, its options, and pictures that stay small and look the same."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.admission.cases import CASES, case_named
from benchmarks.admission.pictures import draw, file_name
from benchmarks.admission.play import HEADGATE, KINDS, play
from benchmarks.admission.series import provider_curve, refused_share, series
from benchmarks.admission.simulation import new_record
from benchmarks.admission.svg import compact
from benchmarks.admission.table import LATE, REACH, REFUSED, UTILISATION, WASTED, table
from benchmarks.result import CaseResult, Goal, Judge, MetricResult, Result, ScenarioResult
from tests.integration.warm_children import run_warm

ROOT = Path(__file__).resolve().parents[2]
BYTES_MAX = 150_000


def points(path: str) -> list[tuple[float, float]]:
    """The corners of a path in the compact form, runs of one direction spelled out."""
    out: list[tuple[float, float]] = []
    for letter, first, second in re.findall(r"([MLHVz])(-?[\d.e-]+)?(?: (-?[\d.e-]+))?", path):
        if letter == "H":
            out.append((float(first), out[-1][1]))
        elif letter == "V":
            out.append((out[-1][0], float(first)))
        elif letter in "ML":
            out.append((float(first), float(second)))
    return out


def test_a_small_picture_has_the_same_corners() -> None:
    corners = "M 0.04 0|L 1.5 0|L 3 0|L 3 -7.123456|L 3 -9|L 5.25 -2|L 5.25 -2|L 5.25 4|L 5.25 1|z|"
    text = '<path d="' + corners.replace("|", " \n") + '"/>'
    found = re.search(r'd="(.*)"', compact(text))
    assert found is not None
    assert found[1] == "M0 0H3V-9L5.2 -2V4V1z"
    assert points(found[1]) == [(0, 0), (3, 0), (3, -9), (5.2, -2), (5.2, 4), (5.2, 1)]


def test_paths_with_curves_and_all_else_stay_as_they_are() -> None:
    text = '<svg><path d="M 1.2345 2 \nC 1 2 3 4 5 6.789 \n"/><text d="x">L 1.23456 2</text></svg>'
    assert compact(text) == text


def test_the_provider_allows_what_the_case_says() -> None:
    steps = case_named("steps 64-32-64")
    assert provider_curve(steps, 1800.0) == [(0, 64), (600, 32), (1200, 64), (1800, 64)]
    refusing = case_named("3 s of refusals")
    assert provider_curve(refusing, 1800.0) == [(0, 32), (900, 0), (903, 32), (1800, 32)]
    assert provider_curve(case_named("600k tokens, silent"), 60.0) == [(0, 600), (60, 600)]
    assert provider_curve(case_named("fixed window 40"), 60.0) == [(0, 40), (60, 40)]


def test_the_share_of_429s_is_of_what_arrived_meanwhile() -> None:
    record = new_record(21)
    record.refusals[3], record.accepted[4] = 1, 3
    record.accepted[12] = 5
    assert refused_share([record], 20.0, 10.0) == [(0, 0.25), (10, 0), (20, 0)]


@pytest.mark.parametrize("name", ["concurrency 32", "600 a minute, headers", "600k tokens, headers"])
def test_curves_follow_the_limit_that_is_drawn(name: str) -> None:
    case = case_named(name)
    played = play(HEADGATE, case, seed=1, seconds=180.0, trace_s=1.0)
    shown = series(case, played, 180.0)
    allowed = provider_curve(case, 180.0)[0][1]
    late = [value for at, value in shown.done[0] if at > 100]
    assert sum(late) / len(late) == pytest.approx(allowed, rel=0.1)
    assert shown.limit
    assert all(math.isfinite(value) for _, value in shown.limit)
    assert len(shown.thinned().done[0]) == math.ceil(len(shown.done[0]) / 2)


@pytest.mark.parametrize("name", ["two clients on 64", "600 a minute, silent", "1,000 rows"])
def test_a_picture_names_every_client_and_stays_small(name: str, tmp_path: Path) -> None:
    case = case_named(name)
    path = draw(replace(case, rows=case.rows and 300), tmp_path, seed=1, seconds=60.0)
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size < BYTES_MAX
    for word in (*KINDS, "limit", "429s", "minutes", case.name):
        assert word in text
    again = draw(replace(case, rows=case.rows and 300), tmp_path / "again", seed=1, seconds=60.0)
    assert again.read_text(encoding="utf-8") == text, "the same numbers give the same file"


def test_every_case_has_a_file_of_its_own() -> None:
    names = [file_name(case) for case in CASES]
    assert len(set(names)) == len(CASES)
    assert file_name(case_named("600 a minute, Retry-After")) == "600-a-minute-retry-after.svg"


def test_one_case_by_command_in_two_processes_with_its_picture(tmp_path: Path) -> None:
    arguments = ["--scenario", "admission", "--quick", "--case", "concurrency 32", "--client", "headgate"]
    arguments += ["--minutes", "0.5", "--seeds", "2", "--jobs", "2", "--pictures", str(tmp_path / "drawn")]
    arguments += ["--json", str(tmp_path / "out.json"), "--markdown", str(tmp_path / "out.md")]
    command = [sys.executable, "-m", "benchmarks", *arguments]
    ran = run_warm(command, cwd=ROOT, imports=["benchmarks.scenarios"])
    assert ran.returncode == 0, ran.stderr
    result = Result.model_validate_json((tmp_path / "out.json").read_text(encoding="utf-8"), strict=True)
    (scenario,) = result.scenarios
    (case,) = scenario.cases
    assert case.name == "concurrency 32 / headgate"
    found = {metric.name: metric for metric in case.metrics}
    assert {UTILISATION, LATE, REFUSED, REACH, WASTED} == found.keys()
    alone = [play(HEADGATE, case_named("concurrency 32"), seed=seed, seconds=30.0).figures for seed in (1, 2)]
    assert found[UTILISATION].values == tuple([figures.utilisation for figures in alone]), "each run has its own seed"
    assert found[UTILISATION].met == (found[UTILISATION].mean >= 0.99), "the mean is judged"
    text = (tmp_path / "out.md").read_text(encoding="utf-8")
    assert "(drawn/concurrency-32.svg)" in text
    assert (tmp_path / "drawn" / "concurrency-32.svg").exists()
    assert "### headgate's gate, 2 seeds" in text


def test_missed_goals_are_bold_and_worst_seeds_named() -> None:
    metrics = (
        MetricResult.of(UTILISATION, "x", (0.98, 0.94), Goal(at_least=0.97), Judge.MEAN),
        MetricResult.of(LATE, "%", (0.1, 0.3), Goal(at_most=0.3), Judge.MEAN),
        MetricResult.of(REFUSED, "%", (1.0, 3.0), None, Judge.MEAN),
        MetricResult.of(REACH, "s", (3.0, 4.0), Goal(at_most=10), Judge.MEAN),
        MetricResult.of(WASTED, "requests", (10.0, 20.0), None, Judge.MEAN),
    )
    cases = tuple([CaseResult(name=f"concurrency 32 / {kind}", runs=2, metrics=metrics) for kind in (HEADGATE, "AIMD")])
    text = "\n".join(table(ScenarioResult(name="admission", what="?", seconds=1.0, cases=cases)))
    own = "| concurrency 32 | **0.960 (0.940)** / 0.97 | 0.20 (0.30) / 0.3 | 2.0 (3.0) | 4 (4) / 10 |  | 15 (20) |"
    assert own in text
    assert "| concurrency 32 | 0.960, 2.0 % | 0.960, 2.0 % |" in text
