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

__all__ = ["PARTS", "differences", "fingerprints"]

PARTS: Final = ("parameters", "model", "scope", "return type", "version", "function", "upstream")
"""What can differ between two fingerprints, in their order."""

_FORMAT: Final = "2"
_DIGEST_BYTES: Final = 5  # a change that is not seen in 40 bits: once in 10**12


def fingerprints(columns: Iterable[Column]) -> dict[str, str]:
    """Return the fingerprint of each column by name. What a name means may have changed from a field to a column."""
    by_name = {column.name: column for column in columns}
    found: dict[str, str] = {}

    def of(column: Column) -> str:
        if column.name not in found:
            spec = column.spec
            reads = sorted({*spec.needs, *spec.when_needs, *spec.optional} & by_name.keys() - {column.name})
            parts: list[object] = [
                [sorted(spec.needs), sorted(spec.when_needs), sorted(spec.optional)],
                None if spec.resource is None else str(spec.resource),
                str(spec.scope),
                column.output,
                column.version,
                [function_text(column.fn), None if column.when_fn is None else function_text(column.when_fn)],
                [[name, of(by_name[name])] for name in reads],
            ]
            found[column.name] = ":".join([_FORMAT, *map(_digest, parts)])
        return found[column.name]

    return {name: of(column) for name, column in by_name.items()}


def differences(stored: str, given: str) -> tuple[str, ...]:
    """Return the parts in which two fingerprints differ; all of them if ``stored`` has another format."""
    before, now = stored.split(":"), given.split(":")
    if len(before) != len(now) or before[0] != now[0]:
        return PARTS
    return tuple(part for part, one, other in zip(PARTS, before[1:], now[1:], strict=True) if one != other)


def _digest(part: object) -> str:
    return blake2b(json.dumps(part).encode(), digest_size=_DIGEST_BYTES).hexdigest()
