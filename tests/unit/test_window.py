"""How many rows are open: the horizon, its hysteresis, and the hard bounds (S6)."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.scheduler.window import Window

LARGE = 10**9


def window(*, max_rows: int = 1000, max_bytes: int = LARGE, group_rows: int = 1) -> Window:
    return Window(max_rows=max_rows, max_bytes=max_bytes, group_rows=group_rows)


@pytest.mark.parametrize(
    ("capacity", "rows"), [(0.0, 1), (0.4, 1), (4, 8), (4.2, 9), (499.9, 1000), (5000, 1000), (inf, 1000)]
)
def test_horizon_is_twice_the_capacity(capacity: float, rows: int) -> None:
    assert window().room(capacity=capacity, load=0, open_rows=0) == rows


def test_nothing_is_pulled_within_a_tenth_of_the_horizon() -> None:
    rows = window()
    assert rows.room(capacity=50, load=95, open_rows=95) == 5
    assert rows.room(capacity=50, load=100, open_rows=100) == 0
    assert rows.room(capacity=50, load=91, open_rows=91) == 0
    assert rows.room(capacity=50, load=90, open_rows=90) == 10


def test_a_capacity_that_breathes_does_not_pull() -> None:
    rows = window()
    rows.room(capacity=50, load=100, open_rows=100)
    assert [rows.room(capacity=capacity, load=100, open_rows=100) for capacity in (51, 54, 47, 52)] == [0] * 4
    assert rows.room(capacity=100, load=100, open_rows=100) == 100


def test_t26_blocked_by_a_neighbour() -> None:
    """One model in endless 429 filled the window of a public engine: a healthy model did 30 of 100 cells."""
    rows = window(max_rows=500)
    assert rows.room(capacity=4, load=0, open_rows=400) == 8
    assert rows.room(capacity=4, load=0, open_rows=497) == 3
    assert rows.room(capacity=4, load=0, open_rows=500) == 0


def test_bytes_bound_the_rows_by_their_mean() -> None:
    rows = window(max_bytes=1000)
    assert rows.room(capacity=100, load=5, open_rows=5, open_bytes=500) == 5
    assert rows.room(capacity=100, load=5, open_rows=5, open_bytes=999) == 0
    assert not rows.full(999)
    assert rows.full(1000)


def test_a_row_larger_than_the_bound_still_runs_alone() -> None:
    rows = window(max_bytes=10)
    assert rows.room(capacity=1, load=0, open_rows=0) >= 1
    assert rows.room(capacity=9, load=1, open_rows=1, open_bytes=4000) == 0


def test_a_group_is_begun_only_if_it_fits() -> None:
    rows = window(max_rows=100, group_rows=40)
    assert rows.room(capacity=inf, load=0, open_rows=0) == 80
    assert rows.room(capacity=inf, load=50, open_rows=50, owed=30) == 30
    assert rows.room(capacity=inf, load=61, open_rows=61) == 0


def test_bytes_admit_whole_groups_and_the_rest_of_one() -> None:
    rows = window(max_bytes=1000, group_rows=40)
    assert rows.room(capacity=inf, load=40, open_rows=40, open_bytes=400) == 40
    assert rows.room(capacity=inf, load=80, open_rows=80, open_bytes=800) == 0
    assert rows.room(capacity=inf, load=70, open_rows=70, open_bytes=700, owed=10) == 10


def test_a_group_that_is_begun_can_be_completed() -> None:
    """Idle rows that wait for their group must not keep its last rows out, whatever they weigh."""
    rows = window(max_bytes=100, group_rows=40)
    assert rows.room(capacity=1, load=0, open_rows=39, open_bytes=4000, owed=1) == 1
    assert rows.room(capacity=1, load=0, open_rows=40, open_bytes=4000) == 0


def test_a_group_that_cannot_fit_is_the_callers_mistake() -> None:
    with pytest.raises(AssertionError, match="no group would ever fit"):
        Window(max_rows=10, max_bytes=1, group_rows=11)


@dataclass
class Source:
    """Rows that come in groups, work for a while, then wait for their group, which is done at once."""

    bounds: Window
    max_rows: int
    group_rows: int
    sizes: list[int]
    working: list[int] = field(default_factory=list[int])
    waiting: int = 0
    pulled: int = 0
    open_bytes: int = 0
    group: list[int] = field(default_factory=list[int])

    @property
    def owed(self) -> int:
        return -self.pulled % self.group_rows

    @property
    def open_rows(self) -> int:
        return len(self.working) + self.waiting

    def pull(self, capacity: float) -> None:
        room = self.bounds.room(
            capacity=capacity, load=len(self.working), open_rows=self.open_rows,
            open_bytes=self.open_bytes, owed=self.owed,
        )  # fmt: skip
        for number in range(min(room, len(self.sizes) - self.pulled)):
            if number and self.bounds.full(self.open_bytes):
                break
            size = self.sizes[self.pulled]
            self.working.append(size)
            self.open_bytes += size
            self.pulled += 1
            assert self.open_rows + self.owed <= self.max_rows

    def work(self, rows: int) -> None:
        for size in self.working[:rows]:
            self.group.append(size)
            self.waiting += 1
        del self.working[:rows]
        whole = len(self.group) == self.group_rows or (self.pulled == len(self.sizes) and not self.working)
        while len(self.group) >= self.group_rows or (whole and self.group):
            done, self.group = self.group[: self.group_rows], self.group[self.group_rows :]
            self.waiting -= len(done)
            self.open_bytes -= sum(done)


@given(
    sizes=st.lists(st.integers(0, 300), max_size=60),
    group_rows=st.integers(1, 8),
    spare=st.integers(0, 12),
    max_bytes=st.integers(1, 1000),
    capacities=st.lists(st.floats(0, 20), min_size=1, max_size=5),
    pace=st.integers(1, 6),
)
def test_bounds_hold_and_every_row_comes(
    sizes: list[int], group_rows: int, spare: int, max_bytes: int, capacities: list[float], pace: int
) -> None:
    """S6: open rows stay within the bound, bytes pass it by a group at most, and no state is a dead end."""
    max_rows = group_rows + spare
    bounds = Window(max_rows=max_rows, max_bytes=max_bytes, group_rows=group_rows)
    source = Source(bounds, max_rows, group_rows, sizes)
    largest = max(sizes, default=0)
    for step in range(10 * len(sizes) + 10):
        source.pull(capacities[step % len(capacities)])
        assert source.open_bytes <= max_bytes + group_rows * largest
        source.work(pace)
    assert source.pulled == len(sizes)
    assert source.open_rows == 0
