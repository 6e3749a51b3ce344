"""What a run says while it goes on, through structlog: only what somebody should act on.

An application that has configured structlog gets these events its own way; otherwise they go to standard error, since
standard output belongs to the program.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, cast

import structlog

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

__all__ = ["logger"]


def logger(run: str) -> FilteringBoundLogger:
    """A logger for the run of this name."""
    if structlog.is_configured():
        return cast("FilteringBoundLogger", structlog.get_logger("headgate", run=run))
    bound = structlog.wrap_logger(structlog.PrintLogger(file=sys.stderr), run=run)
    return cast("FilteringBoundLogger", bound)
