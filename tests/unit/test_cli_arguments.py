"""What is written on the command line, and what it means: times, settings, pipelines, rows, files of rows."""

from __future__ import annotations

import sys
from math import inf
from typing import TYPE_CHECKING, Any

import pytest
import typer

import headgate
from headgate.cli.arguments import settings_of
from headgate.cli.durations import seconds
from headgate.cli.row_files import FileRows
from headgate.cli.targets import load_pipeline, load_rows
from headgate.errors import ConfigError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("0", 0.0),
        ("90", 90.0),
        ("2.5", 2.5),
        ("30s", 30.0),
        ("5m", 300.0),
        ("1.5h", 5400.0),
        ("7d", 604800.0),
        ("2W", 1209600.0),
        ("1h30m", 5400.0),
        (" 1d12h ", 129600.0),
        ("inf", inf),
    ],
)
def test_a_length_of_time(text: str, meant: float) -> None:
    assert seconds(text) == meant


@pytest.mark.parametrize("text", ["", "-1", "1y", "h", "1 h", "1h30", "1h1h", "1e3", "nan", "5min"])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(ValueError, match="is not a length of time"):
        seconds(text)


def test_settings_are_numbers_truths_or_text() -> None:
    given = ["group_size=64", "stall_timeout=inf", "finish_siblings=true", "on_failure=raise", "x=a=b"]
    assert settings_of(given) == {
        "group_size": 64,
        "stall_timeout": inf,
        "finish_siblings": True,
        "on_failure": "raise",
        "x": "a=b",
    }
    for wrong in ("group_size", "=3", "a b=3"):
        with pytest.raises(typer.BadParameter, match="NAME=VALUE"):
            settings_of([wrong])


# Pipelines and rows

PROGRAM = """
import headgate
pipeline = headgate.Pipeline("tickets")

@pipeline.column
def shout(text: str) -> str:
    return text.upper()

def made():
    return pipeline

def made_from(what):
    return pipeline

class Others:
    pipeline = pipeline

def three():
    yield from ({"text": str(n)} for n in range(3))

async def waited_for():
    yield {"text": "a"}

rows = [{"text": "a"}, {"text": "b"}]
number = 7
word = "rows"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in; what is imported from it is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def program(folder: Path) -> Path:
    (folder / "tickets_cli.py").write_text(PROGRAM, encoding="utf-8")
    return folder / "tickets_cli.py"


@pytest.mark.parametrize(
    "target",
    [
        "tickets_cli.py",
        "tickets_cli",
        "tickets_cli:pipeline",
        "tickets_cli.py:made",
        "tickets_cli:Others.pipeline",
        "{folder}/tickets_cli.py:pipeline",
    ],
)
def test_a_pipeline_is_named_by_module_or_file(target: str, program: Path) -> None:
    found = load_pipeline(target.format(folder=program.parent))
    assert isinstance(found, headgate.Pipeline)
    assert found.name == "tickets"


def test_pipeline_and_rows_of_one_file_load_it_once(program: Path) -> None:
    with program.open("a", encoding="utf-8") as file:
        file.write("\nimport json, sys\nsys.stderr.write('loaded')\n")
    assert load_pipeline("tickets_cli.py") is load_pipeline(f"{program}:made")
    assert load_rows("tickets_cli.py:rows").total == 2


def test_a_file_may_have_the_name_of_a_module_that_is_loaded(folder: Path) -> None:
    (folder / "json.py").write_text(PROGRAM, encoding="utf-8")
    assert load_pipeline("json.py").name == "tickets"
    assert not hasattr(sys.modules["json"], "pipeline")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nope.py", "there is no file 'nope.py'"),
        ("nope_module:pipeline", "there is no module 'nope_module'.*nope_module.py"),
        ("nope.module:pipeline", "there is no module 'nope.module'"),
        ("tickets_cli:nope", "has no 'nope'; it has .*pipeline"),
        ("tickets_cli:rows", "is a list, not a headgate.Pipeline"),
        ("tickets_cli:Others", "is a type, not a headgate.Pipeline"),
        ("tickets_cli:made_from", "is a function that needs what"),
        ("tickets_cli:", "a pipeline is named as module:name"),
        (":pipeline", "a pipeline is named as module:name"),
        ("tickets_cli:a-b", "a pipeline is named as module:name"),
    ],
)
@pytest.mark.usefixtures("program")
def test_a_pipeline_that_is_not_there(target: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_pipeline(target)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import headgate\nx = unknown\n", r"NameError: name 'unknown' is not defined \(broken_cli.py, line 2\)"),
        ("def f(:\n", r"invalid syntax \(broken_cli.py, line 1\)"),
        ("import sys\nsys.exit(3)\n", "ended the program.*__main__"),
        ("import nowhere_to_be_found\n", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("import headgate\nheadgate.Pipeline('no name')\n", "a pipeline needs an identifier"),
    ],
)
def test_a_module_that_breaks_says_where(source: str, said: str, folder: Path) -> None:
    (folder / "broken_cli.py").write_text(source, encoding="utf-8")
    for target in ("broken_cli.py", "broken_cli"):
        with pytest.raises(headgate.HeadgateError, match=said):
            load_pipeline(target)


@pytest.mark.parametrize(
    ("target", "total"),
    [
        ("12", 12),
        ("0", 0),
        ("tickets_cli:rows", 2),
        ("tickets_cli.py", 2),
        ("tickets_cli:number", 7),
        ("tickets_cli:three", None),
        ("tickets_cli:waited_for", None),
    ],
)
@pytest.mark.usefixtures("program")
def test_rows_are_a_count_or_named(target: str, total: int | None) -> None:
    assert load_rows(target).total == total


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("-3", "rows are a file"),
        ("rows.txt", "rows are a file"),
        ("nothing.jsonl", "there is no such file"),
        ("tickets_cli:word", "is a str, not rows"),
        ("tickets_cli:pipeline", "is a Pipeline, not rows"),
        ("tickets_cli:made", "is a Pipeline, not rows"),
    ],
)
@pytest.mark.usefixtures("program")
def test_rows_that_are_not_there(target: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_rows(target)


# Files of rows


def rows_of(path: Path, content: bytes) -> list[dict[str, Any]]:
    path.write_bytes(content)
    found = FileRows(path)
    assert found.count() == len(list(found))
    return list(found)


def test_json_lines(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf{"a": 1}\n\n {"a": "t\xc3\xa4glich", "b": [1, null]} \r\n{"a": NaN}'
    first, second, third = rows_of(tmp_path / "r.jsonl", content)
    assert (first, second) == ({"a": 1}, {"a": "täglich", "b": [1, None]})
    assert third["a"] != third["a"]
    assert rows_of(tmp_path / "r.ndjson", b"") == []


def test_csv(tmp_path: Path) -> None:
    content = '\ufefftopic,text\na,"one, two"\n\nb,"line\nbreak"\n'.encode()
    assert rows_of(tmp_path / "r.csv", content) == [
        {"topic": "a", "text": "one, two"},
        {"topic": "b", "text": "line\nbreak"},
    ]


def test_a_value_in_csv_may_be_a_document(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(f"id,text\n1,{'x' * 200_000}\n", encoding="utf-8")
    assert [len(row["text"]) for row in FileRows(file)] == [200_000]


def test_a_quote_that_nobody_closes_does_not_swallow_the_whole_file(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text('id,text\n1,"oops\n' + f"{'x' * 1023}\n" * 2**14, encoding="utf-8")
    with pytest.raises(InputError, match="field larger than field limit"):
        list(FileRows(file))


def test_parquet(tmp_path: Path) -> None:
    rows = [{"a": n, "b": {"c": [str(n)]}} for n in range(2500)]
    headgate.write_parquet(tmp_path / "r.parquet", rows)
    found = FileRows(tmp_path / "r.parquet")
    assert found.count() == 2500
    assert list(found) == rows


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("r.jsonl", b'{"a": 1}\n{"a": \n', "line 2: not JSON"),
        ("r.jsonl", b'{"a": 1}\n\n[1]\n', "line 3: a list; every line must be an object"),
        ("r.jsonl", b"null", "line 1: null"),
        ("r.csv", b"a,b\n1,2\n1\n", "line 3: 1 values for 2 fields"),
        ("r.csv", b"a,b,a\n", "a field is named twice"),
        ("r.csv", b'a\n"x"y\n', "is not CSV"),
        ("r.csv", b"a\n\xff\n", "is not UTF-8"),
        ("r.parquet", b"no", "is not Parquet"),
    ],
)
def test_a_file_that_cannot_be_read_says_where(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        load_rows(str(tmp_path / name))
