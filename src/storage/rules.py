"""The rules that every store applies, and the words in which it refuses.

What is the same row, the same outcome, the same column; what is too large. No store, no I/O: the in-memory
store and the durable ones ask the same functions, so that they cannot come to differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..errors import (
    ClaimLost,
    ConfigError,
    ConflictingResult,
    FencedOut,
    FingerprintMismatch,
    PayloadTooLarge,
    ResultCorrupt,
    ResultExpired,
    StoreError,
    UnknownRun,
)
from .ports import RUNNING, CellStatus
from .references import same_payload

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from .ports import Batch, CellRecord, RowRecord

__all__ = [
    "MAX_PAYLOAD",
    "MAX_REGISTER",
    "Row",
    "batch_too_large",
    "cell_refusal",
    "check_fingerprints",
    "check_register",
    "check_retention",
    "check_sizes",
    "check_sweep",
    "checked_register",
    "claim_lost",
    "closed",
    "expired",
    "fenced_out",
    "row_refusal",
    "swept",
    "unknown_column",
    "unknown_row",
    "unknown_run",
]

MAX_PAYLOAD: Final = 16 * 1024 * 1024
"""Bytes that one payload, input row or history may have unless the store was told otherwise."""

MAX_REGISTER: Final = 4 * 1024 * 1024
"""Bytes that a register may have."""


@dataclass(frozen=True, slots=True)
class Row:
    """What identifies a stored row."""

    position: int
    row_id: str
    digest: bytes


def row_refusal(run: str, given: RowRecord, here: Row | None, same_id: Row | None) -> StoreError | None:
    """Say why ``given`` is not the row stored at its position; None if it is, or if it is new.

    ``here`` is what is stored at that position, ``same_id`` what is stored under that id.
    """
    if here is not None and (here.digest != given.digest or here.row_id != given.row_id):
        return FingerprintMismatch(
            f"row {given.row} of run {run!r} was stored with other content (then {here.row_id!r}, now "
            f"{given.row_id!r}): resume with the rows of the start, or give the run another name"
        )
    if same_id is not None and same_id.position != given.row:
        return FingerprintMismatch(
            f"row id {given.row_id!r} of run {run!r} stands at row {same_id.position} and again at row "
            f"{given.row}: every row needs an id of its own"
        )
    return None


def cell_refusal(run: str, given: CellRecord, status: str, payload: bytes | None) -> StoreError | None:
    """Say why ``given`` contradicts the stored outcome; None if it is the same one again."""
    if given.status == status and same_payload(given.payload, payload):
        return None
    return ConflictingResult(
        f"cell ({given.row}, {given.column!r}) of run {run!r} is {status} already and was given another "
        f"outcome ({given.status}): the first one stays"
    )


def check_fingerprints(run: str, stored: Mapping[str, str], given: Mapping[str, str]) -> None:
    """Raise FingerprintMismatch that names every column known to both whose fingerprint differs."""
    changed = [name for name, fingerprint in given.items() if stored.get(name, fingerprint) != fingerprint]
    if changed:
        names = ", ".join(repr(name) for name in changed)
        raise FingerprintMismatch(
            f"column {names} of run {run!r} has changed since the run was started: restore it, or give "
            "the run another name"
        )


def check_sizes(run: str, batch: Batch, limit: int) -> int:
    """Return the bytes in the batch. Raises PayloadTooLarge that names the part above ``limit`` bytes.

    Asserts what every record must hold: this is the one place that looks at each of them.
    """
    total, done = 0, CellStatus.DONE
    for record in batch.rows:
        assert record.row >= 0, f"row {record.row}: positions count from 0"
        size = len(record.data)
        if size > limit:
            raise _too_large(f"row {record.row} of run {run!r}: the input row", size, limit)
        total += size
    for cell in batch.cells:
        payload = cell.payload
        assert (payload is None) != (cell.status is done), (
            f"cell ({cell.row}, {cell.column}): a payload belongs to a done cell, and to no other"
        )
        size = 0 if payload is None else len(payload)
        if size > limit:
            raise _too_large(f"row {cell.row} of run {run!r}: column {cell.column!r}", size, limit)
        total += size
    for held in batch.held:
        size = len(held.history)
        if size > limit:
            raise _too_large(f"row {held.row} of run {run!r}: the history of column {held.column!r}", size, limit)
        total += size
    size = len(batch.learned or b"")
    if size > limit:
        raise _too_large(f"run {run!r}: what was learned", size, limit)
    return total + size


def batch_too_large(run: str, size: int, limit: int) -> PayloadTooLarge:
    """Build the error for a commit that is too large as a whole."""
    return PayloadTooLarge(f"run {run!r}: a commit has {size} bytes, the store takes {limit}: commit it in parts")


def _too_large(what: str, size: int, limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"{what} has {size} bytes, the store takes {limit}: keep the bulk in a "
        "file and its name in the cell, or raise max_payload of the store"
    )


def expired(run: str, rows: int) -> ResultExpired:
    """Build the error for a run of which ``rows`` rows were handed out and not kept."""
    return ResultExpired(
        f"run {run!r}: {rows} rows were handed out by rows(), and without a store they are kept nowhere else: give a "
        "store= to read results again or to resume, or another name to run again"
    )


def swept(run: str) -> ResultExpired:
    """Build the error for reading a run that a sweep has dropped."""
    return ResultExpired(f"run {run!r} had ended and was swept: its results are kept no more; opening it begins anew")


def check_sweep(keep_s: float, statuses: Collection[str], spare: Collection[str], retention_s: float) -> None:
    """Assert what a sweep may be asked for. Raises ConfigError if others rely on results for longer than it keeps them.

    ``retention_s`` is the longest time for which anybody does, as the store was told.
    """
    assert keep_s >= 0, f"keep_s {keep_s}: seconds that lie behind"
    assert RUNNING not in statuses, "a run that goes on is never swept"
    assert not isinstance(spare, str), f"spare {spare!r}: a collection of names, not one"
    if keep_s < retention_s:
        raise ConfigError(
            f"keep_s={keep_s:g}: the store was told that results are relied on for {retention_s:g} seconds after a run "
            f"has ended (retention_s): keep them for at least as long"
        )


def check_retention(retention_s: float) -> None:
    """Raise ConfigError for a retention that cannot be meant."""
    if not retention_s >= 0:
        raise ConfigError(f"retention_s={retention_s:g}: zero seconds or more, such as {30 * 86400} for thirty days")


def fenced_out(run: str, epoch: int, current: int | None) -> StoreError:
    """Build the error for a write by ``epoch`` when ``current`` holds the run."""
    if current is None:
        return unknown_run(run)
    return FencedOut(f"run {run!r} was opened again (epoch {current}); epoch {epoch} may not write to it any more")


def claim_lost(run: str, groups: Sequence[int]) -> ClaimLost:
    """Build the error for work on row groups that are not held, or not any more."""
    names = ", ".join(str(group) for group in groups)
    return ClaimLost(f"run {run!r}: row group {names} is another engine's, or nobody's: claim it before working on it")


def unknown_run(run: str) -> UnknownRun:
    """Build the error for a run that the store does not have."""
    return UnknownRun(f"the store has no run {run!r}")


def unknown_row(run: str, row: int) -> StoreError:
    """Build the error for a cell whose row is neither stored nor in the batch."""
    return StoreError(f"row {row} is not in run {run!r}: commit its RowRecord before its cells, or together with them")


def unknown_column(run: str, column: str) -> StoreError:
    """Build the error for a cell of a column that the run was not opened with."""
    return StoreError(f"run {run!r} has no column {column!r}: name it in the fingerprints when opening the run")


def closed(what: str) -> StoreError:
    """Build the error for using something after its ``aclose``."""
    return StoreError(f"{what} is closed")


def check_register(name: str, data: bytes, after: int) -> None:
    """Raise PayloadTooLarge for a content that no register takes."""
    assert name, "a register has a name"
    assert after >= 0, f"version {after}: a register that was never written has version 0"
    if len(data) > MAX_REGISTER:
        raise PayloadTooLarge(f"register {name!r}: {len(data)} bytes are more than the {MAX_REGISTER} that it takes")


def checked_register(name: str, data: bytes, *, intact: bool) -> bytes:
    """Return the content of a register. Raises ResultCorrupt if it is not what was written."""
    if not intact:
        raise ResultCorrupt(f"register {name!r} does not match its checksum: restore the store from a copy")
    return data
