"""The commands that control a run that goes on: ctl status, pause, resume, limits, drain, stop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..control import ask, find_sockets
from ..control.protocol import Command, Drain, Look, Pause, Resume, SetLimits, Stop
from ..errors import ConfigError
from . import data, text
from .arguments import AsJson, duration, settings_of

__all__ = ["add_to"]

_CTL = """Control a run that goes on: pause and resume, change limits, drain, stop.

For runs that were started with --control (in a program: control=True). Their socket is a file that only you may open,
in a directory that only you may enter; of several that go on, --socket says which. Each command takes --json.

\b
Examples:
  headgate ctl status
  headgate ctl pause openai/gpt-x
  headgate ctl limits openai/gpt-x concurrency=16 requests_per_minute=500
  headgate ctl drain
"""

_LIMITS = """Change some limits of a scope and leave its others; null takes one away.

\b
Examples:
  headgate ctl limits openai/gpt-x concurrency=16
  headgate ctl limits openai requests_per_minute=500 input_tokens_per_minute=null
  headgate ctl limits openai/gpt-x concurrency=4-20-150
"""

Scope = Annotated[
    str, typer.Argument(metavar="SCOPE", help="An account (openai), a model (openai/gpt-x), or model and domain.")
]
OneRun = Annotated[str | None, typer.Option("--run", metavar="NAME", help="The run. [default: all of the engine]")]
SocketOption = Annotated[
    Path | None,
    typer.Option("--socket", metavar="PATH", help="Where the engine listens. [default: the only one that does]"),
]
Grace = Annotated[
    float | None,
    typer.Option(
        "--grace", metavar="TIME", parser=duration, help="What requests in flight get. [default: the run's own]"
    ),
]


def add_to(app: typer.Typer) -> None:
    """Make these commands part of ``app``."""
    group = typer.Typer(
        no_args_is_help=True, rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]}
    )
    group.command("status", short_help="Show what goes on now.")(status)
    group.command("pause", short_help="Let nothing out in a scope until it is resumed.")(pause)
    group.command("resume", short_help="End a pause.")(resume)
    group.command("limits", help=_LIMITS, short_help="Change limits.")(limits)
    group.command("drain", short_help="Take no more rows in, finish the open ones, and end.")(drain)
    group.command("stop", short_help="Start nothing more, and end: as Ctrl-C does.")(stop)
    app.add_typer(group, name="ctl", help=_CTL, short_help="Control a run that goes on.")


def status(socket: SocketOption = None, as_json: AsJson = False) -> None:
    """Show the runs that go on, and what every scope has in flight, may have, and whether it is paused."""
    found = ask(_place(socket), Look())
    typer.echo(data.as_json(found) if as_json else text.of_engine(found))


def pause(scope: Scope, socket: SocketOption = None, as_json: AsJson = False) -> None:
    """Let nothing out in SCOPE until it is resumed. Requests that are out come back; no deadline in a queue passes."""
    _tell(socket, Pause(scope), f"{scope} is paused", as_json=as_json)


def resume(scope: Scope, socket: SocketOption = None, as_json: AsJson = False) -> None:
    """End a pause of SCOPE: one request goes out first, then more and more."""
    _tell(socket, Resume(scope), f"{scope} goes on", as_json=as_json)


def limits(
    scope: Scope,
    changes: Annotated[list[str], typer.Argument(metavar="NAME=VALUE...", help="As in a file of limits.")],
    socket: SocketOption = None,
    as_json: AsJson = False,
) -> None:
    """See ``_LIMITS``."""
    wanted: dict[str, Any] = settings_of(changes)
    _tell(socket, SetLimits(scope, wanted), f"{scope}: {', '.join(changes)}", as_json=as_json)


def drain(run: OneRun = None, socket: SocketOption = None, as_json: AsJson = False) -> None:
    """Take no more rows in. Open rows are finished, then the run ends; headgate resume goes on with the rest."""
    _tell(socket, Drain(run), "no more rows are taken in", as_json=as_json)


def stop(run: OneRun = None, grace: Grace = None, socket: SocketOption = None, as_json: AsJson = False) -> None:
    """Start nothing more, give what is in flight its time, and end: as Ctrl-C does. headgate resume goes on."""
    _tell(socket, Stop(run, grace), "nothing more is started", as_json=as_json)


def _tell(socket: Path | None, command: Command, done: str, *, as_json: bool) -> None:
    found = ask(_place(socket), command)
    if as_json:
        typer.echo(data.as_json(found))
        return
    runs = found.get("runs")
    typer.echo(f"{', '.join(runs)}: {done}" if runs else done)


def _place(socket: Path | None) -> Path:
    if socket is not None:
        return socket
    found = find_sockets()
    if not found:
        raise ConfigError("no run listens: start one with headgate run --control, or name its socket with --socket")
    if len(found) > 1:
        raise ConfigError(f"several runs listen, say which with --socket: {', '.join(map(str, found))}")
    return found[0]
