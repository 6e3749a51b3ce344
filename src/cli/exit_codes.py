"""What the exit codes of the commands mean: one table, for help, documents and tests."""

from __future__ import annotations

from typing import Final

from ..engine.report import RunStatus

__all__ = ["EXIT_CODES", "REFUSED", "epilog"]

REFUSED: Final = 1
"""The command could not be done: standard error says why, in one line."""

EXIT_CODES: Final[dict[int, str]] = {
    0: "done; of a run: every row is done or skipped",
    REFUSED: "it could not be done: one line on standard error says why",
    2: "the command line itself is wrong",
    RunStatus.COMPLETED_WITH_FAILURES.exit_code: "the run ended, some rows failed",
    RunStatus.HELD.exit_code: "rows wait for a provider, or the deadline passed: resume later",
    RunStatus.STALLED.exit_code: "nothing finished for longer than the stall timeout",
    RunStatus.BUDGET_EXHAUSTED.exit_code: "reserved; no run ends with it yet",
    RunStatus.STOPPED.exit_code: "Ctrl-C: what was finished is kept, resume goes on",
}


def epilog() -> str:
    """The table as the end of the help; the first character keeps its lines as they are."""
    return "\n".join(["\b", "Exit codes:", *(f"  {code:<3} {meaning}" for code, meaning in EXIT_CODES.items())])
