"""Commands about restarts, called in this process: what was decided, runs that are closed, mistakes before a life."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from headgate.restart import (
    Answer,
    CallableSource,
    Cause,
    Cycle,
    Failure,
    RestartConfig,
    RestartCoordinator,
    Verdict,
)
from headgate.storage import SqliteStore
from tests.unit.test_cli_commands import PROGRAM, headgate_says

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("HEADGATE_STORE", raising=False)
    Path("program_cli.py").write_text(PROGRAM, encoding="utf-8")
    Path("rows.jsonl").write_text('{"text": "a"}\n{"text": "bad"}\n', encoding="utf-8")
    yield
    sys.modules.pop("program_cli", None)


def closed_by(status: str) -> None:
    """The run in the store has been told to end, by one failed cycle and a source that says STOP."""

    async def source(cycle: Cycle) -> Answer:
        return Answer(Verdict.STOP if status == "told_to_stop" else Verdict.RESTART, reason=f"{cycle.run} is broken")

    async def main() -> None:
        store = SqliteStore("tickets.db")
        config = RestartConfig(budget=0 if status == "budget_exhausted" else 5, poll=0.01)
        sources = [CallableSource(source)]
        async with RestartCoordinator("tickets", store, sources=sources, config=config) as coordinator:
            await coordinator.enter()
            coordinator.failed(Failure(Cause("crash")))
            assert (await coordinator.decision()).action.value == status
        await store.aclose()

    anyio.run(main)


@pytest.mark.parametrize("status", ["told_to_stop", "budget_exhausted"])
def test_a_run_that_was_told_to_stop_goes_on_when_it_is_reopened_and_not_before(status: str) -> None:
    headgate_says("run", "program_cli.py", "rows.jsonl")
    before = headgate_says("status", "tickets.db", "--decisions")
    assert (before.code, before.out) == (0, "run tickets: nothing was ever decided about it\n")
    closed_by(status)
    for command in ("run", "resume"):
        told = headgate_says(command, "program_cli.py", "rows.jsonl")
        assert told.code == 1
        assert f"closed by the decision on cycle 1, {status}" in told.err
    shown = headgate_says("status", "tickets.db", "--decisions")
    assert f"cycle 1: {status}" in shown.out
    assert headgate_says("resume", "program_cli.py", "rows.jsonl", "--reopen", "--retry-failed").code == 3
    assert headgate_says("resume", "program_cli.py", "rows.jsonl").code == 3
    record = headgate_says("status", "tickets.db", "--decisions", "--json").data["restarts"]
    assert (record["cycle"], record["closed"], record["fruitless"]) == (2, False, 0)
    assert [(one["action"], one["would_be"]) for one in record["decisions"]] == [(status, None)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--restart", "none.toml"), "none.toml: cannot be read"),
        (("--restart", "wrong.toml"), "wrong.toml [restart]: budgett: unknown, did you mean 'budget'?"),
        (("--budget", "-1"), "budget = -1"),
        (("--stall-timeout", "0"), "--stall-timeout must be more than zero seconds"),
        (("--max-attempts", "0"), "max_attempts must be a whole number from 1 on"),
        (("--limits", "none.toml"), "none.toml"),
        (("--out", "out.txt"), "out.txt"),
        (("--store", "nowhere/run.db"), "nowhere"),
    ],
)
def test_a_mistake_is_told_before_a_life_begins(arguments: tuple[str, ...], said: str) -> None:
    Path("wrong.toml").write_text("[restart]\nbudgett = 3\n", encoding="utf-8")
    told = headgate_says("supervise", "program_cli.py", "rows.jsonl", *arguments)
    assert told.code == 1
    assert said in told.err
    assert told.out == ""
    assert len(told.err.splitlines()) == 1
    assert not Path("tickets.db").exists()


def test_only_a_supervisor_begins_lives() -> None:
    told = headgate_says("run", "program_cli.py", "rows.jsonl", "--life", "nowhere")
    assert told.code == 1
    assert "not the directory of a life" in told.err
