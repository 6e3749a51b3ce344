"""The commands that read or tidy up a store: status, report, export, sweep."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from ..engine.report import RunStatus
from ..errors import ConfigError
from ..export import export_run, output_path, write_html
from ..reports import as_json as as_json_report
from ..reports import as_markdown, read_report
from ..restart import render
from ..restart.codec import as_plain
from ..storage.opening import without_secrets
from ..storage.overview import read_overview
from ..storage.ports import TERMINAL, Swept
from . import data, text
from .arguments import AsJson, StoreArgument, duration
from .places import restarts_of, store_at

if TYPE_CHECKING:
    from ..storage.ports import RunStore

__all__ = ["add_to"]

_STATUS = """Show what a store knows of its runs.

With one run in the store, or with --run, also its columns. A run that goes on says running, and so does one that was
killed, until it is resumed; of a run that engines share it says whether any of them works on it. With --decisions all
that is on record about the restarts of one run.

\b
Examples:
  headgate status run.db
  headgate status runs/ --run tickets --json
  headgate status run.db --decisions
"""

_REPORT = """Say what became of a run: outcomes by column, failures and their causes, tokens, what it did over time.

With --html the answer is a page with charts: one file that opens offline. Needs the extra report.

\b
Examples:
  headgate report run.db
  headgate report run.db --html report.html
  headgate report run.db --run tickets --markdown > report.md
"""

_EXPORT = """Write the finished rows of a run to a file, and the others beside it with the reasons.

OUT ends in .jsonl or .parquet. The rest goes to OUT's name with the ending .unfinished.jsonl.

\b
Examples:
  headgate export run.db answers.jsonl
  headgate export runs/ answers.parquet --run tickets --columns question,verdict
"""

_SWEEP = """Drop runs that ended long ago, and what crashes have left.

Only runs that ended with one of the statuses go, by default those in which nothing is left to do. A run that goes on,
or was killed and not resumed, is never dropped.

\b
Examples:
  headgate sweep run.db --keep 30d --dry-run
  headgate sweep runs/ --keep 7d --status stopped --status held
"""


OneRun = Annotated[str | None, typer.Option("--run", metavar="NAME", help="The run, if the store has more than one.")]


def add_to(app: typer.Typer) -> None:
    """Make these commands part of ``app``."""
    app.command("status", help=_STATUS, short_help="Show what a store knows of its runs.")(status)
    app.command("report", help=_REPORT, short_help="Say what became of a run.")(report)
    app.command("export", help=_EXPORT, short_help="Write the finished rows of a run to a file.")(export)
    app.command("sweep", help=_SWEEP, short_help="Drop runs that ended long ago.")(sweep)


def status(
    store: StoreArgument,
    name: OneRun = None,
    decisions: Annotated[
        bool, typer.Option("--decisions", help="Show what was decided about restarts: by whom, when, on what basis.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """See ``_STATUS``."""
    with store_at(store) as found:
        if decisions:
            _show_decisions(found, _one_run(found, store, name), as_json=as_json)
            return
        runs = found.read_runs()
        if name is not None or len(runs) == 1:
            overview = read_overview(found, name or runs[0])
            typer.echo(data.as_json(data.of_status(overview)) if as_json else text.of_status(overview))
            return
        infos = [found.read_info(run) for run in runs]
    if as_json:
        typer.echo(data.as_json({"runs": [data.of_info(info) for info in infos]}))
    else:
        typer.echo(text.of_runs(without_secrets(store), infos))


def _show_decisions(store: RunStore, run: str, *, as_json: bool) -> None:
    record = restarts_of(store, run)
    if as_json:
        typer.echo(data.as_json({"run": run, "restarts": None if record is None else as_plain(record)}))
    else:
        typer.echo(f"run {run}: nothing was ever decided about it" if record is None else render(record))


def report(
    store: StoreArgument,
    name: OneRun = None,
    as_json: AsJson = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="As Markdown.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page with charts to this file.")
    ] = None,
) -> None:
    """See ``_REPORT``."""
    if markdown and (as_json or html):
        raise typer.BadParameter("--markdown stands alone", param_hint="--markdown")
    with store_at(store) as found:
        told = read_report(found, _one_run(found, store, name))
    if html is not None:
        path = write_html(told, html)
        typer.echo(data.as_json(data.of_page(path, told)) if as_json else f"{path}: run {told.overview.info.run}")
    elif as_json:
        typer.echo(as_json_report(told))
    else:
        typer.echo(as_markdown(told) if markdown else text.of_overview(told.overview, told.costs))


def export(
    store: StoreArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write: .jsonl or .parquet.")],
    name: OneRun = None,
    columns: Annotated[
        str | None, typer.Option("--columns", metavar="A,B", help="Only these columns. [default: all]")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """See ``_EXPORT``."""
    output_path(out)
    wanted = None if columns is None else [column.strip() for column in columns.split(",")]
    with store_at(store) as found:
        written = export_run(found, _one_run(found, store, name), out, columns=wanted)
    typer.echo(data.as_json(data.of_export(written)) if as_json else text.of_export(written))


def sweep(
    store: StoreArgument,
    keep: Annotated[
        float,
        typer.Option("--keep", metavar="TIME", parser=duration, help="Runs that ended within this time stay: 7d, 12h."),
    ],
    statuses: Annotated[
        list[RunStatus] | None,
        typer.Option("--status", help="Runs that ended so. Repeatable. [default: the two that are completed]"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which runs would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """See ``_SWEEP``."""
    wanted = frozenset(one.value for one in statuses) if statuses else TERMINAL
    with store_at(store) as found:
        if dry_run:
            swept = Swept(_would_go(found, keep, wanted))
        else:
            swept = anyio.run(partial(found.sweep, keep_s=keep, statuses=wanted))
    if as_json:
        typer.echo(data.as_json(data.of_swept(swept, dry_run=dry_run)))
    else:
        typer.echo(text.of_swept(swept, dry_run=dry_run))


def _would_go(store: RunStore, keep_s: float, statuses: frozenset[str]) -> tuple[str, ...]:
    before = time.time() - keep_s
    infos = map(store.read_info, store.read_runs())
    return tuple(
        info.run
        for info in infos
        if info.status in statuses and info.finished_at is not None and info.finished_at <= before
    )


def _one_run(found: RunStore, store: str, name: str | None) -> str:
    if name is not None:
        return name
    runs = found.read_runs()
    if len(runs) != 1:
        told = f"has {len(runs)} runs, say which with --run: {', '.join(runs)}" if runs else "has no runs"
        raise ConfigError(f"store {without_secrets(store)!r} {told}")
    return runs[0]
