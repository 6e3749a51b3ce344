"""Events as log entries, through structlog: for those who collect logs rather than files of events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..errors import ConfigError
from ..events import as_dict
from ..log import logger

if TYPE_CHECKING:
    from ..events import Event, EventSink, Level

__all__ = ["event_log"]

_LOUDNESS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def event_log(level: Level = "info") -> EventSink:
    """A sink, to be given as ``events=``, that logs every event which is at least as loud as ``level``.

    With ``debug`` that is some events for each cell. The entries go where the program's structlog sends them, else to
    standard error; the event's kind is their name. What a run logs by itself it logs beside them. Raises ConfigError
    for a level that there is not.
    """
    if level not in _LOUDNESS:
        raise ConfigError(f"event_log: level must be one of {', '.join(_LOUDNESS)}, not {level!r}")
    least = _LOUDNESS[level]

    def log(event: Event) -> None:
        loudness = _LOUDNESS[event.level]
        if loudness >= least:
            said = as_dict(event)
            del said["kind"], said["run"]
            logger(run=event.run).log(loudness, event.kind, **said)

    return log
