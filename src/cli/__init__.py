"""The command line, ``headgate``. Needs the extra ``cli`` (typer).

Commands are thin: each reads its arguments, calls what the library offers to everybody, and shows what came of it.
"""

from __future__ import annotations

import sys

__all__ = ["main"]

_NEEDED = frozenset({"typer", "click", "rich", "shellingham"})


def main() -> None:
    """Run the command that the program's arguments name, and exit with its code."""
    try:
        from .app import app
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _NEEDED:
            raise
        sys.stderr.write("headgate: the command line needs typer: pip install 'headgate[cli]'\n")
        raise SystemExit(1) from None
    app(prog_name="headgate")
