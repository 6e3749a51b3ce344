"""What the stored results of a column depend on, in parts, so that a change can be named.

A fingerprint is text: a version of the format, then a digest per part. It covers the columns that a column reads (part
``upstream``), so it changes with them, and every process gives the same text.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from .function_text import function_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .column import Column

__all__ = ["column_reads", "fingerprints"]

_FORMAT: Final = "2"
_DIGEST_BYTES: Final = 5  # a change that is not seen in 40 bits: once in 10**12


def fingerprints(columns: Iterable[Column]) -> dict[str, str]:
    """Return the fingerprint of each column by name, a column after those that it reads.

    What a name means may have changed from a field to a column, so which names are columns is part of it.
    """
    by_name = {column.name: column for column in columns}
    reads_of = column_reads(by_name.values())
    found: dict[str, str] = {}

    def of(column: Column) -> str:
        if column.name not in found:
            spec = column.spec
            reads = reads_of[column.name]
            parts: list[object] = [
                [sorted(spec.needs), sorted(spec.when_needs), sorted(spec.optional), reads],
                None if spec.resource is None else str(spec.resource),
                str(spec.scope),
                column.output,
                column.version,
                [function_text(column.fn), None if column.when_fn is None else function_text(column.when_fn)],
                [[name, of(by_name[name])] for name in reads],
            ]
            found[column.name] = ":".join([_FORMAT, *map(_digest, parts)])
        return found[column.name]

    for column in by_name.values():
        of(column)
    return found


def column_reads(columns: Iterable[Column]) -> dict[str, list[str]]:
    """Return the names of the columns that each column reads, in order."""
    specs = [column.spec for column in columns]
    names = {spec.name for spec in specs}
    return {spec.name: sorted({*spec.needs, *spec.when_needs, *spec.optional} & names - {spec.name}) for spec in specs}


def _digest(part: object) -> str:
    return blake2b(json.dumps(part).encode(), digest_size=_DIGEST_BYTES).hexdigest()
