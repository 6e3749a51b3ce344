"""Providers that lie, jump, stall and contradict themselves: hypothesis looks for one that the gate does not survive.

Safety: after every call the promises A1 to A10 are checked from outside (:mod:`.watched_gate`). Liveness, at the end of
every run, when the provider turns honest: no permanent stall (within ``HALF_WITHIN_S`` at least half, within
``MOST_WITHIN_S`` at least nine tenths of what the provider would serve) and no permanent overshoot (after
``SETTLED_AFTER_S`` at most ``WASTED`` of the requests are rejected).

``@example`` holds every script that once broke something.
"""

from __future__ import annotations

import sys
from math import inf
from typing import TYPE_CHECKING

import hypothesis.strategies as st
from hypothesis import example, given, settings, target
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from headgate.admission.scope_limits import ScopeLimits
from headgate.values import Outcome, ResourceKey
from tests.properties.lying_provider import Claim, Mood
from tests.properties.provider_moods import Phase, moods, scripts
from tests.properties.provider_world import Demand, World

if TYPE_CHECKING:
    from headgate.admission.values import Lease

DEEP = settings().max_examples > 100
"""Worse cases are searched for by their figures: they are the slow ones, too."""

FEWER = settings(max_examples=settings().max_examples // (1 if DEEP else 2))
"""An example is an hour of a provider's life, a fifth of a second of ours."""

MODEL = ResourceKey.parse("p/m")
AUTO = ScopeLimits(adaptive=True)

HONEST = Mood(slots=32, latency_s=16.0)
METERED = Mood(per_minute=40.0, burst=10.0, latency_s=2.0, label=True)

COOLDOWN_S = 601.0
"""The longest cooldown that a hint causes, with its jitter."""

STATED_S = 600.0
"""A statement that was confirmed for long is asked again after this; three answers without it end it (an honest
provider states the truth, or nothing)."""

HOLD_S = 1.25 * 1200.0
"""The longest that a learned rate is held before it is probed, with its jitter."""

CLIMB_S = 900.0
"""A probe's way from the slowest rate, one request a minute, to the honest provider's two a second: a factor of 120,
which the probe's law reaches in 830 s."""

SLACK_S = 180.0
"""Windows of measurement, backoffs of 30 s at most, the search for the concurrency."""

HALF_WITHIN_S = COOLDOWN_S + max(3 * STATED_S, HOLD_S + CLIMB_S) + SLACK_S
MOST_WITHIN_S = HALF_WITHIN_S + 600.0

SETTLED_AFTER_S = COOLDOWN_S + 600.0
"""The longest block that a lie may have left behind, and ten minutes to measure the limit that holds now."""

WASTED = 0.05


def played(script: tuple[Phase, ...], limits: ScopeLimits = AUTO) -> World:
    """A world in which the provider has gone through the moods of ``script``."""
    world = World({"p/m": limits}, [MODEL])
    for phase in script:
        world.change(phase.mood)
        world.run(phase.seconds, {"p/m": Demand(backlog=phase.backlog)}, sends=phase.sends)
    return world


FINE = Phase(Mood(slots=32), 30.0, 400)


@FEWER
@given(scripts)
@example((FINE, Phase(Mood(rejects=1.0), 3.0)))
@example((FINE, Phase(Mood(slots=2, reject_s=1.0), 30.0, 400, 10)))
@example((FINE, Phase(Mood(rejects=1.0, retry_after="36000"), 3.0)))
@example((FINE, Phase(Mood(slots=32, claims=(Claim(limit=1.0, left=0.0, reset="24h0m0s"),)), 1.0, 1)))
@example((Phase(Mood(slots=32, claims=(Claim("x-ratelimit-{}-tokens", limit=3.0, left=1.0),))),))
@example((Phase(Mood(slots=32, claims=(Claim("x-ratelimit-{}-tokens", 1e6, 0.0, "768h"),))),))
@example(
    (
        Phase(Mood(slots=32, claims=(Claim("x-ratelimit-{}-tokens", limit=1000.0, left=1.0),))),
        Phase(Mood(slots=32, usage_factor=1e9), 3.0, 10),
    )
)
@example((FINE, Phase(Mood(per_minute=0.5, burst=1.0, label=True), 3600.0, 10_000)))
@example(
    (
        Phase(Mood(slots=1, rejects=0.1, retry_after="any"), 1.0, 5),
        Phase(Mood(slots=64, latency_s=0.1, reject_s=1.0, rejects=0.1, retry_after="1"), 70.0, 200),
        Phase(Mood(slots=4, per_minute=30.0, reject_s=1.0, rejects=0.1), 1.0, 40, 2),
        Phase(Mood(slots=4, per_minute=600.0, latency_s=0.1, reject_s=1.0, rejects=0.1, retry_after="any"), 0.2, 1, 2),
    )
)
def test_no_provider_stalls_the_gate_for_good(script: tuple[Phase, ...]) -> None:
    world = played(script)
    world.gate.watch(20)
    found = world.recover(HONEST, "p/m", within_s=MOST_WITHIN_S)
    world.gate.end()
    if DEEP:
        target(min(found.to_half_s, MOST_WITHIN_S), label="seconds to half")
        target(min(found.to_most_s, MOST_WITHIN_S), label="seconds to most")
    assert found.to_half_s <= HALF_WITHIN_S, f"stalled: {found}"
    assert found.to_most_s <= MOST_WITHIN_S, f"limps: {found}"


# Answers are few, and none of the last ones states anything: the statement lapses while somebody waits for it.
LAPSING = Mood(
    burst=1.0,
    latency_s=0.1,
    spread=1.0,
    reject_s=1.0,
    overloads=0.1,
    resets=0.95,
    claims=(Claim(), Claim(raw=("", "", "1s")), Claim(limit=1.0)),
)


@FEWER
@given(scripts)
@example((Phase(Mood(slots=1.0), 1.0), Phase(Mood(slots=0.0, burst=1.0, retry_after="36000"), 1.0)))
@example((Phase(LAPSING, 1500.0, 40, 2),))
def test_no_provider_makes_the_gate_overshoot_for_good(script: tuple[Phase, ...]) -> None:
    world = played(script)
    world.gate.watch(20)
    world.recover(METERED, "p/m", within_s=SETTLED_AFTER_S, most=2.0)
    sent, rejected = world.sent, world.rejected
    world.run(300.0, sends=inf)
    wasted = (world.rejected - rejected) / max(50, world.sent - sent)
    world.gate.end()
    if DEEP:
        target(wasted, label="wasted share")
    assert wasted <= WASTED, f"{wasted:.1%} of {world.sent - sent} were rejected"


NAMES = ("one/a", "one/b", "one/b:embedding", "two/t")
ALIAS = ResourceKey.parse("one/other-name-of-a")
LIMITS = {
    "one": ScopeLimits(maximum=60),
    "one/a": AUTO,
    "one/b": ScopeLimits(maximum=3, startup_ramp_s=5.0),
    "one/b:embedding": ScopeLimits(requests_per_minute=120.0, maximum=50),
    "two/t": ScopeLimits(adaptive=True, tokens_per_minute=6000.0),
}
RETUNED = st.builds(
    ScopeLimits,
    maximum=st.sampled_from([1, 2, 50]),
    adaptive=st.booleans(),
    start=st.just(1.0),
    requests_per_minute=st.sampled_from([None, 1.0, 6000.0]),
    tokens_per_minute=st.sampled_from([None, 100.0, 1e9]),
    cooldown_cap_s=st.sampled_from([600.0, 1.0]),
)
OUTCOMES = st.sampled_from(list(Outcome))


class BadProviders(RuleBasedStateMachine):
    """Everything that may happen to a gate, in any order, while its providers lie."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(LIMITS, [ResourceKey.parse(name) for name in NAMES], now=1e6)
        self.gate = self.world.gate
        self.gone: list[Lease] = []

    @rule(mood=moods, resource=st.sampled_from([None, *NAMES]))
    def the_provider_changes(self, mood: Mood, resource: str | None) -> None:
        self.world.change(mood, resource)

    @rule(
        seconds=st.sampled_from([0.05, 1.0, 7.0, 65.0, 700.0]),
        sends=st.sampled_from([40, 0, 3]),
        asked=st.lists(st.sampled_from(NAMES), max_size=3, unique=True),
        demand=st.builds(
            Demand,
            backlog=st.sampled_from([1, 30]),
            tokens=st.sampled_from([10, 0, 5000]),
            timeout_s=st.sampled_from([inf, 0.5, 30.0]),
        ),
    )
    def requests_are_made(self, seconds: float, sends: int, asked: list[str], demand: Demand) -> None:
        self.world.run(seconds, dict.fromkeys(asked, demand), sends=sends)

    @rule(
        resource=st.sampled_from([*NAMES, str(ALIAS)]),
        tokens=st.sampled_from([0, 10, 7000]),
        timeout_s=st.sampled_from([0.0, 0.5, 60.0, inf]),
        flow=st.sampled_from("xy"),
        priority=st.integers(0, 1),
    )
    def somebody_asks(self, resource: str, tokens: int, timeout_s: float, flow: str, priority: int) -> None:
        if resource in self.gate.names:
            self.world.submit(resource, tokens, timeout_s, flow=flow, priority=priority)

    @rule(resource=st.sampled_from(NAMES), tokens=st.sampled_from([0, 10, 7000]))
    def somebody_tries(self, resource: str, tokens: int) -> None:
        self.world.attempt(resource, tokens)

    @precondition(lambda self: self.gate.waiting)
    @rule(pick=st.integers(0, 1000))
    def a_waiter_gives_up(self, pick: int) -> None:
        self.gate.withdraw(sorted(self.gate.waiting)[pick % len(self.gate.waiting)])

    @precondition(lambda self: self.world.flying)
    @rule(pick=st.integers(0, 1000), outcome=OUTCOMES, sent=st.booleans())
    def an_attempt_ends_early(self, pick: int, outcome: Outcome, sent: bool) -> None:
        number = sorted(self.world.flying)[pick % len(self.world.flying)]
        self.gone.append(self.world.flying[number].lease)
        self.world.end_now(number, outcome, sent=sent or outcome is not Outcome.CANCELLED)

    @precondition(lambda self: self.gone)
    @rule(pick=st.integers(0, 1000))
    def a_lease_is_released_again(self, pick: int) -> None:
        self.gate.release_again(self.gone[pick % len(self.gone)])

    @rule(scope=st.sampled_from(["one", *NAMES]), limits=RETUNED)
    def limits_are_set(self, scope: str, limits: ScopeLimits) -> None:
        self.gate.set_limits(scope, limits)

    @rule(scope=st.sampled_from(["one", "two", "one/a"]), seconds=st.sampled_from([0.5, 100.0, inf]))
    def somebody_blocks(self, scope: str, seconds: float) -> None:
        self.gate.block(scope, seconds)

    @rule(scope=st.sampled_from(["one", "two", "one/a"]))
    def somebody_unblocks(self, scope: str) -> None:
        self.gate.unblock(scope)

    @rule(maximum=st.sampled_from([2, 500]))
    def an_alias_appears(self, maximum: int) -> None:
        if str(ALIAS) not in self.gate.names:
            self.gate.alias(ALIAS, ResourceKey.parse("one/a"), ScopeLimits(maximum=maximum, adaptive=True))

    @precondition(lambda self: self.gone)
    @rule()
    def the_gate_is_shut_down(self) -> None:
        self.gate.shutdown()

    def teardown(self) -> None:
        """Faults stop, and everything must work: then every book is zero."""
        if sys.exc_info()[0] is not None:
            return
        if not self.gate.closed:
            self.gate.watch(20)
            for scope, limits in LIMITS.items():
                self.gate.set_limits(scope, limits)
            for resource in ("one/a", "two/t"):
                found = self.world.recover(HONEST, resource, within_s=HALF_WITHIN_S, most=0.5)
                assert found.to_half_s <= HALF_WITHIN_S, f"{resource} stalled: {found}"
        self.gate.end()


TestBadProviders = BadProviders.TestCase
TestBadProviders.settings = FEWER
