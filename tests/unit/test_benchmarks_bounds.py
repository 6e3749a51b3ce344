"""The bounds that order of work is measured against: by hand where that can be done, never above what was reached."""

from __future__ import annotations

from functools import partial

import hypothesis.strategies as st
import pytest
from hypothesis import given

from benchmarks.fit import exponent
from benchmarks.quality.bounds import idle_share, in_order, in_use, makespan_bound, percentile, rows_bound
from benchmarks.quality.stage import Column, Flow, Played, Span, play


def lasting(seconds: float) -> Column:
    return Column("a", "m", lambda _: seconds)


def _growing(seconds: float, row: int) -> float:
    return seconds * (1 + row % 3 / 7)


CHAIN = [Column(f"c{n}", "m", lambda _: 1.0, (f"c{n - 1}",) if n else ()) for n in range(4)]


def test_the_makespan_is_at_least_the_work_over_the_slots_and_the_longest_chain() -> None:
    assert makespan_bound([Flow([lasting(2.0)], 8)], {"m": 4}) == 4.0
    assert makespan_bound([Flow(CHAIN, 1)], {"m": 4}) == 4.0
    assert makespan_bound([Flow(CHAIN, 100)], {"m": 4}) == 100.0
    assert makespan_bound([Flow(CHAIN, 1, starts_at=7.0)], {"m": 4}) == 11.0


def test_the_makespan_includes_the_way_to_a_model_and_from_it() -> None:
    """Of ten seconds' work for n one slot cannot begin before m did a row, nor can m be done with the last at once."""
    around = [
        Column("before", "m", lambda _: 3.0),
        Column("between", "n", lambda _: 1.0, ("before",)),
        Column("after", "m", lambda _: 2.0, ("between",)),
    ]
    assert makespan_bound([Flow(around, 10)], {"m": 100, "n": 1}) == 3.0 + 10.0 + 2.0


def test_a_group_task_is_counted_once_for_its_rows() -> None:
    group = [Column("g", "m", lambda _: 1.0, group=True)]
    assert makespan_bound([Flow(group, 12)], {"m": 1}, group_rows=4) == 3.0


def test_rows_that_skip_a_column_have_less_to_do() -> None:
    odd = Column("a", "m", lambda _: 1.0, when=lambda row: row % 2 == 1)
    assert makespan_bound([Flow([odd], 10)], {"m": 1}) == 5.0


def test_the_first_rows_take_their_own_work_and_the_longest_chain() -> None:
    assert rows_bound(Flow(CHAIN, 100), 8, [1, 2, 50]) == [4.0, 4.0, 25.0]


def test_one_by_one_in_order() -> None:
    assert in_order([(0.0, 2.0), (0.0, 4.0), (1.0, 1.0), (1.0, 1.0)], 2) == [0.0, 0.0, 2.0, 3.0]


def test_idle_slots_count_only_while_something_could_run() -> None:
    flow = Flow([lasting(1.0)], 2)
    one_by_one = Played([Span(0, "a", (0,), 0.0, 1.0), Span(0, "a", (1,), 1.0, 2.0)])
    assert idle_share(one_by_one, [flow], {"m": 1}, "m") == 0.0
    assert idle_share(one_by_one, [flow], {"m": 2}, "m") == 0.5
    waiting = Flow([lasting(1.0), Column("b", "m", lambda _: 1.0, ("a",))], 1)
    in_turn = Played([Span(0, "a", (0,), 0.0, 1.0), Span(0, "b", (0,), 1.0, 2.0)])
    assert idle_share(in_turn, [waiting], {"m": 2}, "m") == 0.0, "b could not run before a was done"
    late = Played([Span(0, "a", (0,), 0.0, 1.0), Span(0, "b", (0,), 3.0, 4.0)])
    assert idle_share(late, [waiting], {"m": 1}, "m") == pytest.approx(2 / 3)


def test_how_many_run_at_once() -> None:
    spans = [Span(0, "a", (0,), 0.0, 2.0), Span(0, "a", (1,), 0.5, 1.5)]
    assert in_use(spans, 1.0) == ([0.0, 1.0, 2.0], [1.5, 1.5, 0.0])


def test_percentile() -> None:
    assert [percentile(range(1, 101), share) for share in (0.01, 0.5, 0.95, 1.0)] == [1, 50, 95, 100]
    assert percentile([7.0], 0.95) == 7.0


@given(st.floats(-1.5, 2.5), st.floats(0.01, 100.0), st.lists(st.integers(1, 10**6), min_size=2, unique=True))
def test_the_exponent_of_a_power_is_found(power: float, factor: float, sizes: list[int]) -> None:
    assert exponent({size: factor * size**power for size in sizes}) == pytest.approx(power, abs=1e-6)


@given(
    st.lists(st.floats(0.1, 3.0), min_size=1, max_size=5),
    st.integers(1, 12),
    st.integers(1, 6),
    st.lists(st.booleans(), min_size=5, max_size=5),
)
def test_no_schedule_that_is_played_beats_its_bound(
    seconds: list[float], rows: int, slots: int, chained: list[bool]
) -> None:
    """S4: nor is a slot idle while a cell could run, whatever the shape."""
    columns = [
        Column(f"c{n}", "m", partial(_growing, s), (f"c{n - 1}",) if n and chained[n] else ())
        for n, s in enumerate(seconds)
    ]
    flow = Flow(columns, rows)
    played = play([flow], {"m": slots}, seed=1)
    assert len(played.spans) == rows * len(columns)
    assert played.makespan >= makespan_bound([flow], {"m": slots}) - 1e-9
    counts = range(1, rows + 1)
    for out_s, bound_s in zip(played.rows_out[0], rows_bound(flow, slots, counts), strict=True):
        assert out_s >= bound_s - 1e-9
    assert idle_share(played, [flow], {"m": slots}, "m") <= 1e-9
