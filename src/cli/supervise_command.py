"""The command that runs a pipeline as a process, and again after each bad end as long as it is decided so."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import AsyncExitStack, redirect_stdout
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import anyio
import typer

from ..admission.limits_book import load_limits
from ..engine.interrupts import interruptible
from ..engine.listeners import EventsSource, check_source, open_listeners
from ..engine.options import RunOptions
from ..errors import ConfigError
from ..export import output_path
from ..restart import (
    ProcessLives,
    RestartCoordinator,
    Supervised,
    Supervisor,
    configured_sources,
    load_restart,
    render,
)
from ..restart.codec import as_plain
from ..storage.opening import open_store
from . import data
from .arguments import (
    AsJson,
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
    Progress,
    Reopen,
    RetryFailed,
    RowId,
    RowsArgument,
    RunName,
    SettingsOption,
    StoreOption,
    duration,
    events_of,
    settings_of,
)
from .running import default_store
from .targets import load_pipeline, load_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..restart import DecisionStore, RestartConfig, RunRecord
    from ..restart.process import ChildStart

__all__ = ["add_to"]

_SUPERVISE = """Run a pipeline as a process of its own, again after each bad end, as long as it is decided so.

A life that crashes, is killed, runs out of memory, commits nothing for the stall timeout or leaves rows held is a bad
end. What follows is decided as the table [restart] of a TOML file says, once for all replicas: restart, set tasks aside
and restart, or stop. Lives that gain nothing are counted in the store, and so is a run that was told to stop, so a
supervisor that is begun again goes on where it was. Ctrl-C or SIGTERM ends the life in good order, and no other
follows; a second one leaves at once. headgate status --decisions shows what was decided and why.

\b
Examples:
  headgate supervise tickets.py rows.jsonl
  headgate supervise tickets.py rows.jsonl --restart restart.toml --stall-timeout 10m
  headgate supervise tickets.py rows.jsonl --budget 20 --dry-run --json
  headgate supervise tickets.py rows.jsonl --reopen
"""

_KILL_AFTER_S = 5.0
"""What a process gets beyond the grace time of its requests, to commit and to leave."""

Restart = Annotated[
    Path | None,
    typer.Option("--restart", metavar="FILE", help="A TOML file with a table [restart]. [default: its defaults]"),
]
StallTimeout = Annotated[
    float | None,
    typer.Option(
        "--stall-timeout",
        metavar="TIME",
        parser=duration,
        help="End a life that commits no outcome for that long. [default: 2h]",
    ),
]
Budget = Annotated[
    int | None, typer.Option("--budget", metavar="N", help="Lives in a row that may gain nothing. [default: 5]")
]
DryRun = Annotated[
    bool | None,
    typer.Option(
        "--dry-run/--no-dry-run", help="Restart whatever is decided, and record it. [default: as in the file]"
    ),
]


def add_to(app: typer.Typer) -> None:
    """Make this command part of ``app``."""
    short = "Run a pipeline, again after each bad end."
    app.command("supervise", help=_SUPERVISE, short_help=short)(supervise)


def supervise(
    pipeline: PipelineArgument,
    rows: RowsArgument,
    store: StoreOption = None,
    name: RunName = None,
    restart: Restart = None,
    stall_timeout: StallTimeout = None,
    budget: Budget = None,
    dry_run: DryRun = None,
    reopen: Reopen = False,
    limits: LimitsOption = None,
    out: OutOption = None,
    row_id: RowId = None,
    on_change: OnChangeOption = OnChange.AUTO,
    retry_failed: RetryFailed = False,
    patience: Patience = None,
    deadline: Deadline = None,
    grace: Grace = None,
    max_attempts: MaxAttempts = None,
    settings: SettingsOption = None,
    events: EventsOption = None,
    progress: Progress = None,
    as_json: AsJson = False,
) -> None:
    """See ``_SUPERVISE``."""
    config = load_restart(restart, budget=budget, dry_run=dry_run)
    # What is wrong is told before there is a store, as run does; each life finds it in order.
    others = settings_of(settings or [])
    stalls_after = _set_s(others, "stall_timeout") if stall_timeout is None else stall_timeout
    own_grace = _set_s(others, "grace") if grace is None else grace
    in_all = _set_s(others, "deadline") if deadline is None else deadline
    times = {"patience": patience, "grace": own_grace, "deadline": in_all, "max_attempts": max_attempts}
    RunOptions.of({option: value for option, value in times.items() if value is not None})
    if not stalls_after > 0:
        raise ConfigError("--stall-timeout must be more than zero seconds: a cell takes time")
    if limits is not None:
        load_limits(limits)
    if out is not None:
        output_path(out)
    loaded = load_pipeline(pipeline)
    loaded.compile(load_rows(rows).fields)
    told: Any = {**others, **events_of(others, events)}.get("events")
    check_source(told)
    shown = sys.stderr.isatty() if progress is None else progress
    words = (
        *("run", pipeline, rows, "--run", name or loaded.name, "--on-change", on_change.value),
        *_option("--limits", limits),
        *_option("--out", out),
        *_option("--row-id", row_id),
        *_option("--patience", _seconds(patience)),
        *_option("--grace", _seconds(grace)),
        *_option("--events", events),
        *_option("--max-attempts", max_attempts),
        *("--set", f"stall_timeout={stalls_after:f}"),  # else a life halts by the default, however long is asked for
        *(word for one in settings or [] for word in ("--set", one)),
        *(("--retry-failed",) if retry_failed else ()),
        "--progress" if shown else "--no-progress",
    )
    errand = _Errand(
        run=name or loaded.name,
        store=store or default_store(loaded),
        words=words,
        config=config,
        stall_timeout_s=stalls_after,
        grace_s=own_grace + _KILL_AFTER_S,
        deadline_s=in_all,
        events=told,
        reopen=reopen,
        quiet=as_json,
    )
    _tell(errand, as_json=as_json)


@dataclass(frozen=True)
class _Errand:
    """A run to be supervised, as it was asked for. ``words`` are those of the command that is one life of it."""

    run: str
    store: str
    words: tuple[str, ...]
    config: RestartConfig
    stall_timeout_s: float
    grace_s: float
    deadline_s: float
    events: EventsSource
    reopen: bool
    quiet: bool


def _tell(errand: _Errand, *, as_json: bool) -> None:
    signals = (signal.SIGINT, signal.SIGTERM)
    with redirect_stdout(sys.stderr):  # what is logged is no answer
        supervised, _ = anyio.run(partial(interruptible, partial(_supervise, errand), {}, signals=signals))
    ended, record, report = supervised
    if as_json:
        typer.echo(data.as_json(data.of_supervised(errand.run, ended, as_plain(record), report)))
    else:
        lives = "1 life" if ended.lives == 1 else f"{ended.lives} lives"
        typer.echo(f"supervised: {ended.status} after {lives}\n{render(record)}")
    raise typer.Exit(ended.exit_code)


async def _supervise(errand: _Errand, *, started: Any) -> tuple[Supervised, RunRecord, dict[str, object] | None]:
    async with AsyncExitStack() as stack:
        listeners = open_listeners(errand.events, time.time)
        if listeners is not None:
            stack.push_async_callback(listeners.aclose)
        store = open_store(errand.store)
        stack.push_async_callback(store.aclose)
        sources = await stack.enter_async_context(configured_sources(errand.config))
        registers = cast("DecisionStore", store)
        coordinator = await stack.enter_async_context(
            RestartCoordinator(errand.run, registers, sources=sources, config=errand.config)
        )
        lives = ProcessLives(
            partial(_command, errand),
            partial(store.count_outcomes, errand.run),
            stall_timeout_s=errand.stall_timeout_s,
            grace_s=errand.grace_s,
            deadline_s=errand.deadline_s,
            env={**os.environ, "HEADGATE_STORE": errand.store},  # an address is not shown to all who list processes
            stdout=sys.__stderr__.fileno() if errand.quiet and sys.__stderr__ is not None else None,
        )
        events = None if listeners is None else listeners.say
        supervisor = Supervisor(coordinator, lives.live, grace_s=errand.grace_s + _KILL_AFTER_S, events=events)
        started(supervisor)
        ended = await supervisor.run(reopen=errand.reopen)
        return ended, coordinator.record, lives.said.report if lives.said is not None else None


def _command(errand: _Errand, start: ChildStart) -> tuple[str, ...]:
    program = (sys.executable, "-m", __name__.partition(".")[0])
    deadline = _option("--deadline", _seconds(None if start.deadline_s == inf else start.deadline_s))
    return (*program, *errand.words, *deadline, "--life", str(start.folder))


def _set_s(others: Mapping[str, Any], name: str) -> float:
    """The option ``name`` as ``--set`` gives it, or its default, in seconds."""
    value: object = others.get(name, getattr(RunOptions(), name))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"--set {name} must be a number of seconds, not {value!r}")
    return float(value)


def _option(option: str, value: object) -> tuple[str, ...]:
    return () if value is None else (option, str(value))


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:f}"
