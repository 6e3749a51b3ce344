"""Events as JSON lines in a file, written by a thread of its own: the loop of a run never waits for a disk.

Bounded: what is of level debug and comes while ``most`` events wait is dropped, counted, and said in the file where it
would have stood, at the latest at its end. The rest is never dropped: there are few of it, and a run's end is among it.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, TextIO

from ..errors import ConfigError
from ..events import Event, EventsDropped, as_dict
from ..log import logger

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MOST_WAITING", "EventLines"]

MOST_WAITING = 16_384
"""Events that wait for the disk: some MiB, and some tenths of a second of a very fast run."""

CLOSE_S = 10.0
"""How long the end of a run waits for a disk that does not come back."""


class EventLines:
    """A sink that appends each event to the file ``path`` as one line of JSON.

    Processes that are there one after another may append to one file: what a killed one has left of a line ends there.
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
        self._size: int | None = None  # of the file, since this process wrote to it last; None while it is writing
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
                self._size = -1
                while (event := self._waiting.get()) is not None:
                    self._end_line()
                    self._write(event)
                    if self._waiting.empty():
                        self._file.flush()
                        self._size = _end(self._file)
                self._say_dropped()
        except OSError as error:
            self._broken = True
            self._lost = 1 + self._waiting.qsize()
            logger(run="").error("events are not written any more", error=str(error), file=self._file.name)

    def _end_line(self) -> None:
        """End the line that another process has left unfinished, if one has written since."""
        if self._size is None:
            return
        before, self._size = self._size, None
        if _size(self._file) not in (0, before) and not _ends_a_line(self._file.name):
            self._file.write("\n")

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


def _size(file: TextIO) -> int:
    return os.fstat(file.fileno()).st_size


def _end(file: TextIO) -> int:
    """Where what this process wrote last ends: behind it somebody else may have written already."""
    try:
        return os.lseek(file.fileno(), 0, os.SEEK_CUR)
    except OSError:  # a pipe
        return 0


def _ends_a_line(path: str) -> bool:
    """Whether its last byte ends a line, or nobody may know."""
    try:
        with Path(path).open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"
    except OSError:
        return True
