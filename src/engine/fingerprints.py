"""What the stored results of a column depend on, in parts, so that a change can be named.

A fingerprint is text: a version of the format, then a digest per part. It covers the columns that a column reads (part
``upstream``), so it changes with them, and every process gives the same text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .function_text import function_text
from .marks import digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .column import Column

__all__ = ["COLUMNS_PER_TURN", "column_reads", "fingerprints", "take_fingerprints"]

COLUMNS_PER_TURN: Final = 4
"""Columns whose functions are read before the loop gets a turn: what one calls and reads by name is read with it."""

_FORMAT: Final = "2"


def fingerprints(columns: Iterable[Column]) -> dict[str, str]:
    """Return the fingerprint of each column by name, a column after those that it reads.

    What a name means may have changed from a field to a column, so which names are columns is part of it.
    """
    found: dict[str, str] = {}
    for _ in take_fingerprints(columns, found):
        pass
    return found


def take_fingerprints(columns: Iterable[Column], found: dict[str, str]) -> Iterator[None]:
    """Do as ``fingerprints`` does, into ``found``. Yields where the loop may have a turn."""
    by_name = {column.name: column for column in columns}
    reads_of = column_reads(by_name.values())
    texts: dict[str, list[str | None]] = {}
    yield  # whoever wants a fingerprint has just checked the columns, all of them in one step

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
                texts[column.name],
                [[name, of(by_name[name])] for name in reads],
            ]
            found[column.name] = ":".join([_FORMAT, *map(digest, parts)])
        return found[column.name]

    for count, column in enumerate(by_name.values(), 1):
        texts[column.name] = [None if fn is None else function_text(fn) for fn in (column.fn, column.when_fn)]
        if not count % COLUMNS_PER_TURN:
            yield
    for count, column in enumerate(by_name.values(), 1):
        of(column)
        if not count % COLUMNS_PER_TURN:
            yield


def column_reads(columns: Iterable[Column]) -> dict[str, list[str]]:
    """Return the names of the columns that each column reads, in order."""
    specs = [column.spec for column in columns]
    names = {spec.name for spec in specs}
    return {spec.name: sorted({*spec.needs, *spec.when_needs, *spec.optional} & names - {spec.name}) for spec in specs}
