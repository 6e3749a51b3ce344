"""The command that needs nothing at all: demo."""

from __future__ import annotations

from typing import Annotated

import typer

from . import data
from .arguments import AsJson

__all__ = ["add_to"]

_DEMO = """See a run without a key, a pipeline or a provider.

Three columns on two models of a simulated provider, in virtual time: nothing is sent, nothing is kept. The report is
that of any run.

\b
Examples:
  headgate demo
  headgate demo --rows 200 --seed 3 --json
"""


def add_to(app: typer.Typer) -> None:
    """Make this command part of ``app``."""
    app.command("demo", help=_DEMO, short_help="See a run without a key, a pipeline or a provider.")(demo)


def demo(
    rows: Annotated[int, typer.Option("--rows", min=1, metavar="N", help="How many rows.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="The same seed gives the same run.")] = 1,
    as_json: AsJson = False,
) -> None:
    """See ``_DEMO``."""
    from .demo import demonstrate, told  # what simulates is loaded only here

    shown = demonstrate(rows, seed=seed)
    typer.echo(data.as_json(data.of_report(shown.report)) if as_json else told(shown))
    raise typer.Exit(shown.report.exit_code)
