"""The real command in processes of its own, against a provider on loopback: Ctrl-C, kill, resume, the missing extra."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import pytest

from headgate.storage import CellStatus, SqliteStore
from headgate.testing.provider import (
    Capacity,
    Fault,
    Faults,
    Latency,
    ModelSpec,
    OutputTokens,
    ProviderProcess,
    ProviderSpec,
)
from tests.integration.postgres_server import shared_server
from tests.integration.warm_children import WarmChild
from tests.integration.warm_servers import WarmProvider

PROGRAM = Path(__file__).with_name("cli_program.py")
COMMAND = Path(sysconfig.get_path("scripts")) / "headgate"
LIMITS = '["openai/m"]\nconcurrency = 8\n'
ROWS = 200


def served(latency_s: float = 0.1, **faults: Fault) -> ProviderSpec:
    """A row whose prompt holds a key of ``faults`` meets that fault."""
    poison = {f"number {row.removeprefix('row_')} ": fault for row, fault in faults.items()}
    model = ModelSpec(
        latency=Latency(mean_s=latency_s), output_tokens=OutputTokens(mean=5), faults=Faults(poison=poison)
    )
    return ProviderSpec(models={"m": model}, seed=5)


def start(folder: Path, provider: ProviderProcess | None, *arguments: object) -> WarmChild:
    surroundings = {**os.environ, "MODEL_URL": provider.base_url if provider else "http://127.0.0.1:9/v1"}
    surroundings.pop("HEADGATE_STORE", None)
    (folder / "limits.toml").write_text(LIMITS, encoding="utf-8")
    return WarmChild(
        [COMMAND, *map(str, arguments)],
        cwd=folder,
        env=surroundings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        imports=["headgate.cli.app", "openai.resources.chat"],
    )


def headgate_says(folder: Path, provider: ProviderProcess | None, *arguments: object) -> tuple[int, str, str]:
    with start(folder, provider, *arguments) as child:
        out, err = child.communicate(timeout=120)
    return child.wait(), out, err


def data(told: tuple[int, str, str]) -> Any:
    return json.loads(told[1])


def wait_for_done(store: Path, cells: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if done_cells(store) >= cells:
            return
        time.sleep(0.02)
    raise AssertionError("the run does not get on")


def done_cells(store: Path) -> int:
    if not store.exists():
        return 0
    reader = SqliteStore(store)
    rows = reader.read_rows("tickets") if "tickets" in reader.read_runs() else ()
    return sum(cell.status is CellStatus.DONE for row in rows for cell in row.cells)


def test_a_run_from_the_plan_to_the_export(tmp_path: Path) -> None:
    """Planned, run, looked at, written to a file, swept: by commands alone."""
    with WarmProvider(served(0.01)) as provider:
        code, out, _ = headgate_says(tmp_path, provider, "plan", PROGRAM, 20)
        assert (code, out.splitlines()[0]) == (0, "run tickets begins: 20 rows, 40 cells to run, 40 of them by models")
        assert provider.stats().models["m"].requests == 0
        ran = headgate_says(
            tmp_path, provider, "run", PROGRAM, 20, "--limits", "limits.toml", "--json", "--no-progress"
        )
        assert ran[0] == 0, ran
        report = data(ran)
        assert (report["done"], report["resources"][0]["requests"]) == (20, 40)
        assert "judging 3\n" in ran[2], "what the pipeline prints goes to standard error"
        again = headgate_says(tmp_path, provider, "plan", PROGRAM, 30, "--json")
        assert {one["column"]: (one["done"], one["to_run"]) for one in data(again)["columns"]} == {
            "answer": (20, 10),
            "verdict": (20, 10),
        }
        more = headgate_says(tmp_path, provider, "resume", PROGRAM, 30, "--out", "all.jsonl", "--progress")
        assert more[0] == 0, more
        assert "all.jsonl: 30 rows" in more[1]
        assert "tickets: 30 of 30 rows done" in more[2], "no progress was shown"
        assert provider.stats().models["m"].requests == 60
    overview = data(headgate_says(tmp_path, None, "report", "tickets.db", "--json"))
    assert [(one["done"], one["usage"]["output_tokens"] > 0) for one in overview["columns"]] == [(30, True)] * 2
    code, out, _ = headgate_says(tmp_path, None, "export", "tickets.db", "all.parquet")
    assert (code, out) == (0, "all.parquet: 30 rows\n")
    assert headgate_says(tmp_path, None, "sweep", "tickets.db", "--keep", "0s")[1].startswith(
        "removed 1 runs: tickets;"
    )


def test_ctrl_c_once_ends_in_good_order_and_names_the_command_that_resumes(tmp_path: Path) -> None:
    store = tmp_path / "tickets.db"
    with WarmProvider(served()) as provider:
        with start(tmp_path, provider, "run", PROGRAM, ROWS, "--limits", "limits.toml", "--grace", "30s") as child:
            wait_for_done(store, 16)
            child.send_signal(signal.SIGINT)
            out, err = child.communicate(timeout=60)
        assert child.returncode == 130, err
        assert "Traceback" not in err
        assert "run tickets: stopped" in out
        stats = provider.stats().models["m"]
        assert stats.statuses == {"200": stats.requests}, "what was in flight was cancelled"
        assert done_cells(store) == stats.answered < 2 * ROWS
        command = out.splitlines()[-1].removeprefix("  resume: headgate ")
        assert command == f"resume {PROGRAM} {ROWS} --limits limits.toml --store tickets.db"
        provider.control("m", Capacity(faults=Faults(), latency=Latency(mean_s=0.01)))
        code, out, err = headgate_says(tmp_path, provider, *command.split())
        assert code == 0, err
        stats = provider.stats().models["m"]
    assert (stats.answered, stats.answered_again) == (2 * ROWS, 0)


def test_ctrl_c_once_with_json_leaves_one_object_on_standard_output(tmp_path: Path) -> None:
    command = ("run", PROGRAM, ROWS, "--limits", "limits.toml", "--json")
    with WarmProvider(served()) as provider, start(tmp_path, provider, *command) as child:
        wait_for_done(tmp_path / "tickets.db", 8)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    report = json.loads(out)
    assert (report["status"], report["exit_code"]) == ("stopped", 130)
    assert report["resume"].startswith("headgate resume ")


def test_ctrl_c_twice_leaves_at_once(tmp_path: Path) -> None:
    """A request that hangs, and a grace of ten minutes that nobody waits for."""
    command = ("run", PROGRAM, ROWS, "--limits", "limits.toml", "--grace", "10m")
    with WarmProvider(served(row_9=Fault.HANG)) as provider, start(tmp_path, provider, *command) as child:
        wait_for_done(tmp_path / "tickets.db", 24)
        child.send_signal(signal.SIGINT)
        time.sleep(1.5)
        assert child.poll() is None, "it did not wait for what is in flight"
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "Traceback" not in err


def test_a_run_that_was_killed_is_planned_and_resumed(tmp_path: Path) -> None:
    """D5: what was committed is not asked again; the plan of the rest is what the resume then asks."""
    store = tmp_path / "tickets.db"
    with WarmProvider(served()) as provider:
        with start(tmp_path, provider, "run", PROGRAM, ROWS, "--limits", "limits.toml") as child:
            wait_for_done(store, 24)
            child.kill()
            child.communicate(timeout=60)
        status = data(headgate_says(tmp_path, None, "status", "tickets.db", "--json"))
        assert status["status"] == "running", "nobody has told the store"
        provider.control("m", Capacity(faults=Faults(), latency=Latency(mean_s=0.01)))
        plan = data(headgate_says(tmp_path, provider, "plan", PROGRAM, ROWS, "--json"))
        assert plan["to_run"] == 2 * ROWS - done_cells(store)
        before = provider.stats().models["m"].requests
        told = headgate_says(tmp_path, provider, "resume", PROGRAM, ROWS, "--limits", "limits.toml", "--json")
        assert told[0] == 0, told
        assert provider.stats().models["m"].requests - before == plan["to_run"]


def test_neither_a_plan_nor_a_sweep_disturbs_a_run_that_goes_on(tmp_path: Path) -> None:
    """One row hangs, so the run goes on until it is told to stop."""
    store = tmp_path / "tickets.db"
    with WarmProvider(served(0.05, row_9=Fault.HANG)) as provider:
        with start(tmp_path, provider, "run", PROGRAM, ROWS, "--limits", "limits.toml", "--grace", "0") as child:
            wait_for_done(store, 16)
            plan = data(headgate_says(tmp_path, provider, "plan", PROGRAM, ROWS, "--json"))
            assert 2 <= plan["to_run"] <= 2 * ROWS - 16
            assert headgate_says(tmp_path, None, "sweep", "tickets.db", "--keep", "0")[1].startswith("removed 0 runs")
            wait_for_done(store, 2 * ROWS - 2)
            plan = data(headgate_says(tmp_path, provider, "plan", PROGRAM, ROWS, "--json"))
            assert plan["to_run"] == 2
            child.send_signal(signal.SIGINT)
            _, err = child.communicate(timeout=60)
        assert child.returncode == 130, err


def test_failed_and_held_rows_have_their_exit_codes(tmp_path: Path) -> None:
    with WarmProvider(served(0.01, row_3=Fault.BAD_REQUEST, row_12=Fault.HANG)) as provider:
        failed = headgate_says(tmp_path, provider, "run", PROGRAM, 8, "--json")
        assert (failed[0], data(failed)["status"], data(failed)["failed"]) == (3, "completed_with_failures", 1)
        held = headgate_says(tmp_path, provider, "run", PROGRAM, 16, "--deadline", "2s", "--grace", "0", "--json")
        assert (held[0], data(held)["status"], data(held)["failed"]) == (4, "held", 1)
        assert data(held)["held"] >= 1
    report = data(headgate_says(tmp_path, None, "report", "tickets.db", "--json"))
    assert report["failure_counts"] == [{"column": "answer", "reason": "rejected", "count": 1}]
    assert report["status"] == "held"


SCRIPT = """
import headgate
from pydantic import BaseModel

pipeline = headgate.Pipeline("both")
PROMPT = "Say {row}"

class Said(BaseModel):
    text: str

@pipeline.column
def say(row: int) -> Said:
    return Said(text=PROMPT.format(row=row))

@pipeline.column(when=lambda say: len(say.text) > 2)
def size(say: Said) -> int:
    return len(say.text)

if __name__ == "__main__":
    print(headgate.run(pipeline, 5, store="both.db").done)
"""


@pytest.mark.parametrize("target", ["script.py", "script:pipeline"])
def test_a_run_of_a_script_is_the_same_run_for_the_command(target: str, tmp_path: Path) -> None:
    """D7: a fingerprint does not depend on how the pipeline was loaded."""
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    ran = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout == "5\n"
    plan = data(headgate_says(tmp_path, None, "plan", target, 7, "--json"))
    assert (plan["to_run"], plan["notices"]) == (4, [])


def test_a_store_in_a_database_is_looked_at_by_the_same_commands(tmp_path: Path) -> None:
    server = shared_server()
    server.execute("CREATE DATABASE commands")
    address = server.address(database="commands")
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    plan = headgate_says(tmp_path, None, "plan", "script.py", 5, "--store", address, "--json")
    assert data(plan)["to_run"] == 10
    assert data(headgate_says(tmp_path, None, "status", address, "--json")) == {"runs": []}
    ran = headgate_says(tmp_path, None, "run", "script.py", 5, "--store", address, "--json", "--deadline", "0")
    assert ran[0] in {0, 4}, ran
    assert address not in ran[1] + ran[2]
    assert headgate_says(tmp_path, None, "resume", "script.py", 5, "--store", address)[0] == 0
    assert data(headgate_says(tmp_path, None, "plan", "script.py", 5, "--store", address, "--json"))["to_run"] == 0
    assert data(headgate_says(tmp_path, None, "report", address, "--json"))["whole"] == 5
    assert headgate_says(tmp_path, None, "export", address, "out.jsonl")[1] == "out.jsonl: 5 rows\n"
    assert headgate_says(tmp_path, None, "sweep", address, "--keep", "0")[1].startswith("removed 1 runs: both;")
    lost = headgate_says(tmp_path, None, "status", "postgresql://someone:secret@127.0.0.1:9/nowhere")
    assert (lost[0], lost[1], "secret" in lost[2]) == (1, "", False), lost
    assert lost[2].count("\n") == 1


WITHOUT = """
import sys

class Blocked:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {packages!r}:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Blocked)
from headgate.cli import main
main()
"""


def headgate_without(packages: set[str], folder: Path, *arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, "-c", WITHOUT.format(packages=packages), *arguments]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout, ran.stderr


def test_without_the_extra_one_line_says_how_to_install_it(tmp_path: Path) -> None:
    told = headgate_without({"typer"}, tmp_path, "--help")
    assert told == (1, "", "headgate: the command line needs typer: pip install 'headgate[cli]'\n")


def test_other_extras_are_not_needed_where_they_are_not_used(tmp_path: Path) -> None:
    others = {"aiohttp", "hypothesis", "pyarrow", "psycopg", "pytest", "trio", "openai"}
    assert headgate_without(others, tmp_path, "demo", "--rows", "20", "--json")[0] == 0
    (tmp_path / "rows.parquet").touch()
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    code, _, said = headgate_without(others, tmp_path, "run", "script.py", "rows.parquet")
    assert (code, said) == (
        1,
        "headgate: Parquet needs pyarrow, which is not installed: pip install 'headgate[parquet]'\n",
    )
    code, _, said = headgate_without(others, tmp_path, "status", "postgresql://host/db")
    assert (code, "headgate[postgres]" in said, said.count("\n")) == (1, True, 1), said


def test_the_module_is_the_same_command(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "headgate", "--help"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == headgate_says(tmp_path, None, "--help")[:2]
    assert ran.stdout.startswith("Usage: headgate ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands(shell: str, tmp_path: Path) -> None:
    surroundings = {
        **os.environ,
        "_HEADGATE_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": "headgate re",
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_ARGS": "headgate re",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    ran = subprocess.run([COMMAND], cwd=tmp_path, env=surroundings, capture_output=True, text=True, check=False)
    assert "resume" in ran.stdout
    assert "report" in ran.stdout
    assert "sweep" not in ran.stdout
