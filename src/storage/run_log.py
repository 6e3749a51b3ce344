"""The log of one run in a directory: numbered slots in numbered epochs, each taken once and never changed.

Theory of operation
-------------------
::

    <run>/name.json                    which run this is
    <run>/epochs/00000003/             one directory per opening of the run
    <run>/epochs/00000003/00000000     the opening itself, then commits, at the end a seal

A writer appends by taking the next slot of its epoch with a link, which is atomic on every machine that shares the
directory. Whoever opens the run takes the next free slot of the latest epoch for a *seal*, with the same operation,
and only then begins an epoch of its own. A writer that was paused or cut off meanwhile finds its next slot taken: it is
fenced out by the very operation that would have committed (D4). No clock is compared, no lock held, no lease expires.

Everything that happened is the slots in order, epoch after epoch. Each is durable before the next is taken, so a
crash leaves a prefix (D2).

No name in an epoch is ever given free: a paused writer might take it. Epochs go away as whole directories, and only
with the run.

Prior art: a write-ahead log as the one truth; fencing by sealing the log's end, as in Apache BookKeeper and Delos.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from .file_entry import Sealed, from_bytes, to_bytes
from .generations import make_dirs, publish

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .disk import Disk
    from .file_entry import Entry, Opening

__all__ = ["Place", "RunLog"]

_NUMBER: Final = re.compile(r"[0-9]{8}")

Place = tuple[int, int]
"""An epoch and a slot in it."""


class RunLog:
    """The log of the run whose files are in ``directory``. Every method raises OSError, and ResultCorrupt."""

    def __init__(self, disk: Disk, directory: Path) -> None:
        self._disk = disk
        self._epochs = directory / "epochs"
        self._directory = directory

    def epochs(self) -> list[int]:
        """The epochs begun so far, in order."""
        try:
            names = self._disk.names(self._epochs)
        except FileNotFoundError:
            return []
        return sorted(int(name) for name in names if _NUMBER.fullmatch(name))

    def read(self, place: Place) -> Iterator[tuple[Place, Entry]]:
        """Yield what was appended at and after ``place``, each entry with the place after it."""
        epoch, slot = place
        for each in self.epochs():
            if each < epoch:
                continue
            if each > epoch:
                epoch, slot = each, 0
            found = False
            while (entry := self._at(epoch, slot)) is not None:
                found = True
                slot += 1
                yield (epoch, slot), entry
            if found:
                # What its writer has not made sure of yet must not be seen and then be lost.
                self._disk.sync_dir(self._path(epoch))

    def append(self, place: Place, entry: Entry) -> bool:
        """Let ``entry`` be at ``place``, lasting on return. False if the place is taken: a newer epoch was opened."""
        return publish(self._disk, self._path(*place), to_bytes(entry))

    def begin(self, opening: Opening, after: Place) -> Place | None:
        """Seal the log at ``after`` and begin a new epoch with ``opening``; return the place for its next entry.

        None if somebody has appended, or begun another epoch, meanwhile: read on, and try again.
        """
        make_dirs(self._disk, self._epochs, below=self._directory)
        latest = max(self.epochs(), default=0)
        if latest > after[0]:
            after = (latest, 0)  # begun and not opened yet: by somebody who died there, or will find it sealed
        if latest and not self.append(after, Sealed()):
            return None
        try:
            self._disk.make_dir(self._path(latest + 1))
        except FileExistsError:
            return None
        self._disk.sync_dir(self._epochs)
        return (latest + 1, 1) if self.append((latest + 1, 0), opening) else None

    def _at(self, epoch: int, slot: int) -> Entry | None:
        path = self._path(epoch, slot)
        try:
            data = self._disk.read(path)
        except FileNotFoundError:
            return None
        return from_bytes(data, path)

    def _path(self, *numbers: int) -> Path:
        return self._epochs.joinpath(*(f"{number:08d}" for number in numbers))
