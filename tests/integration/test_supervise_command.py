"""``headgate supervise`` with real lives: a task that kills them, signals, a supervisor that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from typer.testing import CliRunner

from headgate.cli.app import app
from headgate.storage import PostgresStore, SqliteStore
from tests.integration.postgres_server import shared_server
from tests.integration.warm_children import WarmChild

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROGRAM = Path(__file__).with_name("supervised_program.py")
QUICK = """[restart]
first_pause = 0.05
longest_pause = 0.05
poll = 0.05
lease = 1.0
timeout = 5.0
poison_cycles = 2
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("HEADGATE_STORE", raising=False)
    Path("restart.toml").write_text(QUICK, encoding="utf-8")


def headgate_says(*arguments: object) -> tuple[int, str, str]:
    """In this process: only the lives are processes of their own."""
    result = CliRunner().invoke(app, [str(one) for one in arguments], prog_name="headgate")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def wait_for(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < until, "nothing comes of it"
        time.sleep(0.02)


def outcomes() -> int:
    return SqliteStore("tickets.db").count_outcomes("tickets") if Path("pid").exists() else 0


def supervisor(**env: str) -> WarmChild:
    """One in a process of its own, whose lives work on one row at a time."""
    command = [sys.executable, "-m", "headgate", "supervise", str(PROGRAM), f"{PROGRAM}:rows"]
    options = ("--restart", "restart.toml", "--set", "local_workers=1", "--no-progress")
    return WarmChild([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **env})


@pytest.fixture
def database() -> Iterator[str]:
    """The address of an empty PostgreSQL database."""
    server = shared_server()
    server.execute("CREATE DATABASE supervised")
    try:
        yield server.address(database="supervised")
    finally:
        server.execute("DROP DATABASE supervised WITH (FORCE)")


def test_a_task_that_kills_its_process_is_found_out_and_set_aside() -> None:
    """Nobody names it but the engine: it was at work each time. What it stands beside is done."""
    Path("poison").touch()
    code, out, err = headgate_says(
        *("supervise", PROGRAM, f"{PROGRAM}:rows", "--restart", "restart.toml", "--json", "--no-progress"),
        *("--set", "local_workers=1", "--set", "thread_workers=1", "--out", "out.jsonl", "--events", "events.jsonl"),
    )
    assert code == 3, err
    told: dict[str, Any] = json.loads(out)
    assert (told["status"], told["exit_code"], told["lives"]) == ("completed_with_failures", 3, 3)
    assert told["told_by"] is None
    assert told["report"]["failure_counts"] == [{"column": "double", "reason": "set_aside", "count": 1}]
    restarts = told["restarts"]
    assert restarts["quarantined"] == [{"row": 7, "column": "double"}]
    assert [one["action"] for one in restarts["decisions"]] == ["restart", "quarantine"]
    assert [one["progress"] for one in restarts["decisions"]] == [7, 0]
    assert {one["cause"]["where"] for one in restarts["decisions"]} == {"SIGKILL"}
    assert "in flight at the end of 2 cycles running" in restarts["decisions"][1]["answers"][0]["reason"]
    assert Path("out.jsonl").read_text(encoding="utf-8").count("\n") == 39
    said = [json.loads(line) for line in Path("events.jsonl").read_text(encoding="utf-8").splitlines()]
    kinds = [one["kind"] for one in said if one["kind"].startswith(("restart_", "run_started", "run_ended"))]
    again = ["restart_asked", "restart_decided", "restart_done", "run_started"]
    assert kinds == ["run_started", *again, *again, "run_ended"]
    assert [one["action"] for one in said if one["kind"] == "restart_decided"] == ["restart", "quarantine"]
    code, shown, _ = headgate_says("status", "tickets.db", "--decisions")
    assert code == 0
    assert "sets aside: row 7 of double" in shown


def test_signals_are_passed_on_and_nobody_outlives_a_supervisor_that_is_killed() -> None:
    """SIGTERM ends the life in good order. After kill -9 the life ends by itself, and another supervisor goes on."""
    Path("slow").touch()
    with supervisor() as killed:
        wait_for(lambda: outcomes() >= 3)
        killed.kill()
        killed.communicate()
    life = int(Path("pid").read_text(encoding="utf-8"))
    wait_for(lambda: not _lives(life))
    before = outcomes()
    assert 3 <= before < 40
    with supervisor() as ended:
        wait_for(lambda: outcomes() > before)
        ended.send_signal(signal.SIGTERM)
        out, err = ended.communicate(timeout=60)
    assert ended.returncode == 130, err
    assert "run tickets: stopped" in out
    assert "supervised: stopped after 1 life\n" in out
    assert SqliteStore("tickets.db").read_info("tickets").status == "stopped"


def test_of_two_supervisors_of_one_run_the_later_one_has_it(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On PostgreSQL. The life of the first is fenced out, which no restart cures: it says who has the run, and ends."""
    monkeypatch.setenv("HEADGATE_STORE", database)
    for name in ("slow", "hold"):
        Path(name).touch()
    store = PostgresStore(database)

    def gained() -> int:
        return store.count_outcomes("tickets") if Path("pid").exists() else 0

    with supervisor(HOLDS="from row 5 on") as first:
        wait_for(lambda: gained() >= 3)
        code, out, err = headgate_says(
            *("supervise", PROGRAM, f"{PROGRAM}:rows", "--restart", "restart.toml", "--json", "--no-progress")
        )
        assert code == 0, err
        Path("hold").unlink()
        _, said = first.communicate(timeout=60)
    anyio.run(store.aclose)
    assert first.returncode == 1
    assert "headgate: run 'tickets' was opened again (epoch 2); epoch 1 may not write to it any more" in said
    told: dict[str, Any] = json.loads(out)
    assert (told["status"], told["lives"], told["report"]["done"]) == ("completed", 1, 40)
    assert told["report"]["restored"] >= 3
    assert (told["restarts"]["finished"], told["restarts"]["decisions"]) == ("completed", [])


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A child of a process that is gone is reaped by whoever adopts it, here perhaps by nobody.
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text(encoding="ascii").rpartition(")")[2].split()[0] == "Z")
