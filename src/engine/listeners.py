"""Who listens to an engine: sinks of events, given by its user. One that raises is let go and the runs go on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import anyio
import anyio.to_thread

from ..errors import ConfigError
from ..events import Event, EventSink
from ..log import logger
from .event_lines import EventLines

__all__ = ["BodySink", "Entered", "EventsSource", "Listeners", "check_source", "open_listeners"]

if TYPE_CHECKING:
    from collections.abc import Iterator


@runtime_checkable
class BodySink(Protocol):
    """A sink that also has something to do around each call of a body, in the task that calls it.

    What it sets in context variables the body sees, in a worker thread too. As with events, it must not block, and what
    it raises ends its own part only.
    """

    def __call__(self, event: Event) -> object:
        """Take in one event."""
        ...

    def enter_body(self, run: str, column: str, row: int | None, group: int | None) -> object:
        """The body of ``column`` is called: for a row, or for a row group. What it returns ``leave_body`` gets."""
        ...

    def leave_body(self, entered: object) -> None:
        """That call returned, raised or was cancelled."""
        ...


Entered = list[tuple[BodySink, object]]
"""Sinks around one call of a body, and what each of them returned."""

EventsSource = str | os.PathLike[str] | EventSink | Sequence[str | os.PathLike[str] | EventSink] | None
"""Where events go: a path of a JSON-lines file, a function that takes each event, several of these, or None."""

LOOK_S = 0.001
MOST_LOOKS = 2_000
"""How often, and how many times, room in a file is looked for: a dead disk must hold up no run for long."""


class Listeners:
    """The sinks of one engine; ``wall_clock`` dates what they are told."""

    __slots__ = ("_around", "_owned", "_sinks", "wall_clock")

    def __init__(
        self, sinks: Sequence[EventSink], owned: Sequence[EventLines], wall_clock: Callable[[], float]
    ) -> None:
        self._sinks = list(sinks)
        self._around = [sink for sink in sinks if isinstance(sink, BodySink)]
        self._owned = tuple(owned)
        self.wall_clock = wall_clock

    def say(self, event: Event) -> None:
        """Tell every sink. One that raises hears nothing more: events must not be what breaks a run."""
        for sink in tuple(self._sinks):
            try:
                sink(event)
            except Exception:
                self._let_go(sink, event.run, event.kind)

    @property
    def surrounds(self) -> bool:
        """Whether any sink is a :class:`BodySink`."""
        return bool(self._around)

    def enter_body(self, run: str, column: str, row: int | None, group: int | None) -> Entered:
        """Tell those that surround bodies of a call that begins in this task."""
        entered: Entered = []
        for sink in tuple(self._around):
            try:
                entered.append((sink, sink.enter_body(run, column, row, group)))
            except Exception:
                self._let_go(sink, run, "enter_body")
        return entered

    def leave_body(self, run: str, entered: Entered) -> None:
        """Tell them of its end, the last one first."""
        for sink, what in reversed(entered):
            try:
                sink.leave_body(what)
            except Exception:
                self._let_go(sink, run, "leave_body")

    def _let_go(self, sink: EventSink, run: str, kind: str) -> None:
        """``sink`` has just raised: it hears nothing more."""
        if sink not in self._sinks:
            return  # it was told of something else meanwhile, by what it did itself, and raised there too
        self._sinks.remove(sink)
        self._around = [one for one in self._around if one is not sink]
        logger(run=run).exception("event sink let go", sink=repr(sink), event_kind=kind)

    async def room(self) -> bool:
        """Let the files have written some of what waits: at once if they keep up. False if that takes seconds."""
        for _ in range(MOST_LOOKS):
            if not any(isinstance(sink, EventLines) and sink.behind for sink in self._sinks):
                return True
            await anyio.sleep(LOOK_S)
        return False

    @property
    def sinks(self) -> tuple[EventSink, ...]:
        """Those that still listen, for an engine that tells the same listeners; who opened the files closes them."""
        return tuple(self._sinks)

    async def aclose(self) -> None:
        """Write out what the sinks of our own still have, also when cancelled: some seconds at most."""
        with anyio.CancelScope(shield=True):
            for sink in self._owned:
                await anyio.to_thread.run_sync(sink.close)


def open_listeners(source: EventsSource, wall_clock: Callable[[], float]) -> Listeners | None:
    """The listeners of an engine; None if there are none. Raises ConfigError for a file that cannot be written."""
    sinks: list[EventSink] = []
    owned: list[EventLines] = []
    try:
        for one in _each(source):
            if isinstance(one, (str, os.PathLike)):
                owned.append(EventLines(os.fspath(one), wall_clock=wall_clock))
                sinks.append(owned[-1])
            else:
                sinks.append(one)
    except BaseException:
        for lines in owned:
            lines.close()
        raise
    return Listeners(sinks, owned, wall_clock) if sinks else None


def _each(source: EventsSource) -> Iterator[str | os.PathLike[str] | EventSink]:
    if source is None:
        return
    if isinstance(source, Sequence) and not isinstance(source, str):
        yield from source
    else:
        yield source


def check_source(source: EventsSource) -> None:
    """Raise ConfigError for what cannot be told anything."""
    for one in _each(source):
        if not isinstance(one, (str, os.PathLike)) and not callable(one):
            raise ConfigError(f"events must be a path, a function, or a list of them, not {one!r}")
