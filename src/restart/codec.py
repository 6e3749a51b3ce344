"""The record of a run as bytes and back; reading it from a store, and opening a run again that it closes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter, ValidationError

from ..errors import ResultCorrupt, SchemaMismatch, StoreUnavailable
from .record import RunRecord

if TYPE_CHECKING:
    from .ports import DecisionStore

__all__ = ["as_plain", "decode", "encode", "read_record", "register_of", "reopen"]

_FORMAT: Final = 1
_TRIES: Final = 10
_RECORDS: Final = TypeAdapter(RunRecord)


def register_of(run: str) -> str:
    """The name of the register that holds the record of ``run``."""
    return f"restart/{run}"


def encode(record: RunRecord) -> bytes:
    """The record as JSON, with the version of its format."""
    return b'{"format":%d,"record":%s}' % (_FORMAT, _RECORDS.dump_json(record))


def decode(data: bytes) -> RunRecord:
    """The record again. Raises ResultCorrupt, SchemaMismatch for one of another format."""
    try:
        plain = json.loads(data)
        version, record = plain["format"], plain["record"]
        if version != _FORMAT:
            raise SchemaMismatch(
                f"the restart record was written by another headgate (its format is {version!r}, this one reads "
                f"{_FORMAT}): use the same version for all replicas"
            )
        return _RECORDS.validate_python(record)
    except (ValueError, TypeError, KeyError, ValidationError) as error:
        raise ResultCorrupt(f"the restart record cannot be read: {error}") from error


def as_plain(record: RunRecord) -> dict[str, Any]:
    """The record as plain data, for whoever shows it; with each decision what it would be without ``dry_run``."""
    plain: dict[str, Any] = _RECORDS.dump_python(record, mode="json")
    for shown, decision in zip(plain["decisions"], record.decisions, strict=True):
        shown["would_be"] = decision.would_be
    return plain


async def reopen(store: DecisionStore, run: str) -> bool:
    """Open ``run`` again if it was told to stop, or has finished; return whether it was closed. Raises StoreError.

    What was decided stays on record, and cycles without progress are counted anew.
    """
    for _ in range(_TRIES):
        version, data = await store.read_register(register_of(run))
        if not version or (record := decode(data)).is_open:
            return False
        if await store.write_register(register_of(run), encode(record.reopened()), after=version):
            return True
    raise StoreUnavailable(f"run {run!r} could not be reopened: others change its restart record all the time")


async def read_record(store: DecisionStore, run: str) -> RunRecord | None:
    """All that is on record about the restarts of ``run``; None if it never had any. Raises StoreError."""
    version, data = await store.read_register(register_of(run))
    return decode(data) if version else None
