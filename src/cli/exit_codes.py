"""What the exit codes of the commands mean: one table, for help, documents and tests."""

from __future__ import annotations

from typing import Final

from ..values import EXIT_CODES as _CODES

__all__ = ["EXIT_CODES", "REFUSED", "epilog"]

REFUSED: Final = _CODES["crashed"]
"""The command could not be done: standard error says why, in one line."""

EXIT_CODES: Final[dict[int, str]] = {
    _CODES["completed"]: "done; of a run: every row is done or skipped",
    REFUSED: "it could not be done: one line on standard error says why",
    2: "the command line itself is wrong",
    _CODES["completed_with_failures"]: "the run ended, some rows failed",
    _CODES["held"]: "rows wait for a provider, or the deadline passed: resume later",
    _CODES["stalled"]: "nothing finished for longer than the stall timeout",
    _CODES[
        "budget_exhausted"
    ]: "the budget has no room for more; supervised: or too many lives in a row gained nothing",
    _CODES["told_to_stop"]: "supervised: it was decided to stop; resume --reopen goes on",
    _CODES["stopped"]: "Ctrl-C: what was finished is kept, resume goes on",
}


def epilog() -> str:
    """The table as the end of the help; the first character keeps its lines as they are."""
    return "\n".join(["\b", "Exit codes:", *(f"  {code:<3} {meaning}" for code, meaning in EXIT_CODES.items())])
