"""The in-memory store: what users' tests rely on, and the rules that every store shares, case by case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import pytest

from headgate.errors import ConflictingResult, FencedOut, FingerprintMismatch, PayloadTooLarge, StoreError
from headgate.storage import (
    RUNNING,
    Batch,
    CellRecord,
    CellStatus,
    Durability,
    HeldRecord,
    MemoryStore,
    RowRecord,
    RunHandle,
    SpentRecord,
)
from headgate.values import Usage

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

COLUMNS = {"question": "q1", "verdict": "v1"}


def now(call: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that must not suspend."""
    try:
        call.send(None)
    except StopIteration as stop:
        return cast("T", stop.value)
    raise AssertionError("it suspended")


def row(position: int, data: bytes = b"{}") -> RowRecord:
    return RowRecord(position, f"id{position}", data, data)


def done(position: int, column: str, payload: bytes = b"1") -> CellRecord:
    return CellRecord(position, column, CellStatus.DONE, payload)


def opened(store: MemoryStore | None = None) -> RunHandle:
    handle = now((store or MemoryStore()).open_run("run", COLUMNS))
    now(handle.commit(Batch(rows=(row(0), row(1)))))
    return handle


def test_nothing_suspends() -> None:
    store = MemoryStore()
    handle = opened(store)
    now(handle.commit(Batch(cells=(done(0, "question"),))))
    assert now(handle.find(["id1", "id7"])) == {"id1": 1}
    assert len(now(handle.load(0, 10))) == 2
    now(handle.finish("completed"))
    now(handle.aclose())
    now(store.probe())
    now(store.aclose())
    assert store.durability is Durability.NONE


def test_t46_empty_none_and_failure_are_three_things() -> None:
    """T46: an empty result could not be told from none."""
    store = MemoryStore()
    handle = opened(store)
    failed = CellRecord(1, "question", CellStatus.FAILED, None, reason="rejected", message="400")
    now(handle.commit(Batch(cells=(done(0, "question", b'""'), done(0, "verdict", b"null"), failed))))
    first, second = store.read_rows("run")
    assert [cell.payload for cell in first.cells] == [b'""', b"null"]
    assert [(cell.status, cell.payload) for cell in second.cells] == [(CellStatus.FAILED, None)]


@pytest.mark.parametrize(("status", "payload"), [(CellStatus.DONE, None), (CellStatus.FAILED, b"null")])
def test_t46_a_record_cannot_mix_them(status: CellStatus, payload: bytes | None) -> None:
    """T46: a done cell always has a payload, and only a done cell has one."""
    handle = opened(MemoryStore())
    with pytest.raises(AssertionError, match="payload"):
        now(handle.commit(Batch(cells=(CellRecord(0, "question", status, payload),))))


def test_t44_a_stale_late_write_does_not_win() -> None:
    """T44: the newest by time won, and that was a late write of a process that had been replaced. D4."""
    store = MemoryStore()
    old = opened(store)
    new = now(store.open_run("run", COLUMNS))
    with pytest.raises(FencedOut, match="epoch 2"):
        now(old.commit(Batch(cells=(done(0, "question", b'"late"'),))))
    with pytest.raises(FencedOut):
        now(old.finish("completed"))
    now(new.commit(Batch(cells=(done(0, "question", b'"new"'),))))
    assert store.read_info("run").status == RUNNING
    assert [cell.payload for stored in store.read_rows("run") for cell in stored.cells] == [b'"new"']


def test_t53_repeated_extension() -> None:
    """T53: extending 100 rows to 110 and then to 150 gave 130. D8."""
    store = MemoryStore()
    for upto in (100, 110, 150):
        handle = now(store.open_run("run", COLUMNS))
        now(handle.commit(Batch(rows=tuple(row(position) for position in range(upto)))))
        now(handle.finish("completed"))
        assert store.read_info("run").rows == upto
    assert [stored.record.row for stored in store.read_rows("run")] == list(range(150))


def test_first_terminal_outcome_wins() -> None:
    """D3: the same again is nothing, another one is refused, and with it the whole batch."""
    store = MemoryStore()
    handle = opened(store)
    now(handle.commit(Batch(cells=(done(0, "question"),))))
    now(handle.commit(Batch(cells=(done(0, "question"),))))
    with pytest.raises(ConflictingResult, match="question"):
        now(handle.commit(Batch(rows=(row(2),), cells=(done(1, "verdict"), done(0, "question", b"2")))))
    assert [len(stored.cells) for stored in store.read_rows("run")] == [1, 0]


def test_held_cells_live_until_their_outcome() -> None:
    """D6: held-back cells and their not-before times are kept; a late hold does not reopen a finished cell."""
    handle = opened()
    held = HeldRecord(0, "question", "rate_limited", 99.5, 2, b"[]")
    now(handle.commit(Batch(held=(held,))))
    assert now(handle.load(0, 1))[0].held == (held,)
    now(handle.commit(Batch(cells=(done(0, "question"),))))
    assert now(handle.load(0, 1))[0].held == ()
    now(handle.commit(Batch(held=(held,))))
    assert now(handle.load(0, 1))[0].held == ()
    now(handle.commit(Batch(held=(HeldRecord(1, "question", "overloaded", 1.0, 0, b"[]"),))))
    now(handle.commit(Batch(unheld=((1, "question"), (1, "verdict")))))
    assert now(handle.load(1, 2))[0].held == ()


def test_tokens_of_every_attempt_are_on_record() -> None:
    """D5: a repeated batch does not count twice, the same attempt number in another epoch does."""
    store = MemoryStore()
    spent = Batch(spent=(SpentRecord(0, "question", 1, "provider_error", Usage(10, 1)),))
    for _ in range(2):
        handle = opened(store)
        now(handle.commit(spent))
        now(handle.commit(spent))
    handle = opened(store)
    now(handle.commit(Batch(cells=(CellRecord(0, "question", CellStatus.DONE, b"1", usage=Usage(10, 5)),))))
    assert store.read_spent("run") == {"question": Usage(30, 7)}


def test_changed_columns_and_rows_are_named() -> None:
    store = MemoryStore()
    handle = opened(store)
    with pytest.raises(FingerprintMismatch, match="'verdict'"):
        now(store.open_run("run", {"question": "q1", "verdict": "v2", "new": "n1"}))
    assert store.read_info("run").epoch == 1
    with pytest.raises(FingerprintMismatch, match="row 1 "):
        now(handle.commit(Batch(rows=(row(1, b'{"x":1}'),))))
    with pytest.raises(FingerprintMismatch, match=r"'id0'.*row 0.*row 5"):
        now(handle.commit(Batch(rows=(RowRecord(5, "id0", b"", b"{}"),))))


def test_columns_are_added_and_kept() -> None:
    store = MemoryStore()
    opened(store)
    handle = now(store.open_run("run", {"new": "n1"}))
    assert list(handle.info.fingerprints) == ["question", "verdict", "new"]
    now(handle.commit(Batch(cells=(done(0, "new"), done(0, "question")))))
    assert [cell.column for cell in now(handle.load(0, 1))[0].cells] == ["question", "new"]


def test_a_large_payload_is_refused_before_anything_is_written() -> None:
    store = MemoryStore(max_payload=10)
    handle = opened(store)
    for batch, named in (
        (Batch(cells=(done(0, "question", b'"123456789"'),)), "column 'question'"),
        (Batch(rows=(row(2), row(3, b" " * 11))), "input row"),
        (Batch(held=(HeldRecord(0, "question", "", 0.0, 0, b" " * 11),)), "history"),
    ):
        with pytest.raises(PayloadTooLarge, match=named):
            now(handle.commit(batch))
    now(handle.commit(Batch(cells=(done(0, "question", b'"12345678"'),))))
    assert store.read_info("run").rows == 2


def test_after_closing_every_call_says_so() -> None:
    store = MemoryStore()
    handle = opened(store)
    now(handle.aclose())
    now(store.aclose())
    for call in (
        handle.commit(Batch()),
        handle.load(0, 1),
        handle.find([]),
        handle.finish("x"),
        store.open_run("b", {}),
    ):
        with pytest.raises(StoreError, match="closed"):
            now(call)
    assert store.read_info("run").rows == 2


def test_what_was_learned_counts_for_the_run_first_and_for_others_after() -> None:
    store = MemoryStore()
    one, two = now(store.open_run("one", {})), now(store.open_run("two", {}))
    for handle, learned in ((one, b"1"), (two, b"2"), (one, b"11")):
        now(handle.commit(Batch(learned=learned)))
    assert now(store.open_run("two", {})).learned == b"2"
    assert now(store.open_run("three", {})).learned == b"11", "the latest of all"
    with pytest.raises(FencedOut):
        now(two.commit(Batch(learned=b"late")))
    assert now(store.open_run("two", {})).learned == b"2"
