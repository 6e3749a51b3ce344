"""The commands by name, and what is done about mistakes: one line that says what is wrong, and exit code 1."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from ..errors import HeadgateError
from . import ctl_commands, demo_command, run_commands, simulate_command, store_commands, supervise_command
from .exit_codes import epilog

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["app"]


class _Commands(TyperGroup):
    """Commands in the order of their definition, whose mistakes are told in one line."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (HeadgateError, OSError) as error:
            if ctx.params.get("traceback") or isinstance(error, BrokenPipeError):
                raise
            _tell(error)
            raise typer.Exit(1) from error


app = typer.Typer(
    name="headgate",
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=epilog(),
)


def _version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        typer.echo(f"headgate {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where in the code an error comes from, instead of one line.")
    ] = False,
) -> None:
    """Run pipelines of model calls over many rows, under limits, with every answer kept.

    A pipeline is named as module:name or path/to/file.py:name. A store is a file (run.db), a directory (runs/), or an
    address (postgresql://user@host/database).
    """


def _tell(error: BaseException) -> None:
    said = " ".join(_words(error))
    sys.stderr.write(f"headgate: {said}\n")


def _words(error: BaseException) -> Sequence[str]:
    if isinstance(error, OSError) and not isinstance(error, HeadgateError) and error.filename:
        return f"{error.filename}: {error.strerror}".split()
    return (str(error) or type(error).__name__).split()


run_commands.add_to(app)
supervise_command.add_to(app)
simulate_command.add_to(app)
store_commands.add_to(app)
ctl_commands.add_to(app)
demo_command.add_to(app)
