"""Several batches as one: the columns of what a group commit writes.

Applying the result must be the same as applying the batches one after the other. Of records with the same key the first
counts, the database sees to it; but a cell may be let go and held again and again, so for held cells it is the last
word that is passed on. Cells are reopened before anything is said about them. A batch that contradicts another one, or
what is stored, lets the whole group be refused.

Text cannot hold the character NUL in PostgreSQL, so that it is written as ``\\0`` and a backslash as two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain
from typing import TYPE_CHECKING
from zlib import crc32

from ..values import writable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .ports import Batch, HeldRecord, RowRecord

__all__ = ["Entangled", "Merged", "id_digest", "merge", "packed", "unknown_columns", "unpacked"]


class Entangled(Exception):
    """Batches that cannot be written as one: what an earlier one may do depends on a later one."""


@dataclass(slots=True)
class Merged:
    """Columns by table, in the order of the parameters of ``commit_batches``."""

    rows: list[list[object]] = field(default_factory=lambda: [[] for _ in range(6)])
    reopened: list[list[object]] = field(default_factory=lambda: [[] for _ in range(2)])
    cells: list[list[object]] = field(default_factory=lambda: [[] for _ in range(12)])
    unheld: list[list[object]] = field(default_factory=lambda: [[] for _ in range(2)])
    held: list[list[object]] = field(default_factory=lambda: [[] for _ in range(6)])
    spent: list[list[object]] = field(default_factory=lambda: [[] for _ in range(6)])
    learned: bytes | None = None

    def parameters(self) -> list[object]:
        """Return all of it, what was learned with its checksum."""
        learned = self.learned
        checksum = None if learned is None else crc32(learned)
        parts = (self.rows, self.reopened, self.cells, self.unheld, self.held, self.spent)
        return [*chain.from_iterable(parts), checksum, learned]


def unknown_columns(batch: Batch, columns: Mapping[str, int]) -> str | None:
    """Return the first column that the batch speaks of and the run does not have."""
    for records in (batch.cells, batch.held, batch.spent):
        for record in records:
            if record.column not in columns:
                return record.column
    return None


def merge(batches: Iterable[Batch], columns: Mapping[str, int]) -> Merged:
    """Return the batches as one. Raises KeyError for a column that is not in ``columns``, Entangled."""
    merged = Merged()
    spoken: set[int] = set()
    last_word: dict[tuple[int, str], HeldRecord | None] = {}
    terminal: set[tuple[int, str]] = set()
    reopened: set[tuple[int, str]] = set()
    for batch in batches:
        # A row is to be there when its cells come. Alone the earlier batch is refused, if the row is really new.
        if not spoken.isdisjoint(record.row for record in batch.rows):
            raise Entangled
        # An outcome or a hold of before counts by what was there then, and that is what would be taken off first.
        if batch.reopened and not spoken.isdisjoint(row for row, _ in batch.reopened):
            raise Entangled
        # What is let go again is not passed on, and so would never be refused: a column or a row that is not there.
        if any(last_word.get(key) is not None for key in batch.unheld):
            raise Entangled
        reopened.update(batch.reopened)
        for records in (batch.cells, batch.held, batch.spent):
            spoken.update(record.row for record in records)
        _fill(merged.rows, [_row(record) for record in batch.rows])
        _cells(merged, batch, columns)
        terminal.update((cell.row, cell.column) for cell in batch.cells)
        last_word.update(dict.fromkeys(batch.unheld))
        last_word.update({(held.row, held.column): held for held in batch.held})
        _fill(
            merged.spent,
            [
                (s.row, columns[s.column], s.attempt, packed(s.reason), s.usage.input_tokens, s.usage.output_tokens)
                for s in batch.spent
            ],
        )
        merged.learned = merged.learned if batch.learned is None else batch.learned
    _fill(merged.reopened, [(row, columns[name]) for row, name in sorted(reopened) if name in columns])
    words = [(key, held) for key, held in last_word.items() if key not in terminal]
    _fill(merged.unheld, [(row, columns[name]) for (row, name), held in words if held is None and name in columns])
    _fill(
        merged.held,
        [
            (row, columns[name], packed(held.reason), held.not_before, held.attempts, held.history)
            for (row, name), held in words
            if held is not None
        ],
    )
    return merged


def id_digest(row_id: str) -> bytes:
    """Return what stands for an id of any length in an index."""
    return blake2b(row_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def packed(said: str) -> str:
    """Return text that PostgreSQL takes, from which ``unpacked`` gets ``said`` again.

    Half a surrogate pair, which no encoding takes, is written out: what a provider said must not sink a batch.
    """
    said = writable(said)
    if "\\" in said or "\0" in said:
        return said.replace("\\", "\\\\").replace("\0", "\\0")
    return said


def unpacked(text: str) -> str:
    """Return what was ``packed``."""
    if "\\" not in text:
        return text
    return text.replace("\\\\", "\\ ").replace("\\0", "\0").replace("\\ ", "\\")


def _row(record: RowRecord) -> tuple[object, ...]:
    data = record.data
    row_id = record.row_id
    return (record.row, id_digest(row_id), packed(row_id), record.digest, crc32(data), data)


def _cells(merged: Merged, batch: Batch, columns: Mapping[str, int]) -> None:
    _fill(
        merged.cells,
        [
            (
                c.row,
                columns[c.column],
                c.status.value,
                packed(c.reason),
                packed(c.message),
                c.attempts,
                c.http_status,
                c.usage.input_tokens,
                c.usage.output_tokens,
                c.finished_at,
                crc32(c.payload or b""),
                c.payload,
            )
            for c in batch.cells
        ],
    )


def _fill(columns: list[list[object]], records: list[tuple[object, ...]]) -> None:
    for column, values in zip(columns, zip(*records, strict=True), strict=False):
        column.extend(values)
