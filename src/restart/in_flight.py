"""Which tasks are at work, where another process can read it when this one is gone.

A file that is mapped into memory: noting a task is a store of sixteen bytes, no call of the system, and what is in the
mapping outlives the process however it ends. It need not outlive the machine, so nothing is flushed.
"""

from __future__ import annotations

import json
import mmap
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from .values import TaskId

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence
    from os import PathLike
    from types import TracebackType

__all__ = ["SLOTS", "InFlightFile", "read_in_flight"]

SLOTS: Final = 4096
"""Tasks that can be noted at once; further ones are not."""

_SLOT: Final = struct.Struct("<qq")  # the row from 1 on, 0 for a slot that is free; the place of the column
_HEAD: Final = struct.Struct("<q")  # bytes of the names that follow the slots


class InFlightFile:
    """The tasks at work of one process, by column names that are known from the beginning. For one thread.

    Raises OSError if there is no room for the file; from then on nothing that is noted needs more.
    """

    def __init__(self, path: str | PathLike[str], columns: Sequence[str]) -> None:
        names = json.dumps(list(columns)).encode()
        size = _HEAD.size + SLOTS * _SLOT.size
        try:
            with Path(path).open("w+b") as file:
                # Zeros, not a hole: where a hole finds no room when it is written to, the process gets SIGBUS.
                file.write(bytes(size) + names)
                file.flush()
                self._map = mmap.mmap(file.fileno(), size)
        except OSError as error:
            said = f"what is at work cannot be noted here: {error.strerror}"
            raise OSError(error.errno, said, str(path)) from error
        _HEAD.pack_into(self._map, 0, len(names))
        self._columns = {name: place for place, name in enumerate(columns)}
        self._free = list(range(_HEAD.size, size, _SLOT.size))
        self._at: dict[Hashable, int] = {}

    def began(self, task: Hashable, row: int, column: str) -> None:
        """``task`` is at work from now on, for people on ``row`` (from 0) and ``column``."""
        if not self._free:
            return
        at = self._at[task] = self._free.pop()
        _SLOT.pack_into(self._map, at, row + 1, self._columns[column])

    def ended(self, task: Hashable) -> None:
        """``task`` is at work no more."""
        at = self._at.pop(task, None)
        if at is not None:
            _SLOT.pack_into(self._map, at, 0, 0)
            self._free.append(at)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._map.close()


def read_in_flight(path: str | PathLike[str]) -> tuple[TaskId, ...]:
    """The tasks that are noted in the file, sorted; none if there is no such file, or it makes no sense."""
    try:
        data = Path(path).read_bytes()
        end = _HEAD.size + SLOTS * _SLOT.size
        (length,) = _HEAD.unpack_from(data)
        columns = json.loads(data[end : end + length])
        found = (slot for slot in _SLOT.iter_unpack(data[_HEAD.size : end]) if slot[0])
        return tuple(sorted(TaskId(row - 1, columns[column]) for row, column in found))
    except (OSError, ValueError, LookupError, TypeError, struct.error):
        return ()
