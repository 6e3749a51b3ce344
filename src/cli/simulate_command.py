"""The command that forecasts a run without sending anything: simulate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import data
from .arguments import (
    AsJson,
    LimitsOption,
    PipelineArgument,
    PriceOption,
    PricesOption,
    RowId,
    RowsArgument,
    SettingsOption,
    money_of,
    settings_of,
)
from .targets import load_pipeline, load_rows

__all__ = ["add_to"]

_SIMULATE = """Forecast a run under limits that you name: hours in seconds, nothing sent, nothing spent.

The real engine runs the pipeline in virtual time against a simulated provider. No function of a column is called: a
model column takes the latency of its simulated requests, and its value is made up from its return type. Says how long
the run takes, the 429s, the throughput of each model, where the time went, and what to change. The exit code is that
of the run.

\b
The provider file says what is true; latency has to be said, a limit that is left out does not exist:
  [models."openai/gpt-x"]          # or "*"
  concurrency = 32
  requests_per_minute = 500
  latency = { mean_s = 4.0, sigma = 0.8 }
  output_tokens = { mean = 150, sigma = 0.5 }
  faults = { error_500 = 0.01 }
  [columns.verdict]
  requests = 2                     # model requests of one call
  share = 0.4                      # of the rows for which its condition holds
  answer = "yes"                   # its value, instead of one made up

\b
Examples:
  headgate simulate tickets.py rows.jsonl --provider provider.toml
  headgate simulate tickets.py 10000 --provider provider.toml --limits limits.toml --knobs
  headgate simulate tickets:pipeline rows.csv --provider provider.toml --json
"""


def add_to(app: typer.Typer) -> None:
    """Make this command part of ``app``."""
    short = "Forecast a run under limits that you name, in virtual time."
    app.command("simulate", help=_SIMULATE, short_help=short)(simulate)


def simulate(
    pipeline: PipelineArgument,
    rows: RowsArgument,
    provider: Annotated[
        Path,
        typer.Option("--provider", metavar="FILE", help="A TOML file of the provider's true limits and latencies."),
    ],
    limits: LimitsOption = None,
    knobs: Annotated[
        bool, typer.Option("--knobs", help="Also try each limit at twice its size, and say what it would gain.")
    ] = False,
    call: Annotated[
        list[str] | None,
        typer.Option("--call", metavar="COLUMN", help="Call this local column's own function after all. Repeatable."),
    ] = None,
    row_id: RowId = None,
    prices: PricesOption = None,
    price: PriceOption = None,
    settings: SettingsOption = None,
    as_json: AsJson = False,
) -> None:
    """See ``_SIMULATE``."""
    from ..testing.simulation import simulate as simulated  # what simulates is loaded only here

    loaded = load_pipeline(pipeline)
    given = load_rows(rows)
    if given.fields is not None and not isinstance(given.rows, int):
        loaded.compile(given.fields)
    options: dict[str, Any] = settings_of(settings or [])
    options |= money_of(options, prices, price)
    found = simulated(
        loaded, given.rows, provider, limits=limits, call=call or (), knobs=knobs, row_id=row_id, **options
    )
    typer.echo(data.as_json(data.of_simulation(found)) if as_json else str(found))
    raise typer.Exit(found.report.exit_code)
