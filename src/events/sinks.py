"""Who listens to what goes on around runs. One that raises is let go: events must not be what breaks anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..log import logger

if TYPE_CHECKING:
    from .kinds import Event, EventSink

__all__ = ["Ear"]


class Ear:
    """One sink, or nobody: then it is false, and whoever asks builds no event."""

    __slots__ = ("_sink",)

    def __init__(self, sink: EventSink | None) -> None:
        self._sink = sink

    def __bool__(self) -> bool:
        return self._sink is not None

    def say(self, event: Event) -> None:
        """Tell it."""
        if self._sink is None:
            return
        try:
            self._sink(event)
        except Exception:
            logger().exception("event sink let go", run=event.run, sink=repr(self._sink), event_kind=event.kind)
            self._sink = None
