"""Money on the command line: prices, budgets, what a run may cost and what it has cost."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from headgate.cli.app import app

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = """
import headgate

pipeline = headgate.Pipeline("tickets")

@pipeline.column(model="acme/m", tokens=100, max_output_tokens=50)
async def answer(text: str) -> str:
    headgate.current_lease().report(usage={"input_tokens": 100, "output_tokens": 50})
    return text
"""

PRICE = ("--price", "acme/m=1/10")
EACH = 0.0006
"""Dollars for one row, 150 tokens."""

RUN = ("run", "program_paid.py", "rows.jsonl", "--no-progress")


def says(*arguments: object) -> tuple[int, str, str]:
    """The exit code, and what went to both outputs."""
    result = CliRunner().invoke(app, [str(one) for one in arguments], prog_name="headgate")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def data_of(*arguments: object) -> Any:
    """What the command says with --json."""
    return json.loads(says(*arguments, "--json")[1])


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("HEADGATE_STORE", raising=False)
    Path("program_paid.py").write_text(PROGRAM, encoding="utf-8")
    Path("rows.jsonl").write_text("".join(f'{{"text": "row {n}"}}\n' for n in range(30)), encoding="utf-8")
    yield
    sys.modules.pop("program_paid", None)


def test_a_run_keeps_to_its_budget_and_goes_on_under_a_larger_one() -> None:
    code, out, _ = says(*RUN, *PRICE, "--budget", 0.0063)
    assert code == 6
    assert "10 done + 0 failed" in out
    last = out.splitlines()[-1]
    assert last.startswith("  resume with a larger budget: headgate resume program_paid.py rows.jsonl --budget 0.0063 ")
    words = shlex.split(last.partition("headgate ")[2])
    words[words.index("--budget") + 1] = "0.05"
    assert says(*words)[0] == 0
    assert "cost: $0.018" in says("report", "tickets.db")[1]


def test_a_price_for_no_model_of_the_pipeline_is_noticed() -> None:
    code, out, err = says(*RUN, "--price", "acne/m=1/10", "--price", "*=1/2")
    assert code == 0
    assert "prices= has acne/m, which no column names, and not acme/m: check the names, unless a body asks" in err
    assert "notice: prices= has acne/m, which nothing used, and not acme/m: check the names" in out


def test_a_budget_in_tokens_needs_no_price() -> None:
    found = data_of(*RUN, "--budget-tokens", 150 * 7 + 1)
    assert (found["status"], found["done"]) == ("budget_exhausted", 7)
    assert found["resume"].startswith("headgate resume program_paid.py rows.jsonl --budget-tokens 1051 ")
    assert (found["spent"]["tokens"], found["spent"]["money"]) == (1050, None)


def test_a_price_may_have_a_fee_by_request() -> None:
    assert data_of(*RUN, "--price", "acme/m=1/10/0.01")["spent"]["money"] == pytest.approx(30 * (EACH + 0.01))


def test_both_budgets_count() -> None:
    assert data_of(*RUN, *PRICE, "--budget", 1, "--budget-tokens", 450)["done"] == 3


def test_a_sampled_plan_forecasts_the_cost() -> None:
    plan = ("plan", "program_paid.py", "rows.jsonl", "--sample", 10)
    assert data_of(*plan, *PRICE)["forecast"]["cost"]["likely"] == pytest.approx(20 * EACH)
    Path("prices.toml").write_text('["acme/m"]\ninput = 2\noutput = 20\n', encoding="utf-8")
    assert data_of(*plan, "--prices", "prices.toml")["forecast"]["cost"]["likely"] == pytest.approx(40 * EACH)
    unknown = data_of(*plan, "--prices", "genai-prices")["forecast"]
    assert unknown["cost"] is None
    assert "the price of acme/m is not known, so the cost is not: give it in prices= (--price)" in unknown["notices"]


def test_a_simulated_run_has_a_cost() -> None:
    Path("provider.toml").write_text('[models."*"]\nlatency = { mean_s = 1.0 }\n', encoding="utf-8")
    found = data_of("simulate", "program_paid.py", 5, "--provider", "provider.toml", *PRICE)
    assert found["report"]["columns"][0]["cost"] == pytest.approx(5 * EACH)


@pytest.mark.parametrize(
    ("wrong", "code", "said"),
    [
        ("--price acme/m", 2, "'acme/m' is not MODEL=IN/OUT[/REQUEST] in dollars per million tokens, and per request"),
        ("--price acme/m=1", 2, "'acme/m=1' is not MODEL=IN/OUT"),
        ("--price acme/m=1/-1", 2, "'acme/m=1/-1' is not MODEL=IN/OUT"),
        ("--price acme/m=1/2/", 2, "'acme/m=1/2/' is not MODEL=IN/OUT"),
        ("--price =1/2", 2, "'=1/2' is not MODEL=IN/OUT"),
        ("--price gpt-4o=1/2", 2, "'gpt-4o' does not name a model: write it as 'provider/model'"),
        ("--price acme/m=1/2 --price acme/m=1/3", 2, "the price of acme/m is given twice"),
        ("--price acme/m=1/2 --prices prices.toml", 2, "a file has all prices"),
        ("--prices nowhere.toml", 1, "headgate: prices cannot be read from 'nowhere.toml'"),
        ("--budget -1", 2, "'--budget'"),
        ("--budget five", 2, "'--budget'"),
        ("--budget inf", 1, "headgate: budget: money must be zero or more, not inf"),
        ("--budget-tokens 1.5", 2, "'--budget-tokens'"),
        ("--budget 1", 1, "(on the command line --price acme/m=IN/OUT), or a budget in tokens"),
        ("--budget 1 --set budget=2", 2, "budget is given twice"),
    ],
)
def test_what_cannot_be_meant_is_told_in_one_line_and_nothing_is_made(wrong: str, code: int, said: str) -> None:
    found, out, err = says(*RUN, *wrong.split())
    assert (found, out) == (code, "")
    assert said in err.splitlines()[-1]
    assert "Traceback" not in err
    made = {path.name for path in Path().iterdir()} - {"program_paid.py", "rows.jsonl", "__pycache__"}
    assert made <= ({"tickets.db"} if wrong == "--budget 1" else set())  # which the engine has looked at before


def test_prices_without_a_sample_are_refused() -> None:
    code, _, err = says("plan", "program_paid.py", "rows.jsonl", *PRICE)
    assert code == 2
    assert "prices matter only with --sample" in err
