"""The examples run as they stand: real clients, over HTTP, against a loopback provider; run again, they ask nothing."""

from __future__ import annotations

import ast
import json
import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
import pytest

from headgate import RunReport, RunStatus
from headgate.testing import Dialect, Latency, ModelSpec, OutputTokens, ProviderProcess, ProviderSpec, assert_ledger

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


class Run(NamedTuple):
    """What a script comes to: its rows, and between how many requests it makes of each model."""

    rows: int
    requests: dict[str, tuple[int, int]]


SCRIPTS = {
    "flat_map.py": Run(5, {"gpt-small": (5, 5)}),
    "two_providers.py": Run(20, {"gpt-small": (40, 40), "claude-small": (20, 20)}),
    "judge_loop.py": Run(10, {"gpt-small": (11, 29), "gpt-large": (11, 29)}),
    "self_hosted.py": Run(100, {LLAMA: (100, 100)}),
    "embedding_column.py": Run(200, {"embedding-small": (4, 4)}),
}
ELSEWHERE = {"quickstart.py"}  # make quickstart: a provider, a live view and checks of its own


def served() -> ProviderSpec:
    hosted = ModelSpec(latency=Latency(mean_s=0.01), output_tokens=OutputTokens(mean=12))
    models: dict[str, ModelSpec] = dict.fromkeys(("gpt-small", "gpt-large", "embedding-small", LLAMA), hosted)
    models["claude-small"] = hosted.model_copy(update={"concurrency": 8, "headers": Dialect.ANTHROPIC})
    return ProviderSpec(models=models, seed=4)


@pytest.fixture(scope="module")
def process() -> Iterator[ProviderProcess]:
    with ProviderProcess(served()) as running:
        yield running


@pytest.fixture
def provider(process: ProviderProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProviderProcess:
    """The provider, unused; clients find it by the environment, files are written to an empty folder."""
    process.replace(served())
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI", "VLLM"):
        monkeypatch.setenv(f"{name}_BASE_URL", process.base_url)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", process.url)
    monkeypatch.setenv("OPENAI_API_KEY", "unused")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "unused")
    return process


def asked(provider: ProviderProcess) -> dict[str, int]:
    return {name: model.requests for name, model in provider.stats().models.items() if model.requests}


def test_every_example_is_run_by_a_test() -> None:
    there = {file.name for file in EXAMPLES.iterdir() if file.suffix in {".py", ".ipynb"}}
    assert there == SCRIPTS.keys() | ELSEWHERE | {"notebook.ipynb"}
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert [name for name in sorted(there) if f"[{name}]({name})" not in listed] == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_runs_and_resumes(name: str, provider: ProviderProcess) -> None:
    wanted = SCRIPTS[name]
    report = runpy.run_path(str(EXAMPLES / name), run_name="__main__")["report"]
    assert isinstance(report, RunReport)
    assert (report.status, report.done) == (RunStatus.COMPLETED, wanted.rows), str(report)
    assert_ledger(report)
    first = asked(provider)
    assert first.keys() == wanted.requests.keys()
    assert all(low <= first[model] <= high for model, (low, high) in wanted.requests.items()), first
    again = runpy.run_path(str(EXAMPLES / name), run_name="__main__")["report"]
    assert (again.restored, again.done) == (wanted.rows, wanted.rows)
    assert asked(provider) == first


def test_the_judge_has_drafts_written_again(provider: ProviderProcess) -> None:
    """What the loop is for: some stories are good at once, others are not, and the best draft is what is kept."""
    report = runpy.run_path(str(EXAMPLES / "judge_loop.py"), run_name="__main__")["report"]
    stories: list[Any] = [row["story"] for row in report.results()]
    assert 10 < asked(provider)["gpt-large"] < 30
    assert all(story["text"] and 1 <= story["round"] <= 3 for story in stories)


def test_the_notebook_runs_as_in_a_notebook(provider: ProviderProcess, capsys: pytest.CaptureFixture[str]) -> None:
    """Cell by cell in one namespace, with a loop that runs already, in which cells may await."""
    notebook = json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells), "commit it without outputs"

    async def run_all() -> dict[str, Any]:
        scope: dict[str, Any] = {"__name__": "__main__"}
        for cell in cells:
            code = compile("".join(cell["source"]), cell["id"], "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            awaitable = eval(code, scope)
            if awaitable is not None:
                await awaitable
        return scope

    scope = anyio.run(run_all)
    assert [row["thing"] for row in scope["results"]] == scope["things"]
    assert (scope["report"].status, scope["report"].done) == (RunStatus.COMPLETED, 4)
    assert asked(provider) == {"gpt-small": 8}
    assert capsys.readouterr().out.count("done") > 4
