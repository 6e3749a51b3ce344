"""Large payloads as files: each is written once, under a name of its own, before the journal refers to it.

::

    <directory>/<run>/<rows>/<epoch>-<row>-<unique>

A file under its name is whole and lasting (T50); it holds the payload as it is, and the journal holds its checksum.
What nothing refers to was written by somebody who died before the commit, or was refused. It is left over once its
epoch is: nobody can commit in an epoch before the current one any more, so what the journal does not refer to by then
it never will. No clock is asked.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from anyio import to_thread

from ..errors import ResultCorrupt
from . import generations, references
from .disk import meaning_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator
    from pathlib import Path

    from .disk import Disk
    from .ports import Batch, CellRecord, StoredRow

__all__ = ["TEMPORARY_S", "PayloadFiles"]

TEMPORARY_S: Final = 3600.0
"""After so long a temporary file is taken for what a crash has left. A writer that misses one writes another."""

_NAME: Final = re.compile(r"([0-9]{8})-([0-9]{8,})-[0-9a-f]{16}")
_SHARD: Final = re.compile(r"[0-9]{4,}")
_ROWS: Final = 1024  # to a directory


class PayloadFiles:
    """The payloads below ``directory``, which is made with its parents from ``below`` on. Safe to use from any thread.

    ``lasting`` is whether they have to survive a loss of power.
    """

    def __init__(self, disk: Disk, directory: Path, *, below: Path, lasting: bool = True) -> None:
        self._disk = disk
        self._directory = directory
        self._below = below
        self._lasting = lasting
        self._made: set[Path] = set()

    def move_out(self, batch: Batch, run: str, epoch: int) -> Batch:
        """Write the large payloads of a batch to files; return the batch with references. Raises StoreError."""
        if not any(_is_large(cell) for cell in batch.cells):
            return batch
        written: set[Path] = set()
        try:
            cells = tuple(self._moved(cell, run, epoch, written) for cell in batch.cells)
            for directory in written if self._lasting else ():
                self._disk.sync_dir(directory)
        except OSError as error:
            raise meaning_of(error, self._directory) from error
        return replace(batch, cells=cells)

    def move_in(self, rows: list[StoredRow], run: str) -> list[StoredRow]:
        """Return the rows with payloads for references. Raises ResultCorrupt that names the file, StoreError."""
        return [self._whole(row, run) if _refers(row.cells) else row for row in rows]

    async def whole(self, read: Callable[[], Awaitable[list[StoredRow]]], run: str) -> list[StoredRow]:
        """Return the rows that ``read`` finds, with their payloads. Raises ResultCorrupt, and what ``read`` raises."""
        rows = await read()
        try:
            return await self.moved_in(rows, run)
        except ResultCorrupt:
            await read()  # ResultExpired, if a sweep has come in between
            raise

    async def moved_in(self, rows: list[StoredRow], run: str) -> list[StoredRow]:
        """As :meth:`move_in`, in a worker thread if there is something to read."""
        if not any(_refers(row.cells) for row in rows):
            return rows
        return await to_thread.run_sync(self.move_in, rows, run)

    def leftovers(self, run: str, before: int) -> Iterator[tuple[int, str]]:
        """Yield the files that epochs before ``before`` have written: the row that each belongs to, and its name."""
        for shard in self._shards(run):
            for name in self._names(self._directory / run / shard):
                found = _NAME.fullmatch(name)
                if found is not None and int(found[1]) < before:
                    yield int(found[2]), f"{run}/{shard}/{name}"

    def has_files(self, run: str) -> bool:
        """Whether a payload of the run was ever moved out."""
        return bool(self._shards(run))

    def remove(self, files: Iterable[str]) -> int:
        """Remove files; return how many."""
        removed = 0
        for file in files:
            try:
                self._disk.remove(self._directory / file)
            except FileNotFoundError:
                continue  # another sweep was quicker
            removed += 1
        return removed

    def remove_temporary(self, run: str, older_than_s: float) -> int:
        """Remove what was being written so long ago; return how many files."""
        shards = [self._directory / run / shard for shard in self._shards(run)]
        return sum(generations.remove_temporary(self._disk, shard, older_than_s) for shard in shards)

    def _moved(self, cell: CellRecord, run: str, epoch: int, written: set[Path]) -> CellRecord:
        payload = cell.payload
        if payload is None or not _is_large(cell):
            return cell
        shard = f"{cell.row // _ROWS:04d}"
        directory = self._directory / run / shard
        if directory not in self._made:
            generations.make_dirs(self._disk, directory, below=self._below, lasting=self._lasting)
            self._made.add(directory)
        name = f"{epoch:08d}-{cell.row:08d}-{secrets.token_hex(8)}"
        generations.put(self._disk, directory / name, payload, lasting=self._lasting)
        written.add(directory)
        return replace(cell, payload=references.reference(payload, f"{run}/{shard}/{name}"))

    def _whole(self, row: StoredRow, run: str) -> StoredRow:
        cells = tuple(
            replace(cell, payload=self._read(cell, run)) if references.is_reference(cell.payload) else cell
            for cell in row.cells
        )
        return replace(row, cells=cells)

    def _read(self, cell: CellRecord, run: str) -> bytes:
        assert cell.payload is not None
        files = references.files_of(cell.payload)
        for file in files:
            try:
                payload = self._disk.read(self._directory / file)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise meaning_of(error, self._directory / file) from error
            if references.holds(cell.payload, payload):
                return payload
        raise ResultCorrupt(
            f"row {cell.row} of run {run!r}: column {cell.column!r} is in {self._directory / files[0]}, which is "
            "missing or does not match its checksum: restore it from a copy"
        )

    def _shards(self, run: str) -> list[str]:
        return [name for name in self._names(self._directory / run) if _SHARD.fullmatch(name)]

    def _names(self, directory: Path) -> list[str]:
        try:
            return self._disk.names(directory)
        except (FileNotFoundError, NotADirectoryError):
            return []


def _is_large(cell: CellRecord) -> bool:
    return cell.payload is not None and len(cell.payload) > references.INLINE_BYTES


def _refers(cells: Iterable[CellRecord]) -> bool:
    return any(references.is_reference(cell.payload) for cell in cells)
