"""The knee of the throughput of a server that queues, under any order of answers: bounds, no runaway, no collapse."""

from __future__ import annotations

from collections import deque
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.admission.concurrency import AdaptiveConcurrency
from headgate.admission.gate import Gate
from headgate.admission.law_values import Stamp
from headgate.admission.limits import Limits
from headgate.admission.queueing import STEP, TRIAL, Knee
from headgate.admission.scope_limits import scope_limits
from headgate.admission.values import Grant, Lease, Request
from headgate.values import Outcome, ResourceKey, Usage
from tests.simulation.queueing_simulator import Server, figures, queueing


def stamp(others: int, sent_at: float) -> Stamp:
    """Of a request that went out while so many others were in flight."""
    made = Stamp()
    made.generation, made.others, made.sent_at, made.seq = 0, others, sent_at, 1
    return made


@given(
    start=st.integers(1, 64),
    maximum=st.integers(1, 512),
    answers=st.lists(
        st.tuples(
            st.floats(0.0, 100.0),
            st.floats(0.0, 500.0),
            st.one_of(st.none(), st.floats(0.0, 1e6)),
            st.booleans(),
        ),
        max_size=300,
    ),
)
def test_any_answers_keep_the_level_within_one_step(
    start: int, maximum: int, answers: list[tuple[float, float, float | None, bool]]
) -> None:
    knee = Knee(minimum=1, start=float(start), maximum=maximum)
    now = 0.0
    for gap, latency, units, used in answers:
        now += gap
        before = knee.level
        others = int(knee.level) - 1 if used else 0
        moved = knee.completed(stamp(others, now - latency), now, units)
        assert moved == (knee.level != before)
        assert before / STEP - 1.0 <= knee.level <= before * STEP + 1.0
        knee.check()


@given(gap=st.floats(0.01, 10.0), number=st.integers(1, 500), known=st.booleans())
def test_no_step_without_use(gap: float, number: int, known: bool) -> None:
    """Requests sent with few in flight say nothing about the level (T4)."""
    knee = Knee(minimum=1, start=32.0, maximum=512)
    for tick in range(number):
        now = tick * gap
        assert not knee.completed(stamp(20, now - 1.0), now, 100.0 if known else None)
    assert knee.level == 32.0


@settings(max_examples=15)
@given(knee=st.integers(8, 128), latency=st.floats(0.1, 20.0))
def test_it_ends_within_a_step_of_the_knee(knee: int, latency: float) -> None:
    """A server without noise: a request takes ``latency`` up to the knee, and longer in proportion beyond it."""
    law = Knee(minimum=1, start=4.0, maximum=4096)
    now = 0.0
    highest = 0.0
    for _ in range(12000):
        took = latency * max(1.0, law.level / knee)
        now += took / law.level
        law.completed(stamp(int(law.level) - 1, now - took), now, 100.0)
        highest = max(highest, law.level)
    assert knee / STEP <= law.level <= knee * STEP * TRIAL + 1.0
    assert highest <= knee * STEP * STEP + 1.0


@pytest.mark.parametrize("seed", [1, 2])
def test_a_server_that_batches_is_used_and_not_flooded(seed: int) -> None:
    server = Server([(0.0, 32.0)], queueing(seed), seed=seed, check=True)
    server.run(500.0)
    throughput, mean, most = figures(server, 250, 500)
    assert throughput >= 0.93
    assert mean <= 1.5 * 32
    assert most <= 2.0 * 32


def test_a_knee_that_halves_and_comes_back_is_followed() -> None:
    server = Server([(0.0, 64.0), (400.0, 32.0), (800.0, 64.0)], queueing(1), seed=1, check=True)
    server.run(1300.0)
    halved = figures(server, 500, 800)
    restored = figures(server, 950, 1300)
    assert halved[0] >= 0.93
    assert halved[1] <= 48
    assert restored[0] >= 0.87
    assert restored[1] <= 96


def test_without_it_a_server_that_queues_is_flooded() -> None:
    """Why it exists: no rejection, no limit but the user's maximum."""
    law = AdaptiveConcurrency(minimum=1, start=4, maximum=4096, rng=Random(1))
    server = Server([(0.0, 32.0)], law, seed=1)
    server.run(100.0)
    assert figures(server, 50, 100)[2] == 4096


def test_a_rejection_still_counts() -> None:
    law = queueing(1, start=40)
    law.advance(0.0, 39, True)
    law.rejected(law.sent(0.0, 30), 0.1)
    assert law.limit <= 30
    law.check()


def test_bounds_may_move_over_the_knee() -> None:
    law = queueing(1, start=40)
    law.set_bounds(1, 10, 0.0)
    assert (law.limit, law.maximum) == (10, 10)
    law.set_bounds(1, 100, 1.0)
    assert law.maximum == 100
    assert law.limit <= 10
    law.check()


@pytest.mark.parametrize(
    ("queues", "tokens", "lowest", "highest"), [(False, 50, 100, 200), (True, 50, 4, 10), (True, 0, 4, 4)]
)
def test_it_is_asked_for_by_configuration_and_hears_of_the_tokens(
    queues: bool, tokens: int, lowest: int, highest: int
) -> None:
    """Behind a whole gate: one worker that takes a tenth of a second for each request, whoever waits for it. Answers
    without any token teach nothing."""
    resource = ResourceKey.parse("vllm/m")
    gate = Gate(rng=Random(1))
    gate.register(resource, {"vllm/m": scope_limits(Limits(concurrency="1-4-200", queueing=queues))}, now=0.0)
    now, flying, waiting, most = 0.0, deque[Lease](), 0, 0
    for number in range(2000):
        while not waiting:
            answer = gate.submit(Request(resource), now)
            if isinstance(answer, Lease):
                flying.append(answer)
            else:
                waiting += 1
        now += 0.1
        gate.release(flying.popleft(), Outcome.SUCCESS, now, usage=Usage(10, tokens * (1 + number % 3)))
        gate.tick(now)
        for effect in gate.take_effects():
            if isinstance(effect, Grant):
                flying.append(effect.lease)
                waiting -= 1
        most = max(most, len(flying))
    gate.check()
    assert lowest <= most <= highest
