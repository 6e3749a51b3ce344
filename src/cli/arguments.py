"""Arguments and options that several commands share, with their help."""

from __future__ import annotations

import json
from enum import StrEnum
from math import inf
from pathlib import Path
from typing import Annotated, Any

import typer

from .durations import seconds

__all__ = [
    "AsJson",
    "Deadline",
    "Grace",
    "LimitsOption",
    "MaxAttempts",
    "OnChange",
    "OnChangeOption",
    "OutOption",
    "Patience",
    "PipelineArgument",
    "Progress",
    "Reopen",
    "RetryFailed",
    "RowId",
    "RowsArgument",
    "RunName",
    "SettingsOption",
    "StoreArgument",
    "StoreOption",
    "duration",
    "settings_of",
]


class OnChange(StrEnum):
    """What becomes of columns that have changed."""

    AUTO = "auto"
    RERUN = "rerun"
    KEEP = "keep"
    REFUSE = "refuse"


def duration(text: str) -> float:
    """``text`` as seconds, for an option."""
    try:
        return seconds(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def settings_of(given: list[str]) -> dict[str, Any]:
    """``["max_attempts=3"]`` as a mapping; what is not a number or true or false is text."""
    found: dict[str, Any] = {}
    for one in given:
        name, equals, text = one.partition("=")
        if not equals or not name.isidentifier():
            raise typer.BadParameter(f"{one!r} is not NAME=VALUE, e.g. max_attempts=3", param_hint="--set")
        found[name] = _value(text)
    return found


def _value(text: str) -> Any:
    try:
        return inf if text == "inf" else json.loads(text)
    except ValueError:
        return text


LimitsOption = Annotated[
    Path | None, typer.Option("--limits", metavar="FILE", help="A TOML file of limits. [default: they are found out]")
]
PipelineArgument = Annotated[
    str,
    typer.Argument(
        metavar="PIPELINE",
        help="module:name or path/to/file.py:name of a headgate.Pipeline, or of a function that returns one.",
    ),
]
RowsArgument = Annotated[
    str,
    typer.Argument(
        metavar="ROWS",
        help="A .jsonl, .csv or .parquet file; module:name or path/to/file.py:name of an iterable; or a number.",
    ),
]
StoreArgument = Annotated[
    str,
    typer.Argument(metavar="STORE", help="A file (run.db), a directory (runs/), or postgresql://user@host/database."),
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        "-s",
        metavar="STORE",
        envvar="HEADGATE_STORE",
        help="Where results are kept: a file (run.db), a directory (runs/), or postgresql://user@host/database. "
        "[default: NAME.db, after the pipeline]",
    ),
]
RunName = Annotated[
    str | None,
    typer.Option("--run", metavar="NAME", help="The name of the run in the store. [default: the pipeline's]"),
]
RowId = Annotated[
    str | None,
    typer.Option("--row-id", metavar="FIELD", help="The field that identifies a row. [default: its position]"),
]
OnChangeOption = Annotated[
    OnChange,
    typer.Option(
        "--on-change",
        help="Columns that have changed: auto makes anew what was declared otherwise, rerun what was edited too, keep "
        "nothing; refuse is an error.",
    ),
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Try the cells again that failed.")]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="Any other option of a run, e.g. --set group_size=64. Repeatable."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, and nothing else there.")]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", metavar="FILE", help="Write finished rows there when the run ends: .jsonl or .parquet."
    ),
]
Patience = Annotated[
    float | None,
    typer.Option(
        "--patience", metavar="TIME", parser=duration, help="How long one task may be held back. [default: 1h]"
    ),
]
Deadline = Annotated[
    float | None,
    typer.Option("--deadline", metavar="TIME", parser=duration, help="End the run after that: 90s, 2h, 1d."),
]
Grace = Annotated[
    float | None,
    typer.Option(
        "--grace", metavar="TIME", parser=duration, help="What requests in flight get at a stop. [default: 10s]"
    ),
]
MaxAttempts = Annotated[
    int | None, typer.Option("--max-attempts", metavar="N", help="Failed attempts of one task. [default: 5]")
]
Progress = Annotated[
    bool | None,
    typer.Option("--progress/--no-progress", help="A live view on standard error. [default: if it is a terminal]"),
]
Reopen = Annotated[bool, typer.Option("--reopen", help="Go on with a run that a decision has told to stop.")]
