"""What the documents say is true of the code: README's examples run, its tables are the code's, no page names a ghost.

The examples run as they stand, against a virtual provider behind OpenAI's clients: no socket is opened.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import json
import re
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

from headgate import RunOptions, RunReport, RunStatus
from headgate.admission import Limits, load_limits
from headgate.engine.column import ColumnOptions
from headgate.restart import Aggregation, load_restart
from headgate.salvage import TABLE, Action, FailureKind
from headgate.testing import ProviderSpec
from headgate.values import EXIT_CODES, ResourceKey

from .. import constants_page
from ..curtain import Curtain

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted((ROOT / "architecture").rglob("*.md"))
PROMISES = (ROOT / "architecture" / "promises.md").read_text(encoding="utf-8")


class Example(NamedTuple):
    """What a Python block of README comes to: rows done and failed."""

    heading: str
    done: int
    failed: int = 0


EXAMPLES = (
    Example("One function over many rows", 3),
    Example("A pipeline", 6),
    Example("The engine", 3),
    Example("What happens to a failed call", 1, failed=1),
    Example("Resume", 150),
    Example("Test your own pipeline", 40),
    Example("Test your own pipeline", 240),
)


def blocks(language: str) -> list[str]:
    """README's fenced blocks of one language, preceded by empty lines so that errors name the right line."""
    found = re.finditer(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return ["\n" * README.count("\n", 0, match.start(1)) + match[1] for match in found]


def heading_above(block: str) -> str:
    before = README.splitlines()[: len(block) - len(block.lstrip("\n"))]
    return next(line.lstrip("# ") for line in reversed(before) if line.startswith("#"))


def table(heading: str) -> dict[str, list[str]]:
    """All tables of README whose first column has this heading: other cells by the first one."""
    bodies = re.findall(rf"^\| {heading} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", README, re.MULTILINE)
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for body in bodies for line in body.splitlines()]
    assert rows, f"no table begins with {heading!r}"
    assert len({row[0] for row in rows}) == len(rows)
    return {row[0]: row[1:] for row in rows}


# The examples


def test_every_example_is_expected() -> None:
    assert [heading_above(block) for block in blocks("python")] == [example.heading for example in EXAMPLES]


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_runs(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it stands, in an empty folder with README's limits in it; what it says that it prints, it prints."""
    example, code = EXAMPLES[number], blocks("python")[number]
    (tmp_path / "limits.toml").write_text(blocks("toml")[0], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    Curtain().draw(monkeypatch)
    scope: dict[str, Any] = {"__name__": "readme"}
    exec(compile(code, "README.md", "exec", dont_inherit=True), scope)
    report = scope["report"] if "report" in scope else scope["found"].final
    assert isinstance(report, RunReport)
    assert (report.done, report.failed, report.held) == (example.done, example.failed, 0), str(report)
    printed = capsys.readouterr().out.splitlines()
    for said in re.findall(r"^print\(.*\)  # (.*)$", code, re.MULTILINE):
        assert said in printed


def test_the_outbox_example_tells_each_row_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one on its page, as it stands; run again it resumes, and tells nothing again."""
    page = (ROOT / "architecture" / "outbox.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    told: list[dict[str, Any]] = []

    def receive(request: httpx2.Request) -> httpx2.Response:
        assert str(request.url) == "https://gateway.example/done"
        told.append(json.loads(request.content))
        return httpx2.Response(200)

    client = functools.partial(httpx2.AsyncClient, transport=httpx2.MockTransport(receive))
    monkeypatch.setattr(httpx2, "AsyncClient", client)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        scope: dict[str, Any] = {"__name__": "outbox"}
        exec(compile(code, "outbox.md", "exec", dont_inherit=True), scope)
        assert scope["report"].done == 5
        assert sorted(one["title"] for one in told) == [f"Topic {number}" for number in range(5)]


def test_the_pipeline_example_writes_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row of the file has the input, the columns in order, and what the group column made of it."""
    (tmp_path / "limits.toml").write_text(blocks("toml")[0], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    Curtain().draw(monkeypatch)
    exec(compile(blocks("python")[1], "README.md", "exec", dont_inherit=True), {"__name__": "readme"})
    rows = [json.loads(line) for line in Path("tickets.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["topic"] for row in rows] == [f"topic {n}" for n in range(6)]
    assert all(list(row) == ["topic", "text", "summary", "quiz", "first_of_its_kind"] for row in rows)
    assert all(row["quiz"]["topic"] == row["topic"] for row in rows)


def test_the_provider_on_the_command_line_gets_a_specification_that_it_takes() -> None:
    (text,) = re.findall(r"--spec '(.*)'", README)
    assert ProviderSpec.model_validate_json(text).models["gpt-small"].concurrency == 8


# The tables


def test_the_limits_table_has_the_keys_and_defaults_of_the_code() -> None:
    rows = table("key")
    assert list(rows) == list(Limits.model_fields)
    for name, field in Limits.model_fields.items():
        if name != "concurrency":  # whose default depends on the scope
            assert rows[name][0] == ("none" if field.default is None else str(field.default)), name


def test_the_restart_example_means_what_it_says(tmp_path: Path) -> None:
    file = tmp_path / "restart.toml"
    file.write_text(blocks("toml")[1], encoding="utf-8")
    config = load_restart(file)
    assert config.http_urls == ("http://127.0.0.1:9000/analysis",)
    assert (config.timeout, config.aggregation, config.budget) == (60.0, Aggregation.ANY, 5)


def test_the_limits_example_means_what_it_says(tmp_path: Path) -> None:
    limits, _ = blocks("toml")
    file = tmp_path / "limits.toml"
    file.write_text(limits, encoding="utf-8")
    book = load_limits(file)
    small = book.for_scope("openai/gpt-small", leaf=True)
    large = book.for_scope("openai/gpt-large", leaf=True)
    assert small is not None
    assert large is not None
    assert (small.concurrency, small.tokens_per_minute, small.queue_timeout) == ("4-20-150", 2_000_000, 30)
    assert (large.concurrency, large.tokens_per_minute, large.requests_per_minute) == (8, None, None)
    assert book.knows(ResourceKey.parse("elsewhere/other"))


def test_the_options_table_has_the_names_and_defaults_of_the_code() -> None:
    rows = table("option")
    options = {field.name: field.default for field in dataclasses.fields(RunOptions)}
    assert options.keys() <= rows.keys()
    assert rows.keys() - options.keys() == set(ColumnOptions.__annotations__)
    for name, default in options.items():
        shown = rows[name][0]
        assert default == (inf if shown == "inf" else ast.literal_eval(shown)), name


def test_the_exit_codes_are_those_of_the_code() -> None:
    told = {name: int(cells[0]) for name, cells in table("status").items()}
    assert told == dict(EXIT_CODES)
    assert {status.value: status.exit_code for status in RunStatus}.items() <= told.items()


def test_the_failure_table_says_what_the_code_does() -> None:
    rows = table("kind")
    assert rows.keys() == {kind.value for kind in FailureKind}
    for kind in FailureKind:
        done = rows[kind.value][1]
        match TABLE[kind].action:
            case Action.HOLD:
                assert done.startswith("held back; costs no attempt"), kind
            case Action.RETRY:
                assert done == "tried again; an attempt", kind
            case Action.RETRY_OUTPUT:
                assert done.startswith("tried again up to `max_output_attempts`"), kind
            case Action.FAIL:
                assert done.startswith("failed"), kind
            case Action.PARK:
                assert "parked" in done or done == "the same", kind


# The pages on architecture


def paths_named_in(text: str) -> set[str]:
    """Files and folders of the repository that a page names in backticks or as links."""
    quoted = re.findall(r"`((?:src|tests|architecture|examples|benchmarks)/[\w./-]+)(?:::\w+)*`", text)
    return set(quoted)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_names_only_files_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    missing = [path for path in paths_named_in(text) if not (ROOT / path).exists()]
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    missing += [link for link in links if not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize(
    "package", ["admission", "cli", "scheduler", "salvage", "engine", "export", "reports", "storage", "testing"]
)
def test_a_page_lists_every_module_of_its_package(package: str) -> None:
    page = (ROOT / "architecture" / f"{package}.md").read_text(encoding="utf-8")
    folder = ROOT / "src" / package
    modules = {file.relative_to(folder).as_posix() for file in folder.rglob("*.py") if file.name != "__init__.py"}
    listed = set(re.findall(r"^\| `([\w/]+\.py)` \|", page, re.MULTILINE))
    assert listed == modules


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def names_in(file: Path) -> set[str]:
    """Test functions, methods and test classes of a file, methods as Class::method."""
    names: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, FUNCTIONS):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            names.add(node.name)
            names |= {f"{node.name}::{part.name}" for part in node.body if isinstance(part, FUNCTIONS)}
    return names


def test_every_test_that_a_page_names_exists() -> None:
    missing: list[str] = []
    for page in PAGES:
        for file, name in re.findall(r"`([\w./-]+\.py)::([\w:]+)`", page.read_text(encoding="utf-8")):
            path = ROOT / file
            if not path.exists() or name not in names_in(path):
                missing.append(f"{page.name}: {file}::{name}")
    assert missing == []


def promise_rows() -> dict[str, str]:
    return dict(re.findall(r"^\| ([ASVDT]\d+) \|(.*)$", PROMISES, re.MULTILINE))


def test_every_promise_and_every_trap_has_its_row() -> None:
    wanted = {"A": 10, "S": 8, "V": 5, "T": 41}
    ids = {f"{letter}{number}" for letter, last in wanted.items() for number in range(1, last + 1)}
    assert ids <= promise_rows().keys()


def test_every_row_names_a_test_or_says_that_there_is_none() -> None:
    unproved = [code for code, row in promise_rows().items() if ".py::" not in row and "no test" not in row]
    assert unproved == []


def test_every_decision_is_linked_from_the_overview() -> None:
    overview = (ROOT / "architecture" / "README.md").read_text(encoding="utf-8")
    decisions = {file.name for file in (ROOT / "architecture" / "decisions").glob("*.md")}
    assert decisions
    assert decisions == set(re.findall(r"\(decisions/([\w.-]+)\)", overview))


def test_the_page_of_numbers_is_what_the_source_says() -> None:
    page = constants_page.PAGE.read_text(encoding="utf-8")
    assert page == constants_page.page(), "python -m tests.constants_page"


def test_every_number_of_admission_has_its_reason() -> None:
    found = {file.name: constants_page.constants(file) for file in constants_page.SOURCE.glob("*.py")}
    assert {len(numbers) > 20 for name, numbers in found.items() if name == "law_values.py"} == {True}
    assert [f"{name}: {one.name}" for name, numbers in found.items() for one in numbers if not one.reason] == []
