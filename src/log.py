"""What is said while a program goes on, through structlog: only what somebody should act on.

An application that has configured structlog gets these events its own way; otherwise they go to standard error, since
standard output belongs to the program.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TextIO, cast

import structlog

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

__all__ = ["logger"]


class _StandardError:
    """Standard error as it is when something is said: a live view takes it over, to say it above its table.

    A process may have none, or one that nobody reads any more: no run ends because nobody can be told.
    """

    def write(self, text: str) -> None:
        stream = cast("TextIO | None", sys.stderr)
        if stream is not None:
            with suppress(OSError, ValueError):  # ValueError: it is closed
                stream.write(text)

    def flush(self) -> None:
        stream = cast("TextIO | None", sys.stderr)
        if stream is not None:
            with suppress(OSError, ValueError):
                stream.flush()


_STANDARD_ERROR: Final = cast("TextIO", _StandardError())
"""One for all: structlog keeps a lock for each file that it ever wrote to."""


def logger(**about: object) -> FilteringBoundLogger:
    """A logger for entries that say ``about`` what they are. Asked anew for each: the program may configure it late."""
    if structlog.is_configured():
        return cast("FilteringBoundLogger", structlog.get_logger("headgate", **about))
    bound = structlog.wrap_logger(structlog.PrintLogger(file=_STANDARD_ERROR)).bind(**about)
    return cast("FilteringBoundLogger", bound)
