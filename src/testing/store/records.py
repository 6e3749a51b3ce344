"""Records and batches for tests of stores: made by hand, and as hypothesis strategies that mostly fit together."""

from __future__ import annotations

from itertools import product
from typing import Final

from hypothesis import strategies as st

from ...storage.codec import digest_of
from ...storage.ports import Batch, CellRecord, CellStatus, HeldRecord, RowRecord, SpentRecord
from ...values import Usage

__all__ = ["MAX_PAYLOAD", "batches", "done", "failed", "held", "row", "rows"]

MAX_PAYLOAD: Final = 200_000
"""Bytes of one value that the stores under test are opened with. More than what a store may keep inline."""

_ROWS: Final = 5
_LARGE: Final = 70_000
_DETAILS: Final = (("", "", 1, None), ("bug", "na\u00efve", 0, 429), ("rejected", "a\0b", 3, None))


def row(position: int, data: bytes | None = None) -> RowRecord:
    """Return an input row with the id ``id<position>``."""
    data = b'{"n":%d}' % position if data is None else data
    return RowRecord(position, f"id{position}", digest_of(data), data)


def rows(*positions: int) -> Batch:
    """Return a batch of input rows."""
    return Batch(rows=tuple(map(row, positions)))


def done(position: int, column: str, payload: bytes = b"1", *, usage: Usage = Usage()) -> CellRecord:  # noqa: B008
    """Return a cell that was done."""
    return CellRecord(position, column, CellStatus.DONE, payload, attempts=1, usage=usage, finished_at=1.5)


def failed(position: int, column: str, message: str = "400") -> CellRecord:
    """Return a cell that failed for good."""
    return CellRecord(position, column, CellStatus.FAILED, None, "rejected", message, 3, 400, Usage(7), 2.5)


def held(position: int, column: str, not_before: float = 99.5) -> HeldRecord:
    """Return a cell that is held back until ``not_before``."""
    return HeldRecord(position, column, "rate_limited", not_before, 2, b'[["429",1.5]]')


# A draw costs more than the call that is tested, so what belongs together is one choice from a list. Mostly what a run
# would do, sometimes what it must not: the shares are in the repetitions.
_positions = st.integers(0, _ROWS - 1)
_COLUMNS: Final = (*"abc" * 4, "unknown")


def _cell_at(place: int) -> tuple[int, str]:
    return place // len(_COLUMNS), _COLUMNS[place % len(_COLUMNS)]


_cells = st.sampled_from(range(_ROWS * len(_COLUMNS))).map(_cell_at)
# Mostly the row's own id and content, sometimes another row's.
_strangers = st.sampled_from([(None, None)] * 12 + [(0, None), (1, None), (None, b'{"y":2}')])
_usages = (Usage(), Usage(3, 5))
_ends = st.sampled_from([CellStatus.DONE] * 6 + [CellStatus.FAILED, CellStatus.SKIPPED])
_ends_more = st.sampled_from(list(product(_DETAILS, _usages)))
_held_more = st.sampled_from(
    list(product(("rate_limited", "overloaded"), (1.5, 1e10), (0, 1, 2), (b"[]", b'[["429",1.5]]')))
)
_spent_more = st.sampled_from(list(product((1, 2, 3), ("provider_error",), _usages)))


def _value(letter: str, size: int = _LARGE) -> bytes:
    return b'"%s"' % (letter.encode() * size)


# By their names, so that the strategies can be printed.
_VALUES: Final = {
    "null": b"null",
    "empty": b'""',
    "list": b"[]",
    "object": b'{"x":1}',
    "large l": _value("l"),
    "large m": _value("m"),
    "too large": _value("x", MAX_PAYLOAD),
}


def _value_of(name: str) -> bytes:
    return _VALUES[name]


_SHARES: Final = {"null": 96, "empty": 32, "list": 8, "object": 8, "large l": 6, "large m": 6, "too large": 12}
_payloads = st.sampled_from([name for name, share in _SHARES.items() for _ in range(share)]).map(_value_of)
_too_large = st.just("too large").map(_value_of)


@st.composite
def _row_records(draw: st.DrawFn) -> RowRecord:
    position = draw(_positions)
    other, data = draw(_strangers)
    record = row(position, data)
    return record if other is None else RowRecord(position, f"id{other}", record.digest, record.data)


@st.composite
def _cell_records(draw: st.DrawFn) -> CellRecord:
    position, column = draw(_cells)
    status = draw(_ends)
    payload = draw(_payloads) if status is CellStatus.DONE else None
    details, usage = draw(_ends_more)
    return CellRecord(position, column, status, payload, *details, usage, 1.5)


@st.composite
def _held_records(draw: st.DrawFn) -> HeldRecord:
    position, column = draw(_cells)
    reason, not_before, attempts, history = draw(_held_more)
    return HeldRecord(position, column, reason, not_before, attempts, history)


@st.composite
def _spent_records(draw: st.DrawFn) -> SpentRecord:
    position, column = draw(_cells)
    attempt, reason, usage = draw(_spent_more)
    return SpentRecord(position, column, attempt, reason, usage)


def _few(records: st.SearchStrategy[object], most: int = 2) -> st.SearchStrategy[tuple[object, ...]]:
    return st.one_of(*(st.tuples(*[records] * many) for many in range(most + 1)))


def batches() -> st.SearchStrategy[Batch]:
    """Batches about the first five rows and the columns a, b, c; most can be committed, some contradict others."""
    return st.builds(
        Batch,
        rows=_few(_row_records()),
        reopened=_few(_cells),
        cells=_few(_cell_records()),
        unheld=_few(_cells),
        held=_few(_held_records()),
        spent=_few(_spent_records(), 1),
        learned=st.one_of(*[st.none()] * 8, st.sampled_from([b"{}", b'{"a":1}', b'{"b":2}']), _too_large),
    )
