"""What several batches are as one: nothing that alone would be refused is lost in it."""

from __future__ import annotations

import pytest

from headgate.storage import Batch, HeldRecord
from headgate.storage.postgres_merge import Entangled, merge

COLUMNS = {"a": 0}


def held(row: int, column: str) -> Batch:
    return Batch(held=(HeldRecord(row, column, "overloaded", 1.5, 1, b"[]"),))


@pytest.mark.parametrize("column", ["a", "unknown"])
def test_what_one_batch_holds_and_the_next_lets_go_is_not_one(column: str) -> None:
    """It was taken without a word, also where there is no such column, or no such row."""
    with pytest.raises(Entangled):
        merge([held(0, column), Batch(unheld=((0, column),))], COLUMNS)


def test_a_cell_may_be_let_go_and_held_again_in_one_statement() -> None:
    merged = merge([Batch(unheld=((0, "a"),)), held(0, "a"), held(1, "a"), Batch(unheld=((2, "a"),))], COLUMNS)
    assert merged.held[:2] == [[0, 1], [0, 0]]
    assert merged.unheld == [[2], [0]]


def test_an_unknown_column_is_named() -> None:
    with pytest.raises(KeyError, match="unknown"):
        merge([Batch(), held(0, "unknown")], COLUMNS)
