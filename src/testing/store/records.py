"""Records and batches for tests of stores: made by hand, and as hypothesis strategies that mostly fit together."""

from __future__ import annotations

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


_positions = st.integers(0, _ROWS - 1)
# Mostly what a run would do, sometimes what it must not: the shares are in the repetitions.
_columns = st.sampled_from(["a", "b", "c"] * 4 + ["unknown"])
_usages = st.sampled_from([Usage(), Usage(3, 5)])


def _value(letter: str, size: int = _LARGE) -> bytes:
    return b'"%s"' % (letter.encode() * size)


# Large values are made of small ones, so that the strategies can be printed.
_too_large = st.just("x").map(lambda letter: _value(letter, MAX_PAYLOAD))
_large = st.sampled_from("lm").map(_value)
_small = st.sampled_from([b"null"] * 12 + [b'""'] * 4 + [b"[]", b'{"x":1}'])
_payloads = st.one_of(*[_small] * 12, _large, _too_large)


@st.composite
def _row_records(draw: st.DrawFn) -> RowRecord:
    position = draw(_positions)
    # Mostly the row's own id and content, sometimes another row's.
    other = draw(st.sampled_from([position] * 12 + [0, 1]))
    data = draw(st.sampled_from([None] * 12 + [b'{"y":2}']))
    record = row(position, data)
    return RowRecord(position, f"id{other}", record.digest, record.data)


@st.composite
def _cell_records(draw: st.DrawFn) -> CellRecord:
    status = draw(st.sampled_from([CellStatus.DONE] * 6 + [CellStatus.FAILED, CellStatus.SKIPPED]))
    payload = draw(_payloads) if status is CellStatus.DONE else None
    details = draw(st.sampled_from(_DETAILS))
    return CellRecord(draw(_positions), draw(_columns), status, payload, *details, draw(_usages), 1.5)


_held_records = st.builds(
    HeldRecord,
    _positions,
    _columns,
    st.sampled_from(["rate_limited", "overloaded"]),
    st.sampled_from([1.5, 1e10]),
    st.integers(0, 2),
    st.sampled_from([b"[]", b'[["429",1.5]]']),
)
_spent_records = st.builds(SpentRecord, _positions, _columns, st.integers(1, 3), st.just("provider_error"), _usages)


def _few(records: st.SearchStrategy[object], most: int = 2) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(records, max_size=most).map(tuple)


def batches() -> st.SearchStrategy[Batch]:
    """Batches about the first five rows and the columns a, b, c; most can be committed, some contradict others."""
    return st.builds(
        Batch,
        rows=_few(_row_records()),
        reopened=_few(st.tuples(_positions, _columns)),
        cells=_few(_cell_records()),
        unheld=_few(st.tuples(_positions, _columns)),
        held=_few(_held_records),
        spent=_few(_spent_records, 1),
        learned=st.one_of(*[st.none()] * 8, st.sampled_from([b"{}", b'{"a":1}', b'{"b":2}']), _too_large),
    )
