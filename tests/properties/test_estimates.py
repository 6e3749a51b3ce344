"""What is reserved for a request is what such requests use: converging, bounded, forgetful, and settled to nothing."""

from __future__ import annotations

import random
from math import sqrt
from statistics import fmean

import hypothesis.strategies as st
import pytest
from hypothesis import given

from headgate.admission.estimates import FLOWS_MAX, TokenEstimates
from headgate.admission.gate import Gate
from headgate.admission.moments import MIN_SAMPLES, Moments, MomentsMemory
from headgate.admission.scope import Scope
from headgate.admission.scope_limits import ScopeLimits
from headgate.admission.values import Denied, DenyReason, Grant, Lease, Refuse, Request
from headgate.values import Feedback, LimitKind, Outcome, ResourceKey, Usage

MODEL = ResourceKey.parse("p/m")
ROOM = 1e9  # tokens a minute: so many that only the reservations matter


def fed(samples: list[float]) -> Moments:
    moments = Moments()
    for sample in samples:
        moments.add(sample)
        moments.check()
    return moments


def scope_with(**limits: float) -> Scope:
    return Scope("p/m", ScopeLimits(**limits), rng=random.Random(0), leaf=True)  # type: ignore[arg-type]


ANY = scope_with(tokens_per_minute=ROOM)


def used(estimates: TokenEstimates, request: Request, tokens_in: int, tokens_out: int) -> Request:
    """One attempt, from its reservation to its usage."""
    reserved = estimates.reserve(request, (ANY,))
    estimates.learn(reserved, Outcome.SUCCESS, Usage(tokens_in, tokens_out))
    estimates.check()
    return reserved


@given(st.lists(st.integers(0, 20_000), min_size=1, max_size=20), st.integers(0, 2**32))
def test_the_reservation_converges_to_mean_and_one_standard_deviation(values: list[int], seed: int) -> None:
    """Whatever the distribution: here any twenty values, equally likely, the rarest one in twenty times."""
    rng = random.Random(seed)
    moments = fed([rng.choice(values) for _ in range(1000)])
    seen: list[float] = []
    for _ in range(3000):
        moments.add(rng.choice(values))
        seen.append(moments.usual)
    mean = fmean(values)
    spread = sqrt(fmean([(value - mean) ** 2 for value in values]))
    # The weighted variance of a handful of samples scatters, and its root lies a little below the true one.
    assert mean + 0.8 * spread - 1 <= fmean(seen) <= mean + 1.1 * spread + 1


@given(
    st.lists(st.floats(50, 150), min_size=MIN_SAMPLES, max_size=200),
    st.integers(0, 199),
    st.floats(200, 1e9),
)
def test_one_outlier_does_not_stick(samples: list[float], place: int, outlier: float) -> None:
    place = min(place, len(samples) - 1)
    plain = fed(samples)
    struck = fed([*samples[:place], outlier, *samples[place:]])
    # An outlier among the first few costs what the second largest does; later what lies five deviations out.
    assert struck.usual <= plain.usual + 0.8 * max(plain.usual, 100.0)
    for _ in range(200):
        plain.add(100.0)
        struck.add(100.0)
    assert struck.usual == pytest.approx(plain.usual, abs=12.0)


def test_what_comes_back_now_and_then_is_no_outlier() -> None:
    """One long answer in fifty: the first is taken for an accident, those after it count in full."""
    moments = fed([0.0] * 100)
    for _ in range(40):
        for sample in (1000.0, *[0.0] * 49):
            moments.add(sample)
    assert moments.mean == pytest.approx(20.0, abs=8.0)
    assert moments.sd == pytest.approx(140.0, abs=40.0)


@given(st.integers(1, 2000), st.integers(2, 50))
def test_what_changes_for_good_is_learned_within_a_hundred_requests(before: int, factor: int) -> None:
    moments = fed([float(before)] * 300)
    for _ in range(300):
        moments.add(float(before * factor))
    assert moments.usual == pytest.approx(before * factor, rel=0.15)


@given(st.integers(1, 10_000), st.floats(0.05, 20.0), st.integers(0, 2**32))
def test_estimates_that_are_wrong_alike_are_put_right(size: int, wrong: float, seed: int) -> None:
    """Characters for tokens, a forgotten system prompt: the ratio is learned, each request keeps its own size."""
    estimates, rng = TokenEstimates(), random.Random(seed)
    for _ in range(300):
        actual = max(1, round(size * rng.uniform(0.5, 1.5)))
        used(estimates, Request(MODEL, max(1, round(actual * wrong))), actual, 0)
    for actual in (size, 3 * size):
        stated = max(1, round(actual * wrong))
        reserved = estimates.reserve(Request(MODEL, stated), (ANY,)).input_tokens
        assert reserved == pytest.approx(actual, rel=0.1 + 0.6 / stated + 0.6 / max(1.0, size * wrong), abs=2)


def test_what_the_caller_says_is_a_prior_and_no_law() -> None:
    estimates = TokenEstimates()
    request = Request(MODEL, 100, 5000, flow="run/column")
    for _ in range(MIN_SAMPLES):
        reserved = used(estimates, request, 100, 10)
        assert (reserved.input_tokens, reserved.output_tokens) == (100, 5000), "believed while little is known"
    reserved = estimates.reserve(request, (ANY,))
    assert (reserved.input_tokens, reserved.output_tokens) == (100, 10)
    assert reserved.stated is request
    assert (reserved.flow, reserved.resource) == (request.flow, MODEL)


def test_where_nobody_says_anything_the_first_answer_counts_and_other_flows_stand_in() -> None:
    estimates = TokenEstimates()
    nothing = Request(MODEL, flow="a")
    assert estimates.reserve(nothing, (ANY,)) is nothing, "nothing is known, nothing is made up"
    used(estimates, nothing, 300, 40)
    for flow in ("a", "b"):
        reserved = estimates.reserve(Request(MODEL, flow=flow), (ANY,))
        assert (reserved.input_tokens, reserved.output_tokens) == (300, 40), flow
    stated = Request(MODEL, 7, 9, flow="b")
    assert estimates.reserve(stated, (ANY,)) is stated, "other flows do not overrule what this one says"


def test_requests_are_alike_by_their_name_whatever_flow_they_share_the_queue_in() -> None:
    estimates = TokenEstimates()
    for _ in range(20):
        used(estimates, Request(MODEL, flow="run", alike="run/short"), 10, 1)
        used(estimates, Request(MODEL, flow="run", alike="run/long"), 10, 900)
    assert estimates.reserve(Request(MODEL, flow="run/short"), (ANY,)).output_tokens == 1
    assert estimates.reserve(Request(MODEL, flow="run/long"), (ANY,)).output_tokens == 900


@pytest.mark.parametrize(
    "outcome",
    [outcome for outcome in Outcome if outcome not in (Outcome.SUCCESS, Outcome.INVALID_OUTPUT)],
)
def test_an_attempt_that_was_not_answered_in_full_teaches_nothing(outcome: Outcome) -> None:
    estimates = TokenEstimates()
    estimates.learn(Request(MODEL), outcome, Usage(10, 1))
    assert estimates.footprint() == 0


@given(st.lists(st.integers(0, 500), max_size=400))
def test_flows_are_bounded_and_the_one_not_heard_of_for_longest_goes(flows: list[int]) -> None:
    estimates = TokenEstimates()
    for flow in flows:
        used(estimates, Request(MODEL, flow=str(flow)), 10, flow + 1)
    latest = list(dict.fromkeys(reversed(flows)))[:FLOWS_MAX]
    assert estimates.footprint() == len(latest)
    for flow in latest:
        assert estimates.reserve(Request(MODEL, flow=str(flow)), (ANY,)).output_tokens == flow + 1


@given(
    st.integers(0, 3000),
    st.integers(0, 3000),
    st.integers(1, 10_000),
    st.integers(0, 10_000),
    st.sampled_from(["input_tokens_per_minute", "output_tokens_per_minute", "tokens_per_minute"]),
)
def test_a7_a_learned_reservation_never_exceeds_the_bucket(
    tokens_in: int, tokens_out: int, really_in: int, really_out: int, limit: str
) -> None:
    """A7: it waits for a full bucket. Only what the caller says itself can be too large."""
    capacity = 6000.0
    gate = Gate(rng=random.Random(0))
    gate.register(MODEL, {"p/m": ScopeLimits(**{limit: capacity})}, 0.0)  # type: ignore[arg-type]
    request, now = Request(MODEL, tokens_in, tokens_out), 0.0
    for _ in range(2 * MIN_SAMPLES):
        now += 600.0
        lease = gate.submit(request, now)
        assert isinstance(lease, Lease), "a full bucket lets it go"
        one, both = lease.request, lease.request.input_tokens + lease.request.output_tokens
        most = {"i": one.input_tokens, "o": one.output_tokens, "t": both}[limit[0]]
        assert most <= capacity
        gate.release(lease, Outcome.SUCCESS, now, usage=Usage(really_in, really_out))
    too_large = gate.submit(Request(MODEL, 6001, 6001), now)
    assert isinstance(too_large, Denied)
    assert too_large.reason is DenyReason.TOO_LARGE


def test_a_smaller_limit_refuses_no_waiter_for_what_was_learned() -> None:
    """Its own number fits; only what is reserved for it does not any more."""
    gate = Gate(rng=random.Random(0))
    gate.register(MODEL, {"p/m": ScopeLimits(maximum=1, tokens_per_minute=6000.0)}, 0.0)
    for minute in range(MIN_SAMPLES):
        lease = gate.submit(Request(MODEL, 10), 60.0 * minute)
        assert isinstance(lease, Lease)
        gate.release(lease, Outcome.SUCCESS, 60.0 * minute, usage=Usage(4000, 0))
    lease = gate.submit(Request(MODEL), 1000.0)
    assert isinstance(lease, Lease)
    own, larger = (gate.submit(Request(MODEL, tokens), 1000.0, timeout_s=60.0) for tokens in (10, 900))
    gate.set_limits("p/m", ScopeLimits(maximum=1, tokens_per_minute=600.0), 1000.0)
    (refused,) = gate.take_effects()
    assert isinstance(refused, Refuse)
    assert refused.waiter == larger
    gate.release(lease, Outcome.SUCCESS, 1000.0, usage=Usage())
    gate.tick(1100.0)
    (grant,) = gate.take_effects()
    assert isinstance(grant, Grant)
    assert grant.waiter == own


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500), st.sampled_from(Outcome)), max_size=60), st.data())
def test_a7_nothing_stays_reserved_when_all_are_released(
    attempts: list[tuple[int, int, Outcome]], data: st.DataObject
) -> None:
    """A7: at one instant, what is owed is what was used and what is still reserved; in the end only the former."""
    gate = Gate(rng=random.Random(0))
    gate.register(MODEL, {"p/m": ScopeLimits(tokens_per_minute=ROOM)}, 0.0)
    snapshot = gate.scopes()["p/m"].limiters[LimitKind.TOKENS].snapshot
    out: list[Lease] = []
    spent = 0.0

    def give_back(number: int, outcome: Outcome, usage: Usage | None) -> float:
        lease = out.pop(number)
        reserved = lease.request.input_tokens + lease.request.output_tokens
        gate.release(lease, outcome, 50.0, usage=usage, sent=outcome is not Outcome.CANCELLED)
        if outcome is Outcome.CANCELLED:
            return 0.0
        if usage is not None:
            return usage.input_tokens + usage.output_tokens
        kept = (Outcome.SUCCESS, Outcome.INVALID_OUTPUT, Outcome.PROVIDER_TIMEOUT, Outcome.LOCAL_TIMEOUT)
        return reserved if outcome in (*kept, Outcome.UNEXPECTED) else 0.0

    for stated, actual, outcome in attempts:
        if outcome in (Outcome.RATE_LIMITED, Outcome.OVERLOADED):
            continue  # they move the rate itself
        lease = gate.submit(Request(MODEL, stated, flow=str(stated % 3)), 50.0)
        assert isinstance(lease, Lease)
        out.append(lease)
        if data.draw(st.booleans()):
            usage = Usage(actual, actual) if data.draw(st.booleans()) else None
            spent += give_back(data.draw(st.integers(0, len(out) - 1)), outcome, usage)
        reserved = sum(one.request.input_tokens + one.request.output_tokens for one in out)
        assert snapshot(50.0).owed == pytest.approx(spent + reserved, rel=1e-6, abs=1e-2)
    while out:
        spent += give_back(0, Outcome.SUCCESS, Usage())
    assert snapshot(50.0).owed == pytest.approx(spent, rel=1e-6, abs=1e-2)
    gate.check()


def test_a_lane_without_a_token_limit_estimates_nothing_until_one_appears() -> None:
    """Then it knows already what its requests use."""
    gate = Gate(rng=random.Random(0))
    gate.register(MODEL, {"p/m": ScopeLimits(maximum=5)}, 0.0)
    request = Request(MODEL, 5, flow="a")
    for _ in range(1000):
        lease = gate.submit(request, 0.0)
        assert isinstance(lease, Lease)
        assert lease.request is request
        gate.release(lease, Outcome.SUCCESS, 0.0, usage=Usage(50, 50))
    scope = gate.scopes()["p/m"]
    assert scope.estimates.footprint() == 0
    gate.check()
    gate.set_limits("p/m", ScopeLimits(maximum=5, tokens_per_minute=ROOM), 1.0)
    lease = gate.submit(request, 1.0)
    assert isinstance(lease, Lease)
    assert (lease.request.input_tokens, lease.request.output_tokens) == (50, 50)
    gate.check()


def test_who_waits_already_when_a_token_limit_appears_is_estimated_too() -> None:
    """A silent limit shows itself by a rejection; whoever waits then would pass it as if it were free."""
    gate = Gate(rng=random.Random(0))
    gate.register(MODEL, {"p/m": ScopeLimits(maximum=10)}, 0.0)
    leases: list[Lease] = []
    for _ in range(10):
        lease = gate.submit(Request(MODEL), 0.0)
        assert isinstance(lease, Lease)
        leases.append(lease)
    waiting = Request(MODEL)
    gate.submit(waiting, 0.0, timeout_s=60.0)
    gate.block("p/m", 2.0, 0.0)
    for lease in leases[:-1]:
        gate.release(lease, Outcome.SUCCESS, 1.0, usage=Usage(40, 2))
    gate.release(leases[-1], Outcome.RATE_LIMITED, 1.0, feedback=Feedback(kind=LimitKind.TOKENS))
    gate.tick(10.0)
    (grant,) = gate.take_effects()
    assert isinstance(grant, Grant)
    assert grant.lease.request.stated is waiting
    assert (grant.lease.request.input_tokens, grant.lease.request.output_tokens) == (40, 2)
    gate.set_limits("p/m", ScopeLimits(maximum=10, output_tokens_per_minute=ROOM), 11.0)
    gate.check()


@given(st.lists(st.integers(1, 5000), min_size=MIN_SAMPLES, max_size=50))
def test_what_was_learned_outlives_the_process(outputs: list[int]) -> None:
    before, after = TokenEstimates(), TokenEstimates()
    for output in outputs:
        used(before, Request(MODEL, 10, flow="a"), 25, output)
    kept = before.learned()
    assert kept is not None
    after.restore(kept)
    after.check()
    one, other = (estimates.reserve(Request(MODEL, 10, flow="a"), (ANY,)) for estimates in (before, after))
    assert (one.input_tokens, one.output_tokens) == (other.input_tokens, other.output_tokens)
    after.restore(kept)
    assert after.footprint() == 1


@pytest.mark.parametrize("mean", [-1.0, float("nan"), float("inf")])
def test_nonsense_is_not_restored(mean: float) -> None:
    moments = Moments()
    moments.restore(MomentsMemory(mean, 1.0))
    assert moments.count == 0
