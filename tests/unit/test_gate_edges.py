"""The gate at its edges: numbers that cannot be meant, the very slow and the very fast, and what comes in late."""

from __future__ import annotations

import random
from dataclasses import replace
from math import inf, nan
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from headgate.admission.gate import Gate
from headgate.admission.scope_limits import ScopeLimits
from headgate.admission.values import Denied, DenyReason, Grant, Lease, ReleaseResult, Request
from headgate.errors import AdmissionDenied
from headgate.values import Feedback, LimitKind, Outcome, RateWindow, ResourceKey, Usage
from tests.unit.controlled import Stated, under

if TYPE_CHECKING:
    from headgate.admission import AdmissionController

MODEL = ResourceKey.parse("openai/gpt-x")
EMBEDDING = ResourceKey.parse("openai/gpt-x:embedding")
ALIAS = ResourceKey.parse("openai/other-name")
FREE = ScopeLimits(maximum=100)


def gate_under(limits: ScopeLimits = FREE) -> Gate:
    gate = Gate(rng=random.Random(1))
    gate.register(MODEL, {"openai/gpt-x": limits}, 0.0)
    return gate


def held(answer: Lease | Denied | int) -> Lease:
    assert isinstance(answer, Lease), answer
    return answer


def test_a_lease_of_another_gate_with_the_same_number_takes_none_of_ours_with_it() -> None:
    """A2: each engine of a process has a gate, and all of them count from 1."""
    ours, other = gate_under(), gate_under()
    lease, foreign = (held(gate.submit(Request(MODEL), 0.0)) for gate in (ours, other))
    assert lease.id == foreign.id
    assert ours.release(foreign, Outcome.SUCCESS, 1.0) is ReleaseResult.WRONG_GENERATION
    for gate in (ours, other):
        gate.check()
        assert gate.leases() == 1
    assert ours.release(lease, Outcome.SUCCESS, 2.0) is ReleaseResult.RELEASED
    assert other.release(foreign, Outcome.SUCCESS, 2.0) is ReleaseResult.RELEASED


@pytest.mark.parametrize(
    "numbers",
    [
        {"input_tokens": -1},
        {"output_tokens": nan},
        {"input_tokens": inf},
        {"output_tokens": 10**400},
        {"weight": 0.0},
        {"weight": -1.0},
        {"weight": nan},
        {"weight": inf},
        {"queue_timeout_s": nan},
    ],
)
def test_a_request_whose_numbers_cannot_be_meant_is_not_made(numbers: dict[str, Any]) -> None:
    """They would raise in a release by somebody else, go ahead of everybody, or wait for ever."""
    with pytest.raises(ValueError, match="openai/gpt-x"):
        Request(MODEL, **numbers)


def test_an_estimate_of_more_than_any_request_uses_is_cut() -> None:
    """What requests are said to use and what they do may multiply to anything."""
    gate = gate_under(replace(FREE, output_tokens_per_minute=1e6))
    for _ in range(20):
        lease = held(gate.submit(Request(MODEL, input_tokens=1), 0.0))
        gate.release(lease, Outcome.SUCCESS, 0.0, usage=Usage(10**12, 1))
    assert held(gate.submit(Request(MODEL, input_tokens=10**12), 0.0)).request.input_tokens == 10**12


def test_a_rate_below_one_a_minute_is_a_rate() -> None:
    """One request is more than such a minute holds, and was too large for ever: 3 a minute shared by four processes."""
    gate = gate_under(replace(FREE, requests_per_minute=0.5))
    held(gate.try_acquire(Request(MODEL), 0.0))
    refused = gate.try_acquire(Request(MODEL), 0.0)
    assert isinstance(refused, Denied)
    assert (refused.reason, refused.retry_after_s) == (DenyReason.REQUEST_RATE, 120.0)
    held(gate.try_acquire(Request(MODEL), 120.0))


def test_a_scope_at_which_a_resource_ends_late_finds_its_rate_out_too() -> None:
    """The model is used after its embeddings, under which it was only a scope to pass."""
    gate = Gate(rng=random.Random(1))
    gate.register(EMBEDDING, {}, 0.0)
    assert not gate.scopes()["openai/gpt-x"].limiters
    gate.register(MODEL, {"openai/gpt-x": ScopeLimits(adaptive=True)}, 0.0)
    assert LimitKind.REQUESTS in gate.scopes()["openai/gpt-x"].limiters


def test_a_start_up_ramp_steeper_than_time_is_told_ends() -> None:
    """The next moment was the present one, rounded: the gate asked again at once, for ever."""
    now = 1e6
    gate = gate_under(ScopeLimits(maximum=10**15, startup_ramp_s=1.0))
    held(gate.submit(Request(MODEL), now))
    held(gate.submit(Request(MODEL), now))
    assert gate.next_tick(now) == inf


def test_priorities_that_nobody_waits_with_are_forgotten() -> None:
    """T6: with a timestamp as priority each request left one behind, and all were looked at for each turn."""
    gate = gate_under(ScopeLimits(maximum=1))
    held(gate.submit(Request(MODEL), 0.0))
    for priority in range(1000):
        waiters = [gate.submit(Request(MODEL, priority=priority), 0.0) for _ in range(2)]
        for waiter in waiters:
            assert isinstance(waiter, int)
            gate.withdraw(waiter, 0.0)
        gate.check()
    assert gate.footprint() <= 12
    kept = [gate.submit(Request(MODEL, priority=priority), 0.0) for priority in range(100)]
    lease: Lease | None = next(iter(gate._leases.leases()))  # pyright: ignore[reportPrivateUsage]
    served: list[int] = []
    while lease is not None:
        gate.release(lease, Outcome.SUCCESS, 1.0)
        grants = [effect for effect in gate.take_effects() if isinstance(effect, Grant)]
        served.extend(grant.waiter for grant in grants)
        lease = grants[0].lease if grants else None
    assert served == kept[::-1]


def test_another_share_of_what_the_provider_states_holds_at_once() -> None:
    gate = gate_under()
    stated = Feedback(requests=RateWindow(600.0, 6.0))
    gate.release(held(gate.submit(Request(MODEL), 0.0)), Outcome.SUCCESS, 0.1, feedback=stated)
    limiter = gate.scopes()["openai/gpt-x"].limiters[LimitKind.REQUESTS]
    whole = limiter.rate_per_minute
    gate.set_limits("openai/gpt-x", replace(FREE, share=0.25), 0.1)
    assert limiter.rate_per_minute == pytest.approx(whole / 4)  # pyright: ignore[reportUnknownMemberType]


def test_usage_that_cannot_be_meant_leaves_what_was_reported_before() -> None:
    gate = gate_under()
    lease = held(gate.submit(Request(MODEL), 0.0))
    gate.report(lease, 0.0, usage=Usage(5, 6))
    gate.report(lease, 0.0, usage=Usage(-5, 6))
    assert lease.usage == Usage(5, 6)


def test_a_block_from_outside_says_nothing_of_the_rate() -> None:
    """A pause of an hour was taken for the wait for the provider's next window: 60 a minute became 1."""
    gate = gate_under()
    limiter = gate.scopes()["openai/gpt-x"].limiters[LimitKind.REQUESTS]
    rejected = Feedback(kind=LimitKind.REQUESTS)

    def sent(now: float, outcome: Outcome) -> None:
        feedback = None if outcome is Outcome.SUCCESS else rejected
        gate.release(held(gate.submit(Request(MODEL), now)), outcome, now + 0.05, feedback=feedback)

    for second in range(60):
        sent(float(second), Outcome.SUCCESS)
    sent(60.0, Outcome.RATE_LIMITED)
    known = limiter.rate_per_minute
    for second in range(70, 80, 2):
        sent(float(second), Outcome.SUCCESS)
    late = held(gate.submit(Request(MODEL), 80.0))
    gate.block("openai/gpt-x", inf, 80.01)
    gate.release(late, Outcome.PROVIDER_ERROR, 80.05, feedback=Feedback(retry_after_s=10.0))
    gate.unblock("openai/gpt-x", 3600.0)
    sent(3601.0, Outcome.SUCCESS)
    assert limiter.rate_per_minute >= known


def test_an_alias_does_not_loosen_or_tighten_what_it_does_not_state() -> None:
    """A9: unstated, its bounds were the defaults: at least 1 in flight, and 600 s of cooldown at most."""
    limits: Stated = {
        "openai/gpt-x": {"concurrency": "4-20-150", "cooldown": 900.0, "tokens_per_minute": 600.0},
        "openai/other-name": {"alias_of": "openai/gpt-x", "requests_per_minute": 60.0},
    }

    async def body(controller: AdmissionController) -> None:
        controller.register(MODEL)
        before = controller.gate.scopes()["openai/gpt-x"].limits
        controller.register(ALIAS)
        after = controller.gate.scopes()["openai/gpt-x"].limits
        assert after == replace(before, requests_per_minute=60.0)

    under("asyncio", body, limits)


def test_who_waits_is_told_when_an_alias_makes_its_request_too_large() -> None:
    """It was refused, and nobody woke it until something else happened."""
    limits: Stated = {
        "openai/gpt-x": {"concurrency": 1},
        "openai/other-name": {"alias_of": "openai/gpt-x", "tokens_per_minute": 10.0},
    }

    async def body(controller: AdmissionController) -> None:
        lease = await controller.acquire(Request(MODEL))

        async def wait() -> None:
            with pytest.raises(AdmissionDenied):
                await controller.acquire(Request(MODEL, input_tokens=1000, queue_timeout_s=inf))
            assert anyio.current_time() == 1.0

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.sleep(1.0)
            controller.register(ALIAS)
            await anyio.sleep(1.0)
        controller.release(lease, Outcome.SUCCESS)

    under("asyncio", body, limits)
