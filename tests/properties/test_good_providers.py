"""Providers that keep their word, one after the other: what the gate makes of each, once it has had time to find out.

Bad ones (:mod:`.test_bad_providers`) show that nothing breaks it for good. Here every rule of the laws has to do its
part: a limit has to be found, held without hammering it, and found again when another provider takes over.
"""

from __future__ import annotations

from math import inf

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from headgate.admission.scope_limits import ScopeLimits
from headgate.values import ResourceKey
from tests.properties.lying_provider import Claim, Mood
from tests.properties.provider_world import Demand, World

FEW = settings(max_examples=max(5, settings().max_examples // 12), derandomize=True)
"""An example is twenty minutes of providers' lives, a third of a second of ours. Always the same ones: how few a small
limit rejects is chance."""

FINDS_OUT_S = 200.0
WATCHED_S = 200.0
BUSY = {"p/m": Demand(backlog=2)}

MODEL = ResourceKey.parse("p/m")
AUTO = ScopeLimits(adaptive=True)

shares_slots = st.builds(
    Mood,
    slots=st.sampled_from([2.0, 8.0, 32.0]),
    latency_s=st.sampled_from([4.0, 16.0]),
    spread=st.sampled_from([0.0, 1.0]),
    label=st.booleans(),
    retry_after=st.sampled_from([None, "1"]),
)
"""Whether it says which limit it was or not: it is its slots."""

meters = st.builds(
    Mood,
    per_minute=st.sampled_from([240.0, 40.0]),
    burst=st.sampled_from([2.0, 10.0]),
    latency_s=st.just(2.0),
    spread=st.sampled_from([0.0, 1.0]),
    label=st.just(True),
    retry_after=st.sampled_from([None, "refill"]),
    claims=st.sampled_from([(), (Claim(),)]),
)
"""A rate that was raised is found out over many minutes, so the slower comes after the faster."""


def check(moods: list[Mood], *, used: float, rejected: float) -> None:
    """Of what each of ``moods`` would serve at least the share ``used``, of what was sent at most ``rejected``."""
    world = World({"p/m": AUTO}, [MODEL], mood=moods[0])
    world.gate.watch(50)
    provider = world.providers["p/m"]
    for mood in moods:
        world.change(mood)
        world.run(FINDS_OUT_S, BUSY, sends=inf)
        worked, accepted, sent, refused = provider.worked(world.now), provider.accepted, world.sent, world.rejected
        world.run(WATCHED_S, BUSY, sends=inf)
        did = provider.worked(world.now) - worked if mood.slots < inf else provider.accepted - accepted
        share = did / (world.fair_share(mood, "p/m") * WATCHED_S)
        assert share >= used, f"{mood}: {share:.1%} in use"
        refused, sent = world.rejected - refused, world.sent - sent
        assert refused <= 4 + rejected * sent, f"{mood}: {refused} of {sent} were rejected"
    world.gate.end()


@FEW
@given(st.lists(shares_slots, min_size=3, max_size=3))
def test_slots_are_found_and_held(moods: list[Mood]) -> None:
    check(moods, used=0.95, rejected=0.04)


@FEW
@given(st.lists(meters, min_size=2, max_size=2))
def test_a_rate_is_found_and_held(moods: list[Mood]) -> None:
    check(sorted(moods, key=lambda mood: -mood.per_minute), used=0.8, rejected=0.08)


@pytest.mark.parametrize("slots", [2.0, 8.0])
def test_slots_that_come_back_are_found_within_minutes(slots: float) -> None:
    """Also where the provider asks for a pause with every rejection."""
    few = Mood(slots=slots, latency_s=4.0, retry_after="1")
    many = Mood(slots=2 * slots, latency_s=4.0, retry_after="1")
    check([many, few, many], used=0.95, rejected=0.04)
