"""Commands about restarts, called in this process: what was decided, runs that are closed, mistakes before a life."""

from __future__ import annotations

import sys
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from headgate.cli import supervise_command
from headgate.cli.arguments import settings_of
from headgate.restart import (
    Answer,
    CallableSource,
    Cause,
    ChildStart,
    Cycle,
    Failure,
    LifeEnd,
    RestartConfig,
    RestartCoordinator,
    Verdict,
)
from headgate.storage import SqliteStore
from tests.unit.test_cli_commands import PROGRAM, headgate_says

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


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
        (("--set", "stall_timeout=0"), "--stall-timeout must be more than zero seconds"),
        (("--set", "grace=10s"), "--set grace must be a number of seconds, not '10s'"),
        (("--set", "events=3"), "events must be a path, a function, or a list of them, not 3"),
        (("--events", "nowhere/events.jsonl"), "events cannot be written to 'nowhere/events.jsonl'"),
        (("--set", "grace=-1"), "grace must be zero or more seconds"),
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


class Lives:
    """In place of processes: what they would have been begun with. The first has finished at once."""

    said = None
    stall_timeout_s = grace_s = deadline_s = 0.0
    words: Sequence[str] = ()

    def __init__(self, command: Callable[[ChildStart], Sequence[str]], *_: object, **times: Any) -> None:
        Lives.words = command(ChildStart(Path("life"), inf))
        Lives.stall_timeout_s, Lives.grace_s = times["stall_timeout_s"], times["grace_s"]
        Lives.deadline_s = times["deadline_s"]

    async def live(self, _: object) -> LifeEnd:
        return LifeEnd("completed")


@pytest.mark.parametrize(
    ("arguments", "stall_timeout_s", "grace_s"),
    [
        ((), 7200.0, 10.0),
        (("--stall-timeout", "5h", "--grace", "60s"), 18000.0, 60.0),
        (("--set", "stall_timeout=18000", "--set", "grace=60"), 18000.0, 60.0),
        (("--set", "grace=60", "--grace", "20s", "--stall-timeout", "1m"), 60.0, 20.0),
        (("--stall-timeout", "inf"), inf, 10.0),
    ],
)
def test_a_supervisor_and_its_lives_have_the_same_times(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], stall_timeout_s: float, grace_s: float
) -> None:
    """Neither halts the life before the other would; it is killed when its own grace is over, not within it."""
    monkeypatch.setattr(supervise_command, "ProcessLives", Lives)
    assert headgate_says("supervise", "program_cli.py", "rows.jsonl", *arguments).code == 0
    assert (Lives.stall_timeout_s, Lives.grace_s) == (stall_timeout_s, grace_s + 5.0)
    values = dict(pairwise(Lives.words))
    sets = settings_of([value for option, value in pairwise(Lives.words) if option == "--set"])
    assert sets["stall_timeout"] == stall_timeout_s
    assert float(values["--grace"] if "--grace" in values else sets.get("grace", 10.0)) == grace_s


@pytest.mark.parametrize(
    ("arguments", "deadline_s"),
    [
        ((), inf),
        (("--deadline", "2h"), 7200.0),
        (("--set", "deadline=60"), 60.0),
        (("--set", "deadline=60", "--deadline", "30s"), 30.0),
    ],
)
def test_the_deadline_is_that_of_all_lives_however_it_is_given(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], deadline_s: float
) -> None:
    monkeypatch.setattr(supervise_command, "ProcessLives", Lives)
    assert headgate_says("supervise", "program_cli.py", "rows.jsonl", *arguments).code == 0
    assert Lives.deadline_s == deadline_s


def test_only_a_supervisor_begins_lives() -> None:
    told = headgate_says("run", "program_cli.py", "rows.jsonl", "--life", "nowhere")
    assert told.code == 1
    assert "not the directory of a life" in told.err
