"""The commands that need the pipeline: plan, run, resume."""

from __future__ import annotations

import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..admission.limits_book import load_limits
from ..engine.faces import plan as plan_ahead
from ..errors import ConfigError, ResultExpired, UnknownRun
from ..export import output_path
from ..storage.opening import without_secrets
from . import data, text
from .arguments import (
    AsJson,
    BudgetOption,
    BudgetTokens,
    Deadline,
    EventsOption,
    Grace,
    LimitsOption,
    MaxAttempts,
    OnChange,
    OnChangeOption,
    OutOption,
    Patience,
    PipelineArgument,
    PriceOption,
    PricesOption,
    Progress,
    Reopen,
    RetryFailed,
    RowId,
    RowsArgument,
    RunName,
    SettingsOption,
    StoreOption,
    events_of,
    money_of,
    settings_of,
)
from .life import LifeNotes, life_in
from .places import check_open, open_again, store_at
from .running import Errand, default_store, perform
from .targets import load_pipeline, load_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..engine.report import RunReport

__all__ = ["add_to"]

_PLAN = """Say how many cells would run, before anything is spent.

Reads the rows and the store, calls no function of the pipeline and changes nothing. Give it the same arguments as run
or resume.

With --sample N the first N rows are run for real first, and the rest is forecast from them: tokens, the time, and with
--prices or --price the cost, each with a range. What the sample yields is kept in the store, and the run that follows
pays for none of it again.

\b
Examples:
  headgate plan tickets.py rows.jsonl
  headgate plan tickets:pipeline rows.csv --store run.db --retry-failed
  headgate plan tickets.py 1000 --on-change rerun --json
  headgate plan tickets.py rows.jsonl --sample 50 --limits limits.toml --prices genai-prices
"""

_RUN = """Run a pipeline over rows, and say what became of them.

A run of that name that the store already has goes on where it ended: what is finished costs nothing. Ctrl-C stops it in
good order, a second Ctrl-C at once. The last lines say how to resume.

\b
Examples:
  headgate run tickets.py rows.jsonl
  headgate run tickets:pipeline rows.parquet --store run.db --limits limits.toml --out answers.parquet
  headgate run tickets.py 1000 --deadline 2h --set group_size=64
  headgate run tickets.py rows.jsonl --budget 5.00 --price openai/gpt-x=2.5/10
"""

_RESUME = """Go on with a run that was held, stopped or killed.

As run, but an error if the store has no such run: a mistyped name does not begin everything anew. A run that was told
to stop by a decision stays so until it is opened again with --reopen.

\b
Examples:
  headgate resume tickets.py rows.jsonl --store run.db
  headgate resume tickets.py rows.jsonl --store run.db --retry-failed
  headgate resume tickets.py rows.jsonl --store run.db --budget 10.00
  headgate resume tickets.py rows.jsonl --store run.db --reopen
"""

Life = Annotated[
    Path | None, typer.Option("--life", hidden=True, help="The directory of a life that a supervisor has begun.")
]
Control = Annotated[bool, typer.Option("--control", help="Listen to headgate ctl while it runs.")]
ControlAt = Annotated[
    Path | None,
    typer.Option(
        "--control-at", metavar="PATH", help="The same, at a socket of this name, in a directory of yours alone."
    ),
]


def add_to(app: typer.Typer) -> None:
    """Make these commands part of ``app``."""
    app.command("plan", help=_PLAN, short_help="Say how many cells would run, before anything is spent.")(plan)
    app.command("run", help=_RUN, short_help="Run a pipeline over rows.")(_running(anew=True))
    short = "Go on with a run that was held, stopped or killed."
    app.command("resume", help=_RESUME, short_help=short)(_running(anew=False))


def plan(
    pipeline: PipelineArgument,
    rows: RowsArgument,
    store: StoreOption = None,
    name: RunName = None,
    row_id: RowId = None,
    on_change: OnChangeOption = OnChange.AUTO,
    retry_failed: RetryFailed = False,
    settings: SettingsOption = None,
    sample: Annotated[
        int, typer.Option("--sample", min=0, metavar="N", help="Run the first N rows for real and forecast the rest.")
    ] = 0,
    limits: LimitsOption = None,
    prices: PricesOption = None,
    price: PriceOption = None,
    as_json: AsJson = False,
) -> None:
    """See ``_PLAN``."""
    if limits is not None and not sample:
        raise typer.BadParameter("limits matter only with --sample", param_hint="--limits")
    if (prices is not None or price) and not sample:
        raise typer.BadParameter("prices matter only with --sample", param_hint="--prices")
    loaded = load_pipeline(pipeline)
    others = settings_of(settings or [])
    options: dict[str, Any] = {
        **others,
        **money_of(others, prices, price),
        "on_change": on_change.value,
        "retry_failed": retry_failed,
    }
    given = load_rows(rows)
    loaded.compile(given.fields)
    place = store or default_store(loaded)
    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        found = plan_ahead(
            loaded, given.rows, store=place, run=name, row_id=row_id, sample=sample, limits=limits, **options
        )
    typer.echo(data.as_json(data.of_plan(found)) if as_json else str(found))


def _running(*, anew: bool) -> Callable[..., None]:
    """The command that runs a pipeline; only ``anew`` may it begin a run that the store does not have."""

    def command(
        pipeline: PipelineArgument,
        rows: RowsArgument,
        store: StoreOption = None,
        name: RunName = None,
        limits: LimitsOption = None,
        out: OutOption = None,
        row_id: RowId = None,
        on_change: OnChangeOption = OnChange.AUTO,
        retry_failed: RetryFailed = False,
        patience: Patience = None,
        deadline: Deadline = None,
        grace: Grace = None,
        max_attempts: MaxAttempts = None,
        budget: BudgetOption = None,
        budget_tokens: BudgetTokens = None,
        prices: PricesOption = None,
        price: PriceOption = None,
        settings: SettingsOption = None,
        events: EventsOption = None,
        control: Control = False,
        control_at: ControlAt = None,
        progress: Progress = None,
        reopen: Reopen = False,
        life: Life = None,
        as_json: AsJson = False,
    ) -> None:
        others = settings_of(settings or [])
        money = money_of(others, prices, price, budget, budget_tokens)
        times = {"patience": patience, "deadline": deadline, "grace": grace, "max_attempts": max_attempts}
        if limits is not None:
            load_limits(limits)
        if out is not None:
            output_path(out)
        loaded = load_pipeline(pipeline)
        given = load_rows(rows)
        loaded.compile(given.fields)  # what does not fit is known before there is a store
        errand = Errand(
            pipeline=loaded,
            rows=given,
            store=store or default_store(loaded),
            run=name or loaded.name,
            options={
                **others,
                **money,
                **events_of(others, events),
                **{option: value for option, value in times.items() if value is not None},
                "limits": limits,
                "row_id": row_id,
                "on_change": on_change.value,
                "retry_failed": retry_failed,
                "control": control_at or control,
            },
            words=(
                *(pipeline, rows),
                *_option("--run", name),
                *_option("--limits", limits),
                *_option("--out", out),
                *_option("--row-id", row_id),
                *_option("--events", events),
                *_option("--budget", budget),
                *_option("--budget-tokens", budget_tokens),
                *_option("--prices", prices),
                *(word for one in price or [] for word in ("--price", one)),
                *(word for one in settings or [] for word in ("--set", one)),
            ),
        )
        if not anew:
            _check_known(errand.store, errand.run)
        if life is None:
            open_again(errand.store, errand.run) if reopen else check_open(errand.store, errand.run)
        shown = sys.stderr.isatty() if progress is None else progress
        with nullcontext() if life is None else life_in(life, loaded) as notes:
            report = _perform(errand, out, notes, progress=shown, as_json=as_json)
        raise typer.Exit(report.exit_code)

    return command


def _option(option: str, value: object) -> tuple[str, ...]:
    return () if value is None else (option, str(value))


def _perform(errand: Errand, out: Path | None, notes: LifeNotes | None, *, progress: bool, as_json: bool) -> RunReport:
    report = perform(errand, notes, progress=progress, quiet_stdout=as_json)
    written = None if out is None else report.export(out)
    if notes is not None:
        notes.ended(report, written)
    if as_json:
        typer.echo(data.as_json(data.of_report(report, written)))
    else:
        typer.echo(str(report))
        if written is not None:
            typer.echo(text.of_export(written))
    return report


def _check_known(store: str, run: str) -> None:
    with store_at(store) as found:
        try:
            found.read_info(run)
        except (UnknownRun, ResultExpired) as error:
            known = ", ".join(found.read_runs()) or "none"
            shown = without_secrets(store)
            raise ConfigError(f"store {shown!r} has no run {run!r} to resume; it has: {known}") from error
