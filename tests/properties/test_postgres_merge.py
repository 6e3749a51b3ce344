"""Several batches written as one come to the same as one after the other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.storage import Batch, CellRecord, CellStatus, HeldRecord, RowRecord, SpentRecord
from headgate.storage.postgres_merge import Entangled, Merged, merge, packed, unknown_columns, unpacked
from headgate.values import Usage

COLUMNS = {"a": 0, "b": 1}

rows = st.integers(0, 2)
names = st.sampled_from("ab")
keys = st.tuples(rows, names)
holds = st.builds(HeldRecord, rows, names, st.just("busy"), st.just(1.5), st.integers(0, 9), st.just(b"[]"))
cells = st.builds(CellRecord, rows, names, st.just(CellStatus.DONE), st.just(b"1"))
batches = st.builds(
    Batch,
    cells=st.lists(cells, max_size=2).map(tuple),
    unheld=st.lists(keys, max_size=2).map(tuple),
    held=st.lists(holds, max_size=3).map(tuple),
    learned=st.sampled_from([None, None, b"1", b"2"]),
)


def held_one_after_the_other(given: list[Batch]) -> dict[tuple[int, str], int]:
    held: dict[tuple[int, str], int] = {}
    terminal: set[tuple[int, str]] = set()
    for batch in given:
        for cell in batch.cells:
            terminal.add((cell.row, cell.column))
            held.pop((cell.row, cell.column), None)
        for key in batch.unheld:
            held.pop(key, None)
        held.update({(h.row, h.column): h.attempts for h in batch.held if (h.row, h.column) not in terminal})
    return held


def merged_unless_let_go(given: list[Batch]) -> Merged | None:
    """What was held by one batch and is let go by another is not passed on, so that nobody would look at the hold."""
    held: set[tuple[int, str]] = set()
    let_go = False
    for batch in given:
        let_go = let_go or not held.isdisjoint(batch.unheld)
        held = (held - set(batch.unheld)) | {(one.row, one.column) for one in batch.held}
    if not let_go:
        return merge(given, COLUMNS)
    with pytest.raises(Entangled):
        merge(given, COLUMNS)
    return None


@given(st.lists(batches, max_size=4), st.dictionaries(keys, st.just(-1)))
def test_held_cells_are_those_of_the_last_word(given: list[Batch], before: dict[tuple[int, str], int]) -> None:
    columns = {place: name for name, place in COLUMNS.items()}
    merged = merged_unless_let_go(given)
    if merged is None:
        return
    after = dict(before)
    # In the order in which the database applies them.
    for positions, places in ((merged.cells[0], merged.cells[1]), merged.unheld):
        for row, place in zip(positions, places, strict=True):
            after.pop((int(str(row)), columns[int(str(place))]), None)
    for row, place, _, _, attempts, _ in zip(*merged.held, strict=True):
        after[int(str(row)), columns[int(str(place))]] = int(str(attempts))
    known = Batch(held=tuple(HeldRecord(*key, "", 0.0, attempts, b"") for key, attempts in before.items()))
    assert after == held_one_after_the_other([known, *given])


@given(st.lists(batches, max_size=4))
def test_everything_else_is_there_once_and_in_order(given: list[Batch]) -> None:
    merged = merged_unless_let_go(given)
    if merged is None:
        return
    assert merged.cells[0] == [cell.row for batch in given for cell in batch.cells]
    learned = [batch.learned for batch in given if batch.learned is not None]
    assert merged.learned == (learned[-1] if learned else None)
    assert len(merged.parameters()) == 6 + 2 + 12 + 2 + 6 + 6 + 2


reopening = st.builds(
    Batch,
    reopened=st.lists(keys, max_size=2).map(tuple),
    cells=st.lists(cells, max_size=2).map(tuple),
    held=st.lists(holds, max_size=1).map(tuple),
)


@given(st.lists(reopening, max_size=3), st.frozensets(keys))
def test_cells_are_reopened_as_if_each_batch_came_alone(given: list[Batch], failed: frozenset[tuple[int, str]]) -> None:
    """``failed`` did so in an earlier epoch: another outcome, or a hold, comes to nothing unless they are reopened."""
    try:
        merged = merge(given, COLUMNS)
    except Entangled:
        return
    in_turn, refused = set(failed), False
    done: set[tuple[int, str]] = set()
    held: set[tuple[int, str]] = set()
    for batch in given:
        in_turn -= set(batch.reopened)
        ended = {(cell.row, cell.column) for cell in batch.cells}
        refused |= bool(ended & in_turn)
        done |= ended
        held = (held - ended) | ({(one.row, one.column) for one in batch.held} - in_turn - done)
    columns = {place: name for name, place in COLUMNS.items()}

    def pairs(parts: list[list[object]]) -> set[tuple[int, str]]:
        return {(int(str(row)), columns[int(str(place))]) for row, place in zip(*parts[:2], strict=True)}

    at_once = failed - pairs(merged.reopened)
    assert at_once == in_turn
    assert bool(pairs(merged.cells) & at_once) == refused
    if not refused:
        assert pairs(merged.held) - at_once - pairs(merged.cells) == held


def test_a_cell_is_not_reopened_before_what_was_said_of_it() -> None:
    """Alone the first batch would be refused, or the hold would come to nothing: the cell has failed."""
    again = Batch(reopened=((1, "a"), (0, "zz")))
    done = Batch(cells=(CellRecord(1, "a", CellStatus.DONE, b"1"),))
    hold = Batch(held=(HeldRecord(1, "a", "", 0.0, 1, b""),))
    for said in (done, hold):
        assert merge([again, said], COLUMNS).reopened == [[1], [0]]
        with pytest.raises(Entangled):
            merge([said, again], COLUMNS)


def test_a_row_that_comes_after_its_cells_is_not_written_with_them() -> None:
    """Alone the first batch would be refused: the row is not there yet."""
    row = Batch(rows=(RowRecord(1, "id", b"", b"{}"),))
    cell = Batch(cells=(CellRecord(1, "a", CellStatus.DONE, b"1"),))
    merge([row, cell], COLUMNS)
    for late in (
        cell,
        Batch(held=(HeldRecord(1, "a", "", 0.0, 1, b""),)),
        Batch(spent=(SpentRecord(1, "a", 1, "", Usage()),)),
    ):
        with pytest.raises(Entangled):
            merge([late, row], COLUMNS)


def test_an_unknown_column_is_named() -> None:
    batch = Batch(cells=(CellRecord(1, "zz", CellStatus.DONE, b"1"),))
    assert unknown_columns(batch, COLUMNS) == "zz"
    assert unknown_columns(Batch(unheld=((0, "zz"),)), COLUMNS) is None
    with pytest.raises(KeyError):
        merge([batch], COLUMNS)


@given(st.text(st.one_of(st.sampled_from("\\0 \0n"), st.characters(exclude_categories=["Cs"]))))
def test_any_text_comes_back(said: str) -> None:
    assert "\0" not in packed(said)
    assert unpacked(packed(said)) == said


@given(st.text(st.sampled_from("\\\0\ud800x")))
def test_text_that_is_no_unicode_can_be_sent(said: str) -> None:
    packed(said).encode()
