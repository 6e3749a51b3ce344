"""Where rows come from: any iterable, async iterable or count, pulled only as room opens.

Checks each row before anything is spent on it: a mapping with string keys that has the fields which columns need, an
identity that no other row has, a form that can be stored. Rows that are all there already (a list) are checked
before the run starts. Positions are 0, 1, 2, ... in the order of the source.
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from itertools import islice
from math import inf
from typing import Any, cast

from ..errors import InputError
from ..storage.codec import stored_form
from ..storage.ports import RowRecord
from .values import OpenRow

__all__ = ["CHECKED_PER_TURN", "COUNT_FIELD", "RowId", "RowSource", "Rows"]

Rows = Iterable[object] | AsyncIterable[object] | int
RowId = str | Callable[[Mapping[str, object]], object] | None

CHECKED_PER_TURN = 2048
"""Rows of a list that are looked at before the loop gets a turn, at some 1.5 us each (T25)."""

COUNT_FIELD = "row"
"""The only field of the rows that a count makes: their position."""


class RowSource:
    """Pulls rows and numbers them.

    ``row_id`` names the field that identifies a row, or computes it; None takes the position. ``argument`` is the
    field that a row which is no mapping becomes (for ``headgate.map`` over plain values), None to refuse such rows.
    ``span`` is the part of a list, or of a count, that is meant: from the first position to before the second.
    Raises InputError for rows that cannot be meant.
    """

    def __init__(
        self,
        rows: Rows,
        *,
        row_id: RowId = None,
        argument: str | None = None,
        span: tuple[int, int] | None = None,
    ) -> None:
        self._row_id = row_id
        self._argument = argument
        self._next = 0 if span is None else span[0]
        self._seen: set[str] = set()
        self._needed: Mapping[str, tuple[str, ...]] = {}
        self._required: frozenset[str] = frozenset()
        self._sync: Iterator[object] | None = None
        self._async: AsyncIterator[object] | None = None
        self._all: Sequence[object] | None = None
        self._copies = False  # whether the source may use the same mapping for its next row
        if isinstance(rows, bool) or (isinstance(rows, int) and rows < 0):
            raise InputError(f"a number of rows must be zero or more, not {rows!r}")
        if isinstance(rows, int):
            self._sync = ({COUNT_FIELD: index} for index in (range(rows) if span is None else range(*span)))
            self.first_fields: frozenset[str] | None = frozenset({COUNT_FIELD})
        elif isinstance(rows, AsyncIterable):
            self._async = rows.__aiter__()
            self.first_fields = None
            self._copies = True
        elif span is not None:
            self._copies = not isinstance(rows, Sequence)
            part = _by_place(rows, span) if self._copies else cast("Sequence[object]", rows)[slice(*span)]
            self._sync = iter(part)
            self.first_fields = frozenset(self._fields(part[0], span[0])) if part else None
        else:
            self._sync = iter(_iterable(rows))
            self._all = rows if isinstance(rows, Sequence) else None
            self._copies = self._all is None
            self.first_fields = frozenset(self._fields(self._all[0], 0)) if self._all else None
        self.at_hand: Iterator[OpenRow] = map(self._accept, self._sync or ())
        """The rows of a source that does not wait, each accepted as it is taken. Raises InputError."""

    def require(self, fields: frozenset[str], needed_by: Mapping[str, tuple[str, ...]]) -> None:
        """Every row must have ``fields``; ``needed_by`` says which column needs what, for the message."""
        for _ in self.requiring(fields, needed_by):
            pass

    def requiring(self, fields: frozenset[str], needed_by: Mapping[str, tuple[str, ...]]) -> Iterator[None]:
        """Do as ``require`` does. Yields where the loop may have a turn."""
        self._required = fields
        self._needed = needed_by
        seen: set[str] = set()
        for count, row in enumerate(self._all or (), 1):
            self._identify(self._fields(row, count - 1), count - 1, seen)
            if not count % CHECKED_PER_TURN:
                yield

    @property
    def waits(self) -> bool:
        """Whether pulling may have to wait: the source is an async one."""
        return self._async is not None

    async def pull(self, most: int, most_bytes: float = inf) -> list[OpenRow]:
        """Up to ``most`` rows, the one that makes them ``most_bytes`` the last; an async source yields what it has one
        by one. An empty list at the end. Raises InputError.
        """
        if self._async is None:
            rows: list[OpenRow] = []
            for row in islice(self.at_hand, most):
                rows.append(row)
                most_bytes -= row.bytes
                if most_bytes <= 0:
                    break
            return rows
        try:
            return [self._accept(await self._async.__anext__())]
        except StopAsyncIteration:
            return []

    async def aclose(self) -> None:
        """No more rows are wanted: a generator gets to its ``finally`` now, not when it is collected. Raises what that
        raises."""
        waits: object = self._async
        if isinstance(waits, AsyncGenerator):
            await cast("AsyncGenerator[object, object]", waits).aclose()
        at_hand: object = self._sync
        if isinstance(at_hand, Generator):
            cast("Generator[object, object, object]", at_hand).close()

    def _accept(self, row: object) -> OpenRow:
        index = self._next
        fields = self._fields(row, index)
        if self._copies:
            fields = dict(fields)
        row_id = str(index) if self._row_id is None else self._identify(fields, index, self._seen)
        try:
            data, digest = stored_form(fields)
        except TypeError as error:
            raise InputError(f"row {index} cannot be stored: {error}") from error
        self._next = index + 1
        return OpenRow(RowRecord(index, row_id, digest, data), fields)

    def _fields(self, row: Any, index: int) -> Mapping[str, object]:
        kind: type[object] = row.__class__
        if kind is not dict and not isinstance(
            cast("object", row), Mapping
        ):  # to ask the abstract class takes 20 times as long
            if self._argument is None:
                raise InputError(
                    f"row {index} is a {kind.__name__}; every row must be a mapping of field names to values"
                )
            return {self._argument: row}
        fields: Mapping[str, object] = row
        for name in fields:
            if type(name) is not str:
                _check_name(name, index)
        if not self._required <= fields.keys():
            self._complain(fields, index)
        return fields

    def _complain(self, fields: Mapping[str, object], index: int) -> None:
        name = min(self._required - fields.keys())
        column = next(column for column, needs in self._needed.items() if name in needs)
        raise InputError(
            f"row {index} has no field {name!r}, which column {column!r} needs "
            f"(it has: {', '.join(sorted(fields)) or 'none'})"
        )

    def _identify(self, fields: Mapping[str, object], index: int, seen: set[str]) -> str:
        if self._row_id is None:
            return str(index)  # positions cannot repeat, and need no memory
        if callable(self._row_id):
            row_id = str(self._row_id(fields))
        elif self._row_id in fields:
            row_id = str(fields[self._row_id])
        else:
            raise InputError(f"row {index} has no field {self._row_id!r}, which was to be its id")
        if not row_id.isascii() and not _is_text(row_id):
            raise InputError(f"row {index}: the id {row_id!r} is no valid Unicode: clean it, or take another field")
        if row_id in seen:
            raise InputError(f"row {index}: the id {row_id!r} was used by an earlier row; ids must be unique")
        seen.add(row_id)
        return row_id


def _by_place(rows: Any, span: tuple[int, int]) -> list[object]:
    """Rows of something that is no list and is indexed as one: a slice of it may be anything. Raises InputError."""
    try:
        return [rows[index] for index in range(*span)]
    except (LookupError, TypeError) as error:
        raise InputError(
            f"rows {span[0]} to {span[1] - 1} cannot be taken from a {type(rows).__name__} by their places: give a list"
        ) from error


def _check_name(name: object, index: int) -> None:
    if not isinstance(name, str):
        raise InputError(f"row {index} has the field name {name!r}; field names must be strings")


def _is_text(said: str) -> bool:
    try:
        said.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _iterable(rows: object) -> Iterable[object]:
    """``rows`` if they can be meant as many; a text or a mapping iterates, but never over rows."""
    kind = type(rows).__name__
    if isinstance(rows, Iterable) and not isinstance(rows, str | bytes | Mapping):
        return cast("Iterable[object]", rows)
    raise InputError(
        f"rows must be an iterable of mappings, an async iterable, or a count, not {kind}; put a single row into a list"
    )
