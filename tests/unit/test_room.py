"""What is left of a bound is measured rarely while there is much, and always before somebody is refused."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headgate.storage.room import Room


class Place:
    """Something that fills up, and counts how often it is measured."""

    def __init__(self, used: int = 0) -> None:
        self.used = used
        self.measured = 0

    def measure(self) -> int:
        self.measured += 1
        return self.used


def test_it_is_measured_ever_more_often_as_it_fills_up() -> None:
    room, place = Room(1_000_000), Place()
    measured: list[int] = []
    while room.take(100, place.measure):
        place.used += 100
        measured.append(place.measured)
    assert place.used == 1_000_000
    assert measured[4_999] < 8, "half of it without looking more than a few times"
    assert measured[-1] < 90


def test_room_that_was_made_is_found_at_once() -> None:
    room, place = Room(1_000), Place(used=1_000)
    assert not room.take(1, place.measure)
    place.used = 0
    assert room.take(1_000, place.measure)


@given(st.integers(1, 10_000), st.lists(st.tuples(st.integers(0, 7), st.integers(1, 500)), max_size=60))
def test_eight_writers_keep_the_bound_among_them(bound: int, writes: list[tuple[int, int]]) -> None:
    """As long as what each of them writes at once is small beside what is left."""
    rooms, place = [Room(bound) for _ in range(8)], Place()
    largest = max((size for _, size in writes), default=0)
    for writer, size in writes:
        if rooms[writer].take(size, place.measure):
            place.used += size
    assert place.used <= bound + 7 * largest


@given(st.integers(1, 10_000), st.lists(st.integers(0, 500), max_size=60))
def test_one_writer_never_passes_it_and_is_never_refused_before(bound: int, sizes: list[int]) -> None:
    room, place = Room(bound), Place()
    for size in sizes:
        fits = room.take(size, place.measure)
        assert fits == (place.used + size <= bound)
        place.used += size if fits else 0
