"""The commands, called in this process: what they show, as text and as JSON, and with which exit code they end."""

from __future__ import annotations

import json
import linecache
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
import pytest
from typer.testing import CliRunner

import headgate
from headgate import values
from headgate.cli.app import app
from headgate.cli.durations import seconds
from headgate.cli.exit_codes import EXIT_CODES
from headgate.storage import FileStore, SqliteStore

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import headgate
from headgate import FailureKind

pipeline = headgate.Pipeline("tickets")
LOUD = "1"

@pipeline.column(version=LOUD)
def shout(text: str) -> str:
    print("shouting", text)
    if "bad" in text:
        raise ValueError("no good | at all")
    return text.upper()

@pipeline.column(when=lambda shout: len(shout) > 1)
def size(shout: str) -> int:
    return len(shout)
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
    # A program that is edited within a second to the same length would still be the one that was compiled before.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delenv("HEADGATE_STORE", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))  # no command reaches a run that goes on here
    write_program()
    Path("rows.jsonl").write_text('{"text": "a"}\n{"text": "bbb"}\n{"text": "bad"}\n', encoding="utf-8")
    yield
    sys.modules.pop("program_cli", None)


def write_program(before: str = "", after: str = "") -> None:
    """The program, as it is or edited; the next command loads it anew."""
    sys.modules.pop("program_cli", None)
    linecache.clearcache()
    Path("program_cli.py").write_text(PROGRAM.replace(before, after), encoding="utf-8")


def test_plan_says_what_run_then_does_and_resume_what_is_left() -> None:
    plan = headgate_says("plan", "program_cli.py", "rows.jsonl")
    assert plan.code == 0
    assert plan.out.startswith("run tickets begins: 3 rows, 6 cells to run, 0 of them by models\n")
    assert not Path("tickets.db").exists(), "a plan made a store"
    ran = headgate_says("run", "program_cli.py", "rows.jsonl", "--out", "out.jsonl")
    assert ran.code == 3
    assert "run tickets: completed_with_failures" in ran.out
    assert "out.jsonl: 2 rows; out.unfinished.jsonl: 1 not finished" in ran.out
    assert [json.loads(line)["size"] for line in Path("out.jsonl").read_text().splitlines()] == [None, 3]
    again = headgate_says("plan", "program_cli", "rows.jsonl", "--json", "--retry-failed").data
    assert {one["column"]: (one["done"], one["to_run"], one["retried"]) for one in again["columns"]} == {
        "shout": (2, 1, 1),
        "size": (1, 1, 1),
    }
    write_program('if "bad" in text', 'if "worse" in text')
    assert headgate_says("resume", "program_cli.py", "rows.jsonl").code == 3, "what failed stays failed"
    resumed = headgate_says("resume", "program_cli.py", "rows.jsonl", "--retry-failed", "--json")
    assert (resumed.code, resumed.data["status"], resumed.data["restored"]) == (0, "completed", 2)
    assert "shouting bad" in resumed.err, "what the pipeline prints does not mix with JSON"
    write_program('LOUD = "1"', 'LOUD = "2"')
    changed = headgate_says("plan", "program_cli.py", "rows.jsonl", "--json").data
    assert {one["column"]: (one["changed"], one["change"]) for one in changed["columns"]} == {
        "shout": (3, ["version", "function"]),
        "size": (3, ["upstream"]),
    }
    assert (changed["known"], changed["to_run"], changed["model_cells"]) == (True, 6, 0)
    assert headgate_says("plan", "program_cli.py", "rows.jsonl", "--on-change", "refuse").code == 1


def test_the_plan_is_a_table_whose_numbers_stand_below_their_headings() -> None:
    headgate_says("run", "program_cli.py", "rows.jsonl")
    write_program('LOUD = "1"', 'LOUD = "2"')
    _, headings, shout, size, perhaps, notice = headgate_says("plan", "program_cli.py", "rows.jsonl").out.splitlines()
    at = headings.index("to run") + len("to run")
    assert [line[:at].split()[-1] for line in (shout, size)] == ["3", "3"]
    assert perhaps == "  fewer, if conditions spare some: up to size 3"
    assert "shout (version" in notice


def test_status_and_report_show_what_the_store_knows() -> None:
    headgate_says("run", "program_cli.py", "rows.jsonl", "--store", "runs/", "--run", "one")
    status = headgate_says("status", "runs")
    assert status.code == 0
    assert "rows: 3 = 2 whole + 1 failed + 0 held + 0 pending" in status.out
    assert isinstance(headgate_says("status", "runs/", "--json").data["created_at"], float)
    report = headgate_says("report", "runs")
    assert "shout: 1 x bug" in report.out
    assert "row 2, shout: bug: no good | at all" in report.out
    markdown = headgate_says("report", "runs", "--markdown").out
    assert markdown.startswith("# Run one: completed with failures\n")
    assert "| 2 | shout | bug | no good \\| at all | 1 | \u2013 |" in markdown
    data = headgate_says("report", "runs", "--json").data
    assert data["failure_counts"] == [{"column": "shout", "reason": "bug", "count": 1}]
    assert [(one["column"], one["done"], one["open"]) for one in data["columns"]] == [("shout", 2, 0), ("size", 1, 0)]
    headgate_says("run", "program_cli.py", "rows.jsonl", "--store", "runs/", "--run", "two")
    both = headgate_says("status", "runs")
    assert [line.split()[:3] for line in both.out.splitlines()[1:]] == [
        ["one", "completed_with_failures", "3"],
        ["two", "completed_with_failures", "3"],
    ]
    assert [one["run"] for one in headgate_says("status", "runs", "--json").data["runs"]] == ["one", "two"]
    assert headgate_says("report", "runs").err == (
        "headgate: store 'runs' has 2 runs, say which with --run: one, two\n"
    )
    assert headgate_says("report", "runs", "--run", "two").code == 0
    assert headgate_says("report", "runs", "--run", "two", "--json", "--markdown").code == 2


def test_export_writes_both_files() -> None:
    headgate_says("run", "program_cli.py", "rows.jsonl")
    exported = headgate_says("export", "tickets.db", "some.jsonl", "--columns", "shout", "--json")
    assert exported.data == {
        "path": "some.jsonl",
        "rows": 2,
        "unfinished": 1,
        "unfinished_path": "some.unfinished.jsonl",
    }
    assert json.loads(Path("some.jsonl").read_text().splitlines()[1]) == {"text": "bbb", "shout": "BBB"}
    assert headgate_says("export", "tickets.db", "some.parquet").out.startswith("some.parquet: 2 rows;")
    for wrong, said in (("some.txt", ".jsonl or .parquet"), ("nowhere/some.jsonl", "its folder does not exist")):
        told = headgate_says("export", "tickets.db", wrong)
        assert (told.code, said in told.err) == (1, True)
    assert "has no column 'nope'" in headgate_says("export", "tickets.db", "x.jsonl", "--columns", "nope").err


def test_sweep_drops_what_ended_and_never_what_goes_on() -> None:
    headgate_says("run", "program_cli.py", "rows.jsonl", "--store", "s.db", "--run", "over")

    async def cut_off() -> None:
        store = SqliteStore("s.db")
        await store.open_run("alive", {})
        held = await store.open_run("held", {})
        await held.finish("held")
        await store.aclose()

    anyio.run(cut_off)
    assert headgate_says("sweep", "s.db", "--keep", "1h").out == "removed 0 runs; 0 files that nothing refers to\n"
    dry = headgate_says("sweep", "s.db", "--keep", "0", "--dry-run", "--json").data
    assert dry == {"dry_run": True, "runs": ["over"], "leftovers": 0}
    assert headgate_says("sweep", "s.db", "--keep", "0", "--dry-run").out == "would remove 1 runs: over\n"
    assert headgate_says("sweep", "s.db", "--keep", "0", "--json").data["runs"] == ["over"]
    assert headgate_says("sweep", "s.db", "--keep", "0", "--status", "held").out.startswith("removed 1 runs: held;")
    assert [one["run"] for one in [headgate_says("status", "s.db", "--json").data]] == ["alive"]
    refused = headgate_says("sweep", "s.db", "--keep", "0", "--status", "running")
    assert refused.code == 2, "a run that goes on can be named, as if it could be dropped"
    assert headgate_says("sweep", "s.db").code == 2, "how long to keep runs is not guessed"
    assert headgate_says("sweep", "s.db", "--keep", "a while").code == 2


def test_a_store_is_a_file_a_directory_or_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    headgate_says("run", "program_cli.py", "rows.jsonl", "--store", "runs/")
    assert FileStore("runs").read_runs() == ("tickets",)
    monkeypatch.setenv("HEADGATE_STORE", "other.db")
    headgate_says("run", "program_cli.py", "rows.jsonl", "--run", "named")
    assert SqliteStore("other.db").read_runs() == ("named",)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("plan nope.py rows.jsonl", "there is no file 'nope.py'"),
        ("plan program_cli.py rows.jsonl --store nowhere/s.db", "does not exist; make it first"),
        ("run program_cli.py nope.jsonl", "there is no such file"),
        ("run program_cli.py 3", "parameter 'text' is neither a column nor an input field"),
        (
            "run program_cli.py others.jsonl",
            "parameter 'text' is neither a column nor an input field; there are: size, words",
        ),
        ("run program_cli.py rows.jsonl --limits nope.toml", "nope.toml"),
        ("run program_cli.py rows.jsonl --out x.csv", ".jsonl or .parquet"),
        ("run program_cli.py rows.jsonl --store mysql://me:secret@host/db", "store 'mysql://...'"),
        ("run program_cli.py rows.jsonl --store nowhere/s.db", "does not exist; make it first"),
        ("run program_cli.py rows.jsonl --set nope=3", "unknown option 'nope'"),
        ("run program_cli.py rows.jsonl --set group_size=x", "group_size must be a whole number"),
        ("run program_cli.py rows.jsonl --row-id nope", "no field 'nope'"),
        ("resume program_cli.py rows.jsonl --store nope.db", "there is no such file or directory"),
        ("status nope.db", "there is no such file or directory"),
        ("status rows.jsonl", "is not a database"),
        ("report .", "a directory without a store"),
        ("sweep nope.db --keep 0", "there is no such file or directory"),
    ],
)
def test_a_mistake_is_told_in_one_line_and_makes_nothing(arguments: str, said: str) -> None:
    Path("others.jsonl").write_text('{"words": "a"}', encoding="utf-8")
    before = sorted(path.name for path in Path().iterdir())
    told = headgate_says(*arguments.split())
    assert told.code == 1, told
    assert told.out == ""
    assert re.fullmatch(r"headgate: .*\n", told.err), told.err
    assert said in told.err
    assert "secret" not in told.err
    made = {path.name for path in Path().iterdir()} - {*before, "__pycache__"}
    # The engine has looked at its store before it looks at these.
    assert made <= ({"tickets.db"} if "--set" in arguments or "--row-id" in arguments else set())


def test_a_run_that_is_not_there_is_not_begun_by_resume() -> None:
    headgate_says("run", "program_cli.py", "rows.jsonl")
    told = headgate_says("resume", "program_cli.py", "rows.jsonl", "--run", "ticktes")
    assert (told.code, told.err) == (
        1,
        "headgate: store 'tickets.db' has no run 'ticktes' to resume; it has: tickets\n",
    )
    assert SqliteStore("tickets.db").read_runs() == ("tickets",)


def test_an_error_shows_its_traceback_when_asked_for() -> None:
    with pytest.raises(headgate.ConfigError, match="there is no file"):
        headgate_says("--traceback", "plan", "nope.py", "3")


def test_a_run_past_its_deadline_says_by_which_command_it_goes_on() -> None:
    write_program("return text.upper()", "import time; time.sleep(0.05); return text.upper()")
    command = (
        "run program_cli.py rows.jsonl --store s.db --run mine --row-id text --deadline 0 --set group_size=2 --grace 0"
    )
    told = headgate_says(*command.split())
    assert told.code == 4
    expected = "headgate resume program_cli.py rows.jsonl --run mine --row-id text --set group_size=2 --store s.db"
    assert told.out.splitlines()[-1] == f"  resume: {expected}"
    assert headgate_says(*expected.split()[1:]).code == 3
    again = headgate_says(*command.split(), "--json")
    assert again.data["exit_code"] == again.code


def test_the_demonstration_is_the_same_each_time_and_keeps_nothing() -> None:
    first, again, other = (headgate_says("demo", "--rows", 60, "--seed", seed, "--json") for seed in (5, 5, 6))
    assert first == again != other
    assert (first.code, first.data["done"], first.data["failed"]) == (0, 60, 0)
    told = headgate_says("demo", "--rows", 60)
    assert "run demo: completed after" in told.out
    assert "No request left this machine" in told.out
    assert {path.name for path in Path().iterdir()} == {"program_cli.py", "rows.jsonl"}
    assert headgate_says("demo", "--rows", 0).code == 2


# What is documented


def commands() -> list[str]:
    listed = headgate_says("--help").out.split("Commands:")[1].split("Exit codes")[0]
    return re.findall(r"^  (\w+) ", listed, re.MULTILINE)


def test_every_command_has_help_with_examples_that_name_it() -> None:
    names = ["plan", "run", "resume", "supervise", "simulate", "status", "report", "export", "sweep", "demo", "ctl"]
    assert commands() == names
    for command in commands():
        told = headgate_says(command, "--help")
        assert told.code == 0
        assert re.search(rf"Examples:\n +headgate {command}\b", told.out), told.out
        assert "--json" in told.out


def test_the_defaults_that_the_help_names_are_those_of_a_run() -> None:
    told = " ".join(headgate_says("run", "--help").out.split())
    options = headgate.RunOptions()
    for option, default in (("patience", options.patience), ("grace", options.grace)):
        (shown,) = re.findall(rf"--{option} TIME [^\[]*\[default: (\w+)\]", told)
        assert seconds(shown) == default, option
    (attempts,) = re.findall(r"--max-attempts N [^\[]*\[default: (\d+)\]", told)
    assert int(attempts) == options.max_attempts


def test_examples_of_the_help_are_taken() -> None:
    """Their options are there; what they name is not."""
    for command in commands():
        for example in re.findall(r"^ +headgate (.+?)(?: >.*)?$", headgate_says(command, "--help").out, re.MULTILINE):
            assert headgate_says(*example.split()).code in {0, 1, 3}, example


def test_exit_codes_are_those_of_the_page_and_of_the_help() -> None:
    statuses = {status.exit_code for status in headgate.RunStatus}
    assert statuses | {1, 2, 7} == EXIT_CODES.keys()
    assert set(values.EXIT_CODES.values()) | {2} == EXIT_CODES.keys()
    page = (ROOT / "architecture" / "cli.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^\| exit code \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", page, re.MULTILINE)
    shown = {int(code): meaning for code, meaning in re.findall(r"^\| (\d+) \| (.*) \|$", table, re.MULTILINE)}
    assert shown == EXIT_CODES
    told = headgate_says("--help").out
    for code, meaning in EXIT_CODES.items():
        assert f"  {code:<3} {meaning}\n" in told


def test_the_version() -> None:
    assert headgate_says("--version").out == f"headgate {headgate.__version__}\n"
    assert headgate_says().code == 2
    assert headgate_says("nope").code == 2


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_half_a_character_in_a_failure_ends_no_command(form: tuple[str, ...]) -> None:
    """A provider's words, cut in the middle of a surrogate pair: no encoding takes them, so they are written out."""
    Path("halves.py").write_text(
        "import headgate\n\npipeline = headgate.Pipeline('halves')\n\n\n"
        "@pipeline.column\ndef said(n: int) -> str:\n    raise ValueError('half \\ud83d')\n\n\n"
        "@pipeline.column(when=lambda n: {}['half \\ud83d'])\ndef asked(n: int) -> str:\n    return ''\n\n\n"
        "rows = [{'n': 1}]\n",
        encoding="utf-8",
    )
    told = headgate_says("run", "halves.py", "halves.py:rows", *form)
    assert told.code == 3, told.err
    assert "half \\ud83d" in (told.data["failures"][0]["message"] if form else told.out)
    assert headgate_says("report", "halves.db", *form).code == 0


def test_what_happens_is_written_to_a_file() -> None:
    told = headgate_says("run", "program_cli.py", "rows.jsonl", "--events", "events.jsonl")
    assert told.code == 3
    said = [json.loads(line) for line in Path("events.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [said[0]["kind"], said[-1]["kind"]] == ["run_started", "run_ended"]
    twice = headgate_says("run", "program_cli.py", "rows.jsonl", "--events", "a.jsonl", "--set", "events=b.jsonl")
    assert twice.code == 2
    assert "events is given twice" in twice.err
