"""Deadlines against a table of every job's moment that is searched in full."""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from headgate.engine.deadlines import Deadlines

TIMEOUTS = (0.5, 1.0, 5.0)
EVENTS = st.lists(
    st.tuples(st.sampled_from((0.0, 0.25, 1.0, 4.0)), st.sampled_from(("begin", "end", "look")), st.integers(0, 9)),
    max_size=80,
)


@given(EVENTS)
def test_whoever_is_due_is_found_and_nobody_else(events: list[tuple[float, str, int]]) -> None:
    deadlines: Deadlines[int] = Deadlines()
    due_at: dict[int, float] = {}
    now = 0.0
    for number, (passed_s, event, which) in enumerate(events):
        now += passed_s
        running = sorted(due_at)
        if event == "begin":
            deadlines.begin(number, TIMEOUTS[which % 3], now)
            due_at[number] = now + TIMEOUTS[which % 3]
        elif event == "end" and running:
            job = running[which % len(running)]
            del due_at[job]
            deadlines.end(job, _timeout_of(events, job))
        assert deadlines.earliest <= min(due_at.values(), default=inf)
        if event == "look":
            found: list[float] = []
            while (due := deadlines.pop_due(now)) is not None:
                found.append(due_at.pop(due))
                deadlines.end(due, _timeout_of(events, due))  # the job that was cut ends as every other
            assert found == sorted(found)
            assert now < deadlines.earliest <= min(due_at.values(), default=inf)


def _timeout_of(events: list[tuple[float, str, int]], job: int) -> float:
    return TIMEOUTS[events[job][2] % 3]
