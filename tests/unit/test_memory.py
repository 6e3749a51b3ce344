"""What a scope learned, written down and begun with again: what is believed, and what wins over it."""

from __future__ import annotations

import json
import random
from math import inf, nan
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from headgate.admission.concurrency import LawMemory
from headgate.admission.estimates import FLOWS_MAX, FlowMemory, TokenMemory
from headgate.admission.gate import Gate
from headgate.admission.memory import FRESH_S, ScopeMemory, learned, restore
from headgate.admission.memory_plain import SCOPES_MAX, from_plain, to_plain
from headgate.admission.moments import MomentsMemory
from headgate.admission.rate import LearnedSnapshot
from headgate.admission.scope_limits import ScopeLimits
from headgate.admission.values import Grant, Lease, Request
from headgate.values import Feedback, LimitKind, Outcome, ResourceKey, Usage

if TYPE_CHECKING:
    from headgate.admission.scope import Scope

MODEL = ResourceKey.parse("p/m")
AUTO = ScopeLimits(adaptive=True, start=4)

numbers = st.floats(0, 1e9)
moments = st.none() | st.builds(MomentsMemory, numbers, numbers)
flows = st.builds(FlowMemory, moments, moments, moments, moments)
memories = st.builds(
    ScopeMemory,
    age_s=numbers,
    concurrency=st.none() | st.builds(LawMemory, st.floats(1, 1024), st.floats(2, 300), st.floats(1, 30)),
    measured=st.booleans(),
    rates=st.dictionaries(
        st.sampled_from([kind for kind in LimitKind if kind is not LimitKind.CONCURRENCY]),
        st.builds(LearnedSnapshot, st.floats(1e-3, 1e6), st.floats(10, 1200)),
    ),
    tokens=st.none()
    | st.builds(TokenMemory, st.none() | flows, st.dictionaries(st.text(max_size=5), flows, max_size=3)),
)
nested = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


def held(limit: float) -> LawMemory:
    return LawMemory(limit, probe_every_s=20.0, tau=1.0)


def gate_with(limits: ScopeLimits = AUTO) -> tuple[Gate, Scope]:
    gate = Gate(rng=random.Random(0))
    gate.register(MODEL, {"p/m": limits}, 0.0)
    return gate, gate.scopes()["p/m"]


def rejected_at(gate: Gate, in_flight: int, *, kind: LimitKind = LimitKind.CONCURRENCY) -> None:
    """Send until so many are in flight, then have the last one rejected."""
    leases: list[Lease] = []
    now = 0.0
    gate.submit(Request(MODEL), now, bid=True)  # somebody always waits
    while len(leases) <= in_flight:
        now += 0.01
        gate.submit(Request(MODEL), now, bid=True)
        gate.tick(now)
        leases.extend(effect.lease for effect in gate.take_effects() if isinstance(effect, Grant))
        assert now < 100.0
    gate.release(leases.pop(), Outcome.RATE_LIMITED, now, feedback=Feedback(kind=kind))
    for lease in leases:
        gate.release(lease, Outcome.SUCCESS, now)


@given(st.dictionaries(st.text(max_size=8), memories, max_size=4))
def test_what_is_written_comes_back(kept: dict[str, ScopeMemory]) -> None:
    assert from_plain(json.loads(json.dumps(to_plain(kept)))) == kept


@given(st.dictionaries(st.text(max_size=4), memories, min_size=1, max_size=2), st.data())
def test_garbage_anywhere_is_as_good_as_never_learned(kept: dict[str, ScopeMemory], data: st.DataObject) -> None:
    """One value somewhere in it becomes something else: never an error, and other scopes are read all the same."""
    plain: Any = json.loads(json.dumps(to_plain(kept)))
    struck = data.draw(st.sampled_from(sorted(kept)))
    place, key = plain["scopes"], struck
    while isinstance(place[key], dict) and place[key] and data.draw(st.booleans()):
        place = place[key]
        key = data.draw(st.sampled_from(sorted(place)))
    place[key] = data.draw(nested)
    found = from_plain(plain)
    for name in kept.keys() - {struck}:
        assert found[name] == kept[name]
    gate, scope = gate_with()
    if struck in found:
        restore(scope, found[struck], 0.0, age_s=0.0)
    gate.check()


@given(nested)
def test_anything_at_all_can_be_read(plain: object) -> None:
    assert from_plain(plain) == {}


@pytest.mark.parametrize("number", [nan, inf, -inf, 10**400, -(10**400), 1e300, "5", [], {}])
def test_numbers_that_are_none_are_not_believed(number: object) -> None:
    plain = to_plain({"p/m": ScopeMemory(concurrency=held(8.0), measured=True)})
    plain["scopes"]["p/m"]["concurrency"]["limit"] = number  # type: ignore[index]
    assert from_plain(plain) == {}


def test_a_field_that_is_not_known_may_change_the_meaning_of_the_others() -> None:
    plain = to_plain({name: ScopeMemory(concurrency=held(8.0), measured=True) for name in ("p/m", "p/n")})
    plain["scopes"]["p/m"]["concurrency"]["unit"] = "dozens"  # type: ignore[index]
    assert list(from_plain(plain)) == ["p/n"]
    plain["version"] = 2
    assert from_plain(plain) == {}


def test_a_record_is_bounded() -> None:
    flow = FlowMemory(output=MomentsMemory(1.0, 1.0))
    many = {str(n): ScopeMemory(age_s=float(n), tokens=TokenMemory(flow, {"f": flow})) for n in range(2 * SCOPES_MAX)}
    assert list(from_plain(to_plain(many))) == [str(n) for n in range(SCOPES_MAX)], "the youngest"
    flows = {str(n): flow for n in range(3 * FLOWS_MAX)}
    (found,) = from_plain(to_plain({"p/m": ScopeMemory(tokens=TokenMemory(None, flows))})).values()
    assert found.tokens is not None
    assert len(found.tokens.flows) == FLOWS_MAX


def test_within_the_hour_a_measured_limit_is_held_at_once() -> None:
    gate, scope = gate_with()
    rejected_at(gate, 20)
    (kept,) = learned([scope], 10.0).values()
    assert kept.concurrency is not None
    assert kept.concurrency.limit == scope.limit > 15
    _, later = gate_with()
    assert restore(later, kept, 0.0, age_s=FRESH_S - 60)
    assert later.limit == pytest.approx(0.9 * kept.concurrency.limit)
    assert later.concurrency is not None
    assert later.concurrency.snapshot(0.0).mode == "hold"


@pytest.mark.parametrize("age_s", [FRESH_S + 1, 30 * 86_400.0, 1e12, inf])
def test_older_limits_are_a_place_to_start_from(age_s: float) -> None:
    _, scope = gate_with()
    assert restore(scope, ScopeMemory(concurrency=held(200.0), measured=True), 0.0, age_s=age_s)
    assert scope.limit == 50.0
    assert scope.concurrency is not None
    assert scope.concurrency.snapshot(0.0).mode == "ramp"


def test_a_level_that_nothing_spoke_against_is_no_limit_to_hold() -> None:
    _, scope = gate_with()
    restore(scope, ScopeMemory(concurrency=held(100.0), measured=False), 0.0, age_s=5.0)
    assert scope.limit == 90.0
    assert scope.concurrency is not None
    assert scope.concurrency.snapshot(0.0).mode == "ramp"


@pytest.mark.parametrize(
    ("limits", "limit"),
    [
        (ScopeLimits(maximum=8), 8.0),
        (ScopeLimits(adaptive=True, start=4, maximum=12), 12.0),
        (ScopeLimits(adaptive=True, minimum=300, start=300, maximum=400), 300.0),
    ],
    ids=["fixed", "smaller maximum", "larger minimum"],
)
def test_what_the_user_configured_since_wins(limits: ScopeLimits, limit: float) -> None:
    _, scope = gate_with(limits)
    restore(scope, ScopeMemory(concurrency=held(100.0), measured=True), 0.0, age_s=5.0)
    assert scope.limit == limit


def test_a_rate_that_was_learned_is_held_and_a_smaller_configured_one_wins() -> None:
    kept = ScopeMemory(rates={LimitKind.REQUESTS: LearnedSnapshot(10.0, 600.0)})
    for configured, found in ((None, 600.0), (240.0, 240.0), (6000.0, 600.0)):
        _, scope = gate_with(ScopeLimits(adaptive=True, requests_per_minute=configured))
        restore(scope, kept, 5.0, age_s=5.0)
        assert scope.limiter(LimitKind.REQUESTS).rate_per_minute == pytest.approx(found)
    _, fresh = gate_with()
    _, old = gate_with()
    restore(fresh, kept, 0.0, age_s=5.0)
    restore(old, kept, 0.0, age_s=FRESH_S + 5.0)
    at = [scope.limiter(LimitKind.REQUESTS).next_tick(0.0) for scope in (fresh, old)]
    assert at[0] > 400.0, "held as long as it had come to be held"
    assert at[1] < 15.0, "an old one is probed soon"


def test_a_token_limit_that_was_learned_makes_its_lane_estimate_from_the_first_request_on() -> None:
    flow = FlowMemory(output=MomentsMemory(700.0, 50.0))
    kept = ScopeMemory(
        rates={LimitKind.TOKENS: LearnedSnapshot(1e5, 10.0)}, tokens=TokenMemory(None, {"run/column": flow})
    )
    gate, scope = gate_with()
    restore(scope, kept, 0.0, age_s=5.0)
    lease = gate.submit(Request(MODEL, 3, flow="run/column"), 0.0)
    assert isinstance(lease, Lease)
    assert lease.request.output_tokens == 750
    gate.release(lease, Outcome.SUCCESS, 0.0, usage=Usage(3, 700))
    gate.check()


def test_a_scope_in_use_is_left_alone_but_for_requests_it_has_not_seen() -> None:
    gate, scope = gate_with(ScopeLimits(adaptive=True, start=4, tokens_per_minute=1e9))
    lease = gate.submit(Request(MODEL, flow="own"), 0.0)
    assert isinstance(lease, Lease)
    gate.release(lease, Outcome.SUCCESS, 0.0, usage=Usage(1, 9))
    flow = FlowMemory(output=MomentsMemory(700.0, 0.0))
    kept = ScopeMemory(concurrency=held(100.0), measured=True, tokens=TokenMemory(flow, {"own": flow, "other": flow}))
    assert not restore(scope, kept, 1.0, age_s=5.0)
    assert scope.limit == 4.0
    for name, output in (("own", 9), ("other", 700)):
        lease = gate.submit(Request(MODEL, flow=name), 1.0)
        assert isinstance(lease, Lease)
        assert lease.request.output_tokens == output


def test_of_two_records_the_younger_one_counts_in_either_order() -> None:
    records = [(ScopeMemory(concurrency=held(limit), measured=True), age) for limit, age in ((100, 50), (40, 9))]
    for order in (records, records[::-1]):
        _, scope = gate_with()
        for kept, age_s in order:
            restore(scope, kept, 0.0, age_s=float(age_s))
        assert scope.limit == pytest.approx(36.0)


def test_restarting_again_and_again_wears_nothing_down() -> None:
    """Each restart begins a little below. A run of a few requests each time must not end up at one slot."""
    kept = ScopeMemory(concurrency=held(100.0), measured=True)
    for life in range(10):
        gate, scope = gate_with()
        restore(scope, kept, 0.0, age_s=1.0)
        if life % 2:
            lease = gate.submit(Request(MODEL), 1.0)
            assert isinstance(lease, Lease)
            gate.release(lease, Outcome.SUCCESS, 2.0)
        (kept,) = learned([scope], 3.0).values()
        assert kept.concurrency == held(100.0)


def test_what_was_not_used_stays_as_old_as_it_is() -> None:
    kept = ScopeMemory(age_s=100.0, concurrency=held(100.0), measured=True)
    _, scope = gate_with()
    restore(scope, kept, 10.0, age_s=20.0)
    (again,) = learned([scope], 40.0).values()
    assert again.age_s == 150.0
    assert again.concurrency == kept.concurrency


def test_the_age_counts_from_the_last_request() -> None:
    gate, scope = gate_with()
    rejected_at(gate, 10)
    ages = [learned([scope], now)["p/m"].age_s for now in (100.0, 4000.0)]
    assert ages[1] - ages[0] == 3900.0
    assert 90.0 < ages[0] < 100.0


def test_a_scope_that_learned_nothing_leaves_nothing() -> None:
    _, scope = gate_with()
    assert learned([scope], 5.0) == {}
