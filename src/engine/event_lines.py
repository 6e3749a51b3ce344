"""Events as JSON lines in a file, written by a thread of its own: the loop of a run never waits for a disk.

Bounded: what is of level debug and comes while ``most`` events wait is dropped, counted, and said in the file where it
would have stood, at the latest at its end. The rest is never dropped: there are few of it, and a run's end is among it.
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, TextIO

from ..errors import ConfigError
from ..events import Event, EventsDropped, as_dict
from .log import logger

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

__all__ = ["MOST_WAITING", "EventLines"]

MOST_WAITING = 16_384
"""Events that wait for the disk: some MiB, and some tenths of a second of a very fast run."""

CLOSE_S = 10.0
"""How long the end of a run waits for a disk that does not come back."""


class EventLines:
    """A sink that appends each event to the file ``path`` as one line of JSON.

    Called on one thread, and never blocks. Raises ConfigError when the file cannot be opened.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        most: int = MOST_WAITING,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        try:
            self._file: TextIO = Path(path).open("a", encoding="utf-8")  # noqa: SIM115  (its thread closes it)
        except OSError as error:
            raise ConfigError(f"events cannot be written to {str(path)!r}: {error}") from error
        self._most = most
        self._wall_clock = wall_clock
        self._waiting: SimpleQueue[Event | None] = SimpleQueue()
        self._refused = 0
        self._said = 0
        self._lost = 0  # with the disk
        self._broken = False
        self._closed = False
        self._thread = threading.Thread(target=self._write_all, name="headgate-events", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        """Have ``event`` written, or drop it."""
        if self._broken or self._closed or (event.level == "debug" and self._waiting.qsize() >= self._most):
            self._refused += 1
        else:
            self._waiting.put(event)

    @property
    def behind(self) -> bool:
        """Whether half of what may wait does, so that whoever has a lot to tell should tell it later."""
        return not (self._broken or self._closed) and 2 * self._waiting.qsize() >= self._most

    @property
    def dropped(self) -> int:
        """How many events are not in the file."""
        return self._refused + self._lost

    def close(self) -> None:
        """Write what waits, and close the file. Blocks until that is done, 10 s at most. Repeating it does no harm."""
        if not self._closed:
            self._closed = True
            self._waiting.put(None)
        self._thread.join(CLOSE_S)

    def _write_all(self) -> None:
        try:
            with self._file:
                while (event := self._waiting.get()) is not None:
                    self._write(event)
                    if self._waiting.empty():
                        self._file.flush()
                self._say_dropped()
        except OSError as error:
            self._broken = True
            self._lost = 1 + self._waiting.qsize()
            logger("").error("events are not written any more", error=str(error), file=self._file.name)

    def _write(self, event: Event) -> None:
        if self._refused != self._said:
            self._say_dropped()
        self._file.write(json.dumps(as_dict(event)) + "\n")

    def _say_dropped(self) -> None:
        missing = self._refused - self._said
        if missing:
            self._said += missing
            gap = EventsDropped(self._wall_clock(), "", missing)
            self._file.write(json.dumps(as_dict(gap)) + "\n")
