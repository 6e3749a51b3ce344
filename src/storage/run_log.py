"""The log of one run in a directory: numbered slots in numbered segments, each taken once and never changed.

Theory of operation
-------------------
::

    <run>/segments/00000003/00000000     what begins the segment: an opening, a drop, or that the epoch goes on
    <run>/segments/00000003/00000001...  commits, and the end of the run; after all others a seal
    <run>/segments/00000003/pack         all of it in one file, once it is sealed; then only the seal keeps its slot

A writer appends by taking the next slot with a link, which is atomic on every machine that shares the directory.
Whoever opens the run takes the next free slot for a *seal*, with the same operation, and only then begins the next
segment; its number is the epoch. A writer that was paused or cut off meanwhile finds its next slot taken: it is fenced
out by the very operation that would have committed (D4). No clock is compared, no lock held, no lease expires. A
writer whose segment has become long seals it itself and goes on in the next one, within its epoch.

Everything that happened is the slots in order, segment after segment. Each is durable before the next is taken, so a
crash leaves a prefix (D2). Where a slot is missing although a later segment exists, it was packed; or the run was
dropped, and the later segment says so; or else it was lost, and that is ResultCorrupt.

Packing makes names free again, and somebody who has been asleep since may take one. A writer never does: the only slot
it would try is the one that the seal has, which stays. Whoever opens with an old idea of the end may, but then there is
a slot behind the one that was taken, and a look at the directory afterwards tells. What it has left there nobody
believes: for what begins and ends a segment the pack comes first.

Prior art: a write-ahead log as the one truth; fencing by sealing the log's end, as in Apache BookKeeper and Delos.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from ..errors import ResultCorrupt
from .file_entry import Dropped, Ended, Opening, Sealed, from_bytes, to_bytes
from .generations import from_pack, make_dirs, publish, remove_temporary, to_pack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .disk import Disk
    from .file_entry import Entry

__all__ = ["START", "Place", "RunLog"]

_NUMBER: Final = re.compile(r"[0-9]{8}")

Place = tuple[int, int]
"""A segment and a slot in it."""

START: Final[Place] = (1, 0)
"""Where every log begins."""


class RunLog:
    """The log of the run whose files are in ``directory``. Every method raises OSError, and ResultCorrupt."""

    def __init__(self, disk: Disk, directory: Path) -> None:
        self._disk = disk
        self._segments = directory / "segments"
        self._directory = directory
        self._pack: tuple[int, list[bytes]] = (0, [])

    def segments(self) -> list[int]:
        """The segments begun so far, in order."""
        return self._numbers(self._segments)

    def read(self, place: Place) -> Iterator[tuple[Place, Entry]]:
        """Yield what was appended at and after ``place``, each entry with the place after it."""
        segment, slot = place
        first = slot
        while True:
            entry = self._at(segment, slot)
            if entry is None:
                if not self._goes_on(segment, slot, thoroughly=place == START):
                    break
                # What comes before the rest was there before it, and is there now, or in the pack.
                entry = self._at(segment, slot)
            if entry is None:
                segment, slot, first = self._drop_after(segment, slot), 0, 0
                continue
            slot += 1
            if isinstance(entry, Sealed):
                self._make_sure(segment)
                segment, slot, first = segment + 1, 0, 0
            yield (segment, slot), entry
        if slot > first:
            self._make_sure(segment)

    def append(self, place: Place, entry: Entry) -> bool:
        """Let ``entry`` be at ``place``, lasting on return. False if the place is taken: a newer epoch was opened."""
        return publish(self._disk, self._path(*place), to_bytes(entry))

    def begin(self, entry: Entry, after: Place) -> Place | None:
        """Seal the log at ``after`` and begin a new segment with ``entry``; return the place for the next one.

        None if somebody has appended, or begun a segment, meanwhile: read on, and try again.
        """
        segment, slot = after
        if slot:
            if self._goes_on(segment, slot, thoroughly=True):
                if self._at(segment, slot) is None:
                    self._drop_after(segment, slot)
                return None
            if not self._take(after, Sealed()):
                return None
            segment += 1
        make_dirs(self._disk, self._path(segment), below=self._directory)
        return (segment, 1) if self._take((segment, 0), entry) else None

    def ended(self) -> Ended | None:
        """How the run ended, if that is its last word but for late commits; looked up from the end of the log."""
        for segment in reversed(self.segments()):
            slots = self._numbers(self._path(segment))
            for slot in reversed(range(slots[-1] + 1 if slots else 0)):
                entry = self._at(segment, slot)
                if isinstance(entry, Ended):
                    return entry
                if entry is None or isinstance(entry, Opening | Dropped):
                    return None
        return None

    def pack(self) -> int:
        """Gather each sealed segment in one file and free its slots but the seal; return how many."""
        return sum(self._pack_segment(segment) for segment in self.segments()[:-1])

    def clear(self) -> int:
        """Remove what stands before the latest drop, but the seals; return how many files."""
        removed, before = 0, self._latest_drop()
        if before:
            self._make_sure(before)
        for segment in self.segments():
            if segment < before:
                slots = self._numbers(self._path(segment))
                removed += self._remove(segment, slots[:-1])
                with suppress(FileNotFoundError):
                    self._disk.remove(self._path(segment) / "pack")
                    removed += 1
        return removed

    def _take(self, place: Place, entry: Entry) -> bool:
        """Append what ends or begins a segment. False also if the name was free only because it has been packed."""
        segment, slot = place
        return self.append(place, entry) and self._numbers(self._path(segment))[-1] == slot

    def _at(self, segment: int, slot: int) -> Entry | None:
        path = self._path(segment, slot)
        with suppress(FileNotFoundError):
            entry = from_bytes(self._disk.read(path), path)
            if slot and not isinstance(entry, Sealed):
                return entry
            packed = self._packed(segment, slot)
            return entry if packed is None else packed
        return self._packed(segment, slot)

    def _packed(self, segment: int, slot: int) -> Entry | None:
        path = self._path(segment) / "pack"
        if self._pack[0] != segment:
            try:
                self._pack = (segment, from_pack(self._disk.read(path), path))
            except FileNotFoundError:
                return None
        entries = self._pack[1]
        return from_bytes(entries[slot], path) if slot < len(entries) else None

    def _pack_segment(self, segment: int) -> int:
        slots = self._numbers(self._path(segment))
        if len(slots) < 2 or not isinstance(self._at(segment, slots[-1]), Sealed):
            return 0
        path = self._path(segment) / "pack"
        if self._packed(segment, slots[-1]) is None:
            try:
                parts = [self._disk.read(self._path(segment, slot)) for slot in range(slots[-1] + 1)]
            except FileNotFoundError:
                return 0  # somebody else packs it, or the run was dropped
            publish(self._disk, path, to_pack(parts))
        self._make_sure(segment)
        return self._remove(segment, slots[:-1])

    def _remove(self, segment: int, slots: list[int]) -> int:
        removed = 0
        for slot in slots:
            with suppress(FileNotFoundError):
                self._disk.remove(self._path(segment, slot))
                removed += 1
        return removed

    def temporaries(self, older_than_s: float) -> int:
        """Remove temporary files that old; return how many."""
        directories = [self._directory, *(self._path(segment) for segment in self.segments())]
        return sum(remove_temporary(self._disk, directory, older_than_s) for directory in directories)

    def _goes_on(self, segment: int, slot: int, *, thoroughly: bool) -> bool:
        """Whether there is a later segment; and ``thoroughly`` also whether there is a later slot in this one."""
        if any(each > segment for each in self.segments()):
            return True
        return thoroughly and any(each > slot for each in self._numbers(self._path(segment)))

    def _drop_after(self, segment: int, slot: int) -> int:
        """Return the segment that says why there is nothing in the slot: that the run was dropped.

        Raises ResultCorrupt if none does.
        """
        if (found := self._latest_drop()) > segment:
            return found
        raise ResultCorrupt(f"{self._path(segment, slot)} is missing: restore it from a copy")

    def _latest_drop(self) -> int:
        """Return the segment that begins with the latest drop; 0 if there is none."""
        return next((each for each in reversed(self.segments()) if isinstance(self._at(each, 0), Dropped)), 0)

    def _make_sure(self, segment: int) -> None:
        """Let what is in the segment last, before anybody is told of it or anything is removed for it.

        Whoever has put it there may not have come to that.
        """
        self._disk.sync_dir(self._path(segment))

    def _numbers(self, directory: Path) -> list[int]:
        try:
            names = self._disk.names(directory)
        except FileNotFoundError:
            return []
        return sorted(int(name) for name in names if _NUMBER.fullmatch(name))

    def _path(self, *numbers: int) -> Path:
        return self._segments.joinpath(*(f"{number:08d}" for number in numbers))
