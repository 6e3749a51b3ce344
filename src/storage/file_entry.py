"""What stands in one slot of a run's log, as bytes: what begins a segment, commits, the run's end, the segment's end.

One line of JSON, then the payloads one after the other. The line has a checksum of its own, and so has each payload:
damage to a payload is found when that payload is read, and costs nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from pydantic_core import from_json, to_json

from ..errors import ResultCorrupt
from ..values import Usage, writable
from .ports import Batch, CellRecord, CellStatus, HeldRecord, RowRecord, SpentRecord

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Commits", "Continued", "Dropped", "Ended", "Entry", "Opening", "Sealed", "from_bytes", "to_bytes"]

_DIGEST_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Opening:
    """The run was opened with these fingerprints, at ``at`` (wall-clock seconds); then the columns ``renewed`` began
    anew, and the ``kept`` went on. The number of the segment that it begins is its epoch.
    """

    fingerprints: Mapping[str, str]
    at: float
    renewed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Continued:
    """The epoch of the segment before goes on. The first entry of a segment."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A sweep dropped the run at ``at`` (wall-clock seconds): what came before counts no more, but for what was
    learned. The first entry of a segment.
    """

    at: float
    learned: bytes | None


@dataclass(frozen=True, slots=True)
class Commits:
    """Batches in order, all of them or none. ``damaged`` are the cells (row, column), and the rows (row,
    None), whose payloads did not match their checksums when this was read.
    """

    batches: tuple[Batch, ...]
    damaged: tuple[tuple[int, str | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Ended:
    """The run ended with ``status``, at ``at`` (wall-clock seconds)."""

    status: str
    at: float


@dataclass(frozen=True, slots=True)
class Sealed:
    """Nothing follows in this segment."""


Entry = Opening | Continued | Dropped | Commits | Ended | Sealed
"""What a slot can hold."""

_MAGIC: Final = b"HGE1"
_HEAD_BYTES: Final = len(_MAGIC) + 4 + _DIGEST_BYTES


def to_bytes(entry: Entry) -> bytes:
    """Return the entry as the bytes of a slot."""
    parts: list[bytes] = []
    line = to_json(_plain(entry, parts), inf_nan_mode="constants")
    head = _MAGIC + len(line).to_bytes(4, "big") + blake2b(line, digest_size=_DIGEST_BYTES).digest()
    return b"".join((head, line, *parts))


def from_bytes(data: bytes, path: Path) -> Entry:
    """Return the entry in the bytes of the file ``path``. Raises ResultCorrupt if they say nothing that holds."""
    head, rest = data[:_HEAD_BYTES], data[_HEAD_BYTES:]
    length = int.from_bytes(head[len(_MAGIC) : -_DIGEST_BYTES], "big")
    line = rest[:length]
    digest = blake2b(line, digest_size=_DIGEST_BYTES).digest()
    if not head.startswith(_MAGIC) or head[-_DIGEST_BYTES:] != digest:
        raise _corrupt(path)
    plain = from_json(line)
    match plain["kind"]:
        case "opening":
            return Opening(plain["fingerprints"], plain["at"], tuple(plain["renewed"]), tuple(plain["kept"]))
        case "ended":
            return Ended(plain["status"], plain["at"])
        case "sealed":
            return Sealed()
        case "continued":
            return Continued()
        case "dropped":
            return Dropped(plain["at"], _Unpacker(rest, length, path).learned(plain["learned"]))
        case _:
            unpacker = _Unpacker(rest, length, path)
            batches = tuple(unpacker.batch(each) for each in plain["batches"])
            return Commits(batches, tuple(unpacker.damaged))


def _plain(entry: Entry, parts: list[bytes]) -> dict[str, Any]:
    match entry:
        case Opening():
            columns = {"fingerprints": dict(entry.fingerprints), "renewed": entry.renewed, "kept": entry.kept}
            return {"kind": "opening", **columns, "at": entry.at}
        case Ended():
            return {"kind": "ended", "status": entry.status, "at": entry.at}
        case Sealed():
            return {"kind": "sealed"}
        case Continued():
            return {"kind": "continued"}
        case Dropped():
            return {"kind": "dropped", "at": entry.at, "learned": _part(entry.learned, parts)}
        case Commits():
            return {"kind": "commits", "batches": [_packed(batch, parts) for batch in entry.batches]}


def _part(data: bytes | None, parts: list[bytes]) -> tuple[int, int] | None:
    """Add a payload to ``parts``; return its length and checksum."""
    if data is None:
        return None
    parts.append(data)
    return len(data), crc32(data)


def _packed(batch: Batch, parts: list[bytes]) -> dict[str, Any]:
    """Return the batch as plain data; its payloads go to ``parts``, and are there by length and checksum."""

    def part(data: bytes | None) -> tuple[int, int] | None:
        return _part(data, parts)

    return {
        "rows": [(r.row, r.row_id, r.digest.hex(), part(r.data)) for r in batch.rows],
        "reopened": batch.reopened,
        "cells": [
            (
                *(c.row, c.column, c.status, part(c.payload)),
                *(writable(c.reason), writable(c.message), c.attempts, c.http_status),
                *(c.usage.input_tokens, c.usage.output_tokens, c.finished_at),
            )
            for c in batch.cells
        ],
        "unheld": batch.unheld,
        "held": [(h.row, h.column, writable(h.reason), h.not_before, h.attempts, part(h.history)) for h in batch.held],
        "spent": [
            (*(s.row, s.column, s.attempt, writable(s.reason)), *(s.usage.input_tokens, s.usage.output_tokens))
            for s in batch.spent
        ],
        "learned": part(batch.learned),
    }


class _Unpacker:
    """Makes batches of plain data and the payloads that follow it, which are taken in the order of writing."""

    def __init__(self, data: bytes, at: int, path: Path) -> None:
        self._data = data
        self._at = at
        self._path = path
        self.damaged: list[tuple[int, str | None]] = []

    def batch(self, plain: Mapping[str, Any]) -> Batch:
        # The order of the fields is the order of the payloads.
        return Batch(
            rows=tuple(self._row(*fields) for fields in plain["rows"]),
            reopened=tuple((row, column) for row, column in plain["reopened"]),
            cells=tuple(self._cell(*fields) for fields in plain["cells"]),
            unheld=tuple((row, column) for row, column in plain["unheld"]),
            held=tuple(self._held(*fields) for fields in plain["held"]),
            spent=tuple(_spent(*fields) for fields in plain["spent"]),
            learned=self.learned(plain["learned"]),
        )

    def _row(self, row: int, row_id: str, digest: str, said: tuple[int, int]) -> RowRecord:
        return RowRecord(row, row_id, bytes.fromhex(digest), self._payload(row, None, said))

    def _cell(
        self, row: int, column: str, status: str, said: tuple[int, int] | None, reason: str, message: str, *rest: Any
    ) -> CellRecord:
        attempts, http_status, tokens_in, tokens_out, at = rest
        payload = None if said is None else self._payload(row, column, said)
        usage = Usage(tokens_in, tokens_out)
        return CellRecord(row, column, CellStatus(status), payload, reason, message, attempts, http_status, usage, at)

    def _held(self, row: int, column: str, reason: str, not_before: float, attempts: int, said: Any) -> HeldRecord:
        history, whole = self._take(said)
        if not whole:
            raise _corrupt(self._path)
        return HeldRecord(row, column, reason, not_before, attempts, history)

    def learned(self, said: tuple[int, int] | None) -> bytes | None:
        """Return what was learned. Damaged, it is as good as never learned."""
        if said is None:
            return None
        data, whole = self._take(said)
        return data if whole else None

    def _payload(self, row: int, column: str | None, said: tuple[int, int]) -> bytes:
        data, whole = self._take(said)
        if not whole:
            self.damaged.append((row, column))
        return data

    def _take(self, said: tuple[int, int]) -> tuple[bytes, bool]:
        """Return the next payload, and whether it is what was written."""
        length, checksum = said
        part = self._data[self._at : self._at + length]
        self._at += length
        return part, len(part) == length and crc32(part) == checksum


def _spent(row: int, column: str, attempt: int, reason: str, tokens_in: int, tokens_out: int) -> SpentRecord:
    return SpentRecord(row, column, attempt, reason, Usage(tokens_in, tokens_out))


def _corrupt(path: Path) -> ResultCorrupt:
    return ResultCorrupt(f"{path} does not match its checksum: restore it from a copy")
