"""Arguments and options that several commands share, with their help."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from math import inf
from pathlib import Path
from typing import Annotated, Any

import typer

from ..engine.options import RunOptions
from ..errors import ConfigError
from ..prices import GENAI_PRICES, Budget, Price, price_book, priced_model
from .durations import seconds

__all__ = [
    "AsJson",
    "BudgetOption",
    "BudgetTokens",
    "Deadline",
    "EventsOption",
    "Grace",
    "LimitsOption",
    "MaxAttempts",
    "OnChange",
    "OnChangeOption",
    "OutOption",
    "Patience",
    "PipelineArgument",
    "PriceOption",
    "PricesOption",
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
    "events_of",
    "money_of",
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


def money_of(
    settings: Mapping[str, Any],
    prices: str | None,
    price: list[str] | None,
    budget: float | None = None,
    budget_tokens: int | None = None,
) -> dict[str, Any]:
    """The options ``prices`` and ``budget`` of a run, as far as they were given; ``settings`` are those of --set."""
    found: dict[str, Any] = {}
    if prices is not None or price:
        found["prices"] = _prices(prices, price or [])
    if budget is not None or budget_tokens is not None:
        found["budget"] = Budget(budget, budget_tokens)
    for name in found.keys() & settings.keys():
        raise typer.BadParameter(f"{name} is given twice: here and as an option of its own", param_hint="--set")
    if found:
        RunOptions.of(found)
    return found


def events_of(settings: Mapping[str, Any], events: Path | None) -> dict[str, Any]:
    """The option ``events`` of a run, if it was given; ``settings`` are those of --set."""
    if events is not None and "events" in settings:
        raise typer.BadParameter("events is given twice: here and as an option of its own", param_hint="--set")
    return {} if events is None else {"events": events}


def _prices(prices: str | None, price: list[str]) -> Any:
    of_file = prices not in (None, GENAI_PRICES)
    if of_file and price:
        raise typer.BadParameter("a file has all prices: write it there, or leave --prices out", param_hint="--price")
    if of_file:
        price_book(prices)  # a mistake there is known before all else
    if not price:
        return prices
    own: dict[str, Price] = {}
    for model, one in map(_price, price):
        if model in own:
            raise typer.BadParameter(f"the price of {model} is given twice", param_hint="--price")
        own[model] = one
    return own


def _price(text: str) -> tuple[str, Price]:
    model, _, numbers = text.rpartition("=")
    read, _, others = numbers.partition("/")
    written, fee, request = others.partition("/")
    try:
        price = Price(float(read), float(written), request=float(request) if fee else 0.0)
    except (ValueError, ConfigError):
        price = None
    if price is None or not model:
        wanted = "MODEL=IN/OUT[/REQUEST] in dollars per million tokens, and per request, e.g. openai/gpt-x=2.5/10"
        raise typer.BadParameter(f"{text!r} is not {wanted}", param_hint="--price")
    try:
        return priced_model(model), price
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint="--price") from error


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
PricesOption = Annotated[
    str | None,
    typer.Option(
        "--prices",
        metavar="FILE",
        help="What models cost: a TOML file, or genai-prices for what that library knows. [default: nothing is priced]",
    ),
]
PriceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--price",
        metavar="MODEL=IN/OUT[/REQUEST]",
        help="Dollars per million tokens read and written, e.g. openai/gpt-x=2.5/10, and per request, e.g. "
        "perplexity/sonar=1/1/0.012; other models as by genai-prices. Repeatable.",
    ),
]
BudgetOption = Annotated[
    float | None,
    typer.Option(
        "--budget", metavar="DOLLARS", min=0, help="The most that the run may spend, in all its lives together."
    ),
]
BudgetTokens = Annotated[
    int | None,
    typer.Option("--budget-tokens", metavar="N", min=0, help="The same in tokens, read and written together."),
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
EventsOption = Annotated[
    Path | None,
    typer.Option("--events", metavar="FILE", help="Append what happens to this file, each event as a line of JSON."),
]
MaxAttempts = Annotated[
    int | None, typer.Option("--max-attempts", metavar="N", help="Failed attempts of one task. [default: 5]")
]
Progress = Annotated[
    bool | None,
    typer.Option("--progress/--no-progress", help="A live view on standard error. [default: if it is a terminal]"),
]
Reopen = Annotated[bool, typer.Option("--reopen", help="Go on with a run that a decision has told to stop.")]
