"""Every code block of the pages in ``docs/`` does what its page says.

The Python blocks of a page run as they stand, one after the other in one namespace and one folder, against a virtual
provider behind OpenAI's clients. A block with a title is a file of that name; one that is called ``test_*.py`` is run
by pytest. What a line says that it prints (``print(...)  # this``), it prints. The command line takes the commands.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import typer.main

import headgate
from headgate.cli.app import app
from headgate.testing.provider import ProviderSpec

from ..curtain import Curtain

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
BLOCK = re.compile(r"^```(\w*)(?: title=\"([\w.]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SAID = re.compile(r"^print\(.*\)  # (.*)$", re.MULTILINE)


class Block(NamedTuple):
    """One fenced block: its language, the file that it is, its text, and the line of the page on which that begins."""

    language: str
    title: str
    text: str
    line: int


def name_of(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        yield Block(found[1], found[2] or "", found[3], text.count("\n", 0, found.start(3)))


WITH_CODE = [page for page in PAGES if any(block.language in {"python", "toml"} for block in blocks(page))]


def test_every_block_has_a_language_that_is_tested() -> None:
    strange = [
        f"{name_of(page)}:{block.line}"
        for page in PAGES
        for block in blocks(page)
        if block.language not in {"python", "toml", "sh", "text"}
    ]
    fences = sum(page.read_text(encoding="utf-8").count("```") for page in PAGES)
    assert (strange, fences) == ([], 2 * sum(1 for page in PAGES for _ in blocks(page)))


@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_the_code_of_a_page_runs(
    page: Path,
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytester.syspathinsert()
    curtain = Curtain("meta-llama/Llama-3.1-8B-Instruct")
    scope: dict[str, Any] = {"__name__": "docs"}
    for block in blocks(page):
        if block.title:
            (pytester.path / block.title).write_text(block.text, encoding="utf-8")
        if block.title.startswith("test_"):
            chosen = ("-p", "no:xdist", "-k", "not naive")  # the long search of a store's suite runs elsewhere
            outcomes = pytester.runpytest_inprocess(block.title, *chosen).parseoutcomes()
            assert outcomes.keys() <= {"passed", "deselected"}, outcomes
        elif block.language == "python" and not block.title:
            code = compile("\n" * block.line + block.text, str(page), "exec", dont_inherit=True)
            with monkeypatch.context() as patched:
                curtain.draw(patched)
                exec(code, scope)
            printed = capsys.readouterr().out.splitlines()
            assert [said for said in SAID.findall(block.text) if said not in printed] == [], printed


# Commands


def commands(page: Path) -> Iterator[str]:
    for block in blocks(page):
        if block.language == "sh":
            yield from block.text.replace("\\\n", " ").splitlines()


def test_the_command_line_takes_every_command_that_is_shown() -> None:
    group: Any = typer.main.get_command(app)
    for page in PAGES:
        for command in commands(page):
            match shlex.split(command, comments=True):
                case ["headgate", name, *arguments]:
                    with group.commands[name].make_context(name, arguments, resilient_parsing=False):
                        pass
                case ["python", "-m", "headgate.testing.provider", "--port", port, *rest]:
                    assert port.isdigit()
                    assert rest[:1] in ([], ["--spec"])
                    assert all(ProviderSpec.model_validate_json(spec).models for spec in rest[1:])
                case ["python3.11", "-m", "pip", "install", what]:
                    assert what.startswith(".")
                case ["export", *_] | ["make", _]:
                    pass
                case other:
                    pytest.fail(f"{name_of(page)} shows a command that nobody tests: {other}")


# What pages and examples show


def test_every_client_that_we_show_does_not_retry() -> None:
    """The SDK's own retries are the user's to turn off: wherever we make a client, we do."""
    shown = [*PAGES, *(ROOT / "examples").iterdir()]
    texts = {file.name: file.read_text(encoding="utf-8") for file in shown if file.is_file()}
    made = [
        (name, options)
        for name, text in texts.items()
        for options in re.findall(r"\b(?:Async)?(?:OpenAI|Anthropic)\(([^)]*)\)", text)
    ]
    assert len(made) > 10
    assert [one for one in made if "max_retries=0" not in one[1]] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_names_only_files_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:src|tests|architecture|examples|benchmarks|docs)/[\w./-]*)`", text)
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_reference_has_every_public_name() -> None:
    page = (DOCS / "reference" / "headgate.md").read_text(encoding="utf-8")
    listed = re.findall(r"^::: headgate\.(\w+)$", page, re.MULTILINE)
    assert sorted(listed) == sorted(set(vars(headgate)["__all__"]) - {"__version__"})


def test_every_page_is_in_the_contents() -> None:
    contents = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("nav:")[1].split("\n\n")[0]
    assert sorted(re.findall(r"[\w/-]+\.md", contents)) == [name_of(page) for page in PAGES]


def test_the_table_of_results_is_that_of_the_benchmark() -> None:
    """Figures stand in one place; what a page repeats is the same."""
    results = (ROOT / "benchmarks" / "RESULTS-admission.md").read_text(encoding="utf-8")
    section = results.split("### headgate's gate")[1].split("\n### ")[0]
    measured = {row[0]: (row[1].split()[0], row[3].split()[0]) for row in rows_of(section)}
    page = (DOCS / "explanation" / "control-law.md").read_text(encoding="utf-8")
    shown = {row[0]: (row[1], row[2].removesuffix(" %")) for row in rows_of(page.split("| provider |")[1])}
    assert shown
    assert {case: measured[case] for case in shown} == shown


def rows_of(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    return [[cell.strip(" *") for cell in line.split("|")[1:-1]] for line in lines if re.search(r"\d\.\d", line)]
