"""The record of a run as bytes and back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from pydantic import TypeAdapter, ValidationError

from ..errors import ResultCorrupt, SchemaMismatch
from .record import RunRecord

if TYPE_CHECKING:
    from .ports import DecisionStore

__all__ = ["decode", "encode", "read_record", "register_of"]

_FORMAT: Final = 1
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


async def read_record(store: DecisionStore, run: str) -> RunRecord | None:
    """All that is on record about the restarts of ``run``; None if it never had any. Raises StoreError."""
    version, data = await store.read_register(register_of(run))
    return decode(data) if version else None
