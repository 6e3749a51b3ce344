"""The commands that look ahead, called in this process: simulate, and plan with a sample."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from typer.testing import CliRunner

from headgate.cli.app import app

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = """
import headgate

pipeline = headgate.Pipeline("tickets")

@pipeline.column(model="acme/small")
async def question(text: str) -> str:
    headgate.current_lease().report(usage={"input_tokens": 100, "output_tokens": 10})
    print("asked")
    return text

@pipeline.column(model="acme/small", when=lambda question: len(question) > 3)
async def verdict(question: str) -> bool:
    return True
"""

PROVIDER = """
[models."acme/small"]
concurrency = 8
latency = { mean_s = 2.0 }
[columns.verdict]
share = 0.5
"""


class Told(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


def headgate_says(*arguments: object) -> Told:
    result = CliRunner().invoke(app, [str(one) for one in arguments], prog_name="headgate")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Told(result.exit_code, result.stdout, result.stderr)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("HEADGATE_STORE", raising=False)
    Path("program_ahead.py").write_text(PROGRAM, encoding="utf-8")
    Path("provider.toml").write_text(PROVIDER, encoding="utf-8")
    Path("rows.jsonl").write_text("".join(f'{{"text": "row {n}"}}\n' for n in range(40)), encoding="utf-8")
    yield
    sys.modules.pop("program_ahead", None)


def test_a_run_is_simulated_and_not_a_function_called() -> None:
    code, out, _ = headgate_says("simulate", "program_ahead.py", "rows.jsonl", "--provider", "provider.toml", "--knobs")
    assert code == 0
    assert out.startswith("simulated: the run takes ")
    assert "  with acme/small concurrency 16 instead of 8: " in out
    assert "asked" not in out
    found = headgate_says("simulate", "program_ahead.py", 40, "--provider", "provider.toml", "--json").data
    assert found["report"]["done"] == 40
    assert found["resources"][0]["limit"] == "concurrency"
    assert "the rows are made up: text" in found["assumed"]
    assert list(Path.cwd().glob("*.db")) == [], "a simulation keeps nothing"


def test_a_simulation_that_cannot_be_made_is_told_in_one_line() -> None:
    told = headgate_says("simulate", "program_ahead.py", 5, "--provider", "nowhere.toml")
    assert (told.code, told.err) == (1, "headgate: nowhere.toml: there is no such file\n")
    Path("provider.toml").write_text("[models.'*']\nconcurrency = 3\n", encoding="utf-8")
    told = headgate_says("simulate", "program_ahead.py", 5, "--provider", "provider.toml")
    assert (told.code, told.err.count("\n")) == (1, 1)
    assert "say how long an answer takes" in told.err
    assert headgate_says("simulate", "program_ahead.py", 5).code == 2


def test_a_sampled_plan_keeps_what_it_paid_for() -> None:
    found = headgate_says("plan", "program_ahead.py", "rows.jsonl", "--sample", 10, "--json")
    assert found.code == 0
    assert found.err.count("asked") == 10, "what the user's code prints goes to standard error"
    plan = found.data
    assert [column["to_run"] for column in plan["columns"]] == [30, 30]
    assert plan["forecast"]["sampled"] == 10
    assert plan["forecast"]["columns"][0]["input_tokens"] == {"low": 3000, "likely": 3000, "high": 3000}
    again = headgate_says("plan", "program_ahead.py", "rows.jsonl", "--sample", 10)
    assert "asked" not in again.out
    assert "  forecast of the rest, from 10 rows:\n    question: 30 cells, tokens in 3000, out 300\n" in again.out
    ran = headgate_says("run", "program_ahead.py", "rows.jsonl", "--json", "--no-progress")
    assert (ran.data["done"], ran.err.count("asked")) == (40, 30)
    refused = headgate_says("plan", "program_ahead.py", "rows.jsonl", "--limits", "provider.toml")
    assert refused.code == 2
