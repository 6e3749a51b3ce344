"""The provider machine by example: who is let in, what goes wrong, and what the account says."""

from __future__ import annotations

import math
from typing import Any

import pytest

from headgate.testing.provider import (
    Accepted,
    Capacity,
    Change,
    Dialect,
    Fault,
    Faults,
    Latency,
    ModelSpec,
    OutputTokens,
    ProviderLimit,
    ProviderModel,
    ProviderRequest,
    ProviderSpec,
    Rejected,
    RetryAfter,
    TokenCharge,
    Window,
)


def _provider(spec: ModelSpec, **more: Any) -> ProviderModel:
    return ProviderModel(ProviderSpec(models={"m": spec}, **more))


def _ask(
    provider: ProviderModel, now: float, content: str = "Why?", tokens: int = 1, most: int | None = None
) -> Accepted | Rejected:
    return provider.begin(ProviderRequest("m", content, tokens, most), now)


def _accepted(provider: ProviderModel, now: float, content: str = "Why?", **more: Any) -> Accepted:
    decision = _ask(provider, now, content, **more)
    assert isinstance(decision, Accepted), decision
    return decision


def _rejected(provider: ProviderModel, now: float, content: str = "Why?", **more: Any) -> Rejected:
    decision = _ask(provider, now, content, **more)
    assert isinstance(decision, Rejected), decision
    return decision


def test_a_full_model_rejects_until_a_slot_is_free() -> None:
    provider = _provider(ModelSpec(concurrency=2))
    first, _ = _accepted(provider, 0), _accepted(provider, 0)
    no = _rejected(provider, 1)
    assert (no.status, no.limit) == (429, ProviderLimit.CONCURRENCY)
    provider.end(first.request_id, 2)
    _accepted(provider, 2)
    _rejected(provider, 2)


@pytest.mark.parametrize(
    ("spec", "limit"),
    [
        (ModelSpec(requests_per_minute=60, request_burst=1), ProviderLimit.REQUESTS),
        (ModelSpec(tokens_per_minute=60, token_burst=15), ProviderLimit.TOKENS),
        (ModelSpec(input_tokens_per_minute=60, token_burst=10), ProviderLimit.INPUT_TOKENS),
        (ModelSpec(output_tokens_per_minute=60, token_burst=5), ProviderLimit.OUTPUT_TOKENS),
    ],
)
def test_each_rate_rejects_by_its_own_name_and_says_when_to_come_back(spec: ModelSpec, limit: ProviderLimit) -> None:
    shape = {"output_tokens": OutputTokens(mean=5), "retry_after": RetryAfter.MS}
    provider = _provider(spec.model_copy(update=shape))
    _accepted(provider, 0, tokens=10)
    no = _rejected(provider, 0.25, tokens=10)
    assert no.limit is limit
    back_s = int(no.headers["retry-after-ms"]) / 1000
    _rejected(provider, 0.25 + back_s - 0.01, tokens=10)
    _accepted(provider, 0.25 + back_s, tokens=10)


def test_a_refusal_takes_nothing_from_the_other_quotas() -> None:
    provider = _provider(ModelSpec(requests_per_minute=60, input_tokens_per_minute=60, token_burst=10))
    _accepted(provider, 0, tokens=10)
    for _ in range(500):
        assert _rejected(provider, 0, tokens=10).limit is ProviderLimit.INPUT_TOKENS
    for second in range(1, 31):
        _accepted(provider, second, tokens=1)


def test_rejected_requests_can_count_against_the_quota() -> None:
    plain = _provider(ModelSpec(requests_per_minute=60, request_burst=1))
    counting = _provider(ModelSpec(requests_per_minute=60, request_burst=1, count_rejected=True))
    for provider in (plain, counting):
        _accepted(provider, 0)
        _rejected(provider, 0.9)
    _accepted(plain, 1.1)
    _rejected(counting, 1.1)
    _accepted(counting, 2.1)


def test_a_request_that_can_never_fit_is_told_so_without_retry_after() -> None:
    provider = _provider(ModelSpec(input_tokens_per_minute=100, retry_after=RetryAfter.SECONDS))
    no = _rejected(provider, 0, tokens=101)
    assert "retry-after" not in no.headers
    assert "too large" in str(no.body)
    _accepted(provider, 0, tokens=100)


def test_fixed_windows_start_with_the_first_request() -> None:
    provider = _provider(
        ModelSpec(requests_per_minute=2, window=Window.FIXED, window_phase_s=30, retry_after=RetryAfter.SECONDS)
    )
    start = 1234.0
    _accepted(provider, start)
    _accepted(provider, start)
    assert _rejected(provider, start + 1).headers["retry-after"] == "29"
    _accepted(provider, start + 30)


def test_output_can_be_charged_by_max_tokens_whatever_is_made() -> None:
    spec = ModelSpec(output_tokens_per_minute=100, output_tokens=OutputTokens(mean=5))
    actual = _provider(spec)
    reserving = _provider(spec.model_copy(update={"token_charge": TokenCharge.MAX_TOKENS}))
    for provider in (actual, reserving):
        assert _accepted(provider, 0, most=80).output_tokens == 5
    _accepted(actual, 0, most=80)
    _rejected(reserving, 0, most=80)


def test_answers_are_cut_at_max_tokens() -> None:
    provider = _provider(ModelSpec(output_tokens=OutputTokens(mean=50)))
    assert _accepted(provider, 0, most=7).output_tokens == 7
    assert _accepted(provider, 0, most=0).output_tokens == 0


def test_a_script_counts_from_the_first_request_and_changes_in_order() -> None:
    provider = _provider(
        ModelSpec(
            concurrency=1,
            script=(
                Change(at_s=10, concurrency=3),
                Change(at_s=20, reject=503),
                Change(at_s=25, reject=None, concurrency=0),
            ),
        )
    )
    assert provider.next_tick(0) == math.inf
    _accepted(provider, 100)
    assert provider.next_tick(100) == 110
    _rejected(provider, 109.9)
    _accepted(provider, 110)
    _accepted(provider, 110)
    _rejected(provider, 119)
    no = _rejected(provider, 120)
    assert (no.status, no.limit) == (503, ProviderLimit.EVERYTHING)
    assert _rejected(provider, 126).limit is ProviderLimit.CONCURRENCY
    assert provider.next_tick(126) == math.inf


def test_changes_that_were_slept_through_still_count_by_their_times() -> None:
    provider = _provider(
        ModelSpec(concurrency=10, script=(Change(at_s=10, concurrency=20), Change(at_s=20, concurrency=0)))
    )
    _accepted(provider, 0)
    stats = provider.stats(100).models["m"]
    assert stats.capacity_s == 10 * 10 + 10 * 20
    assert stats.busy_s == 100


def test_a_rejecting_model_names_the_time_of_its_next_change() -> None:
    provider = _provider(ModelSpec(reject=429, retry_after=RetryAfter.SECONDS, script=(Change(at_s=3, reject=None),)))
    assert _rejected(provider, 0).headers["retry-after"] == "3"
    assert _rejected(provider, 2.5).headers["retry-after"] == "1"
    _accepted(provider, 3)


def test_retry_after_can_be_fixed_to_any_value() -> None:
    provider = _provider(
        ModelSpec(requests_per_minute=600, request_burst=1, retry_after=RetryAfter.SECONDS, retry_after_s=60)
    )
    _accepted(provider, 0)
    assert _rejected(provider, 0).headers["retry-after"] == "60"


def test_headers_state_what_is_left_after_this_request() -> None:
    provider = ProviderModel(
        ProviderSpec(models={"m": ModelSpec(requests_per_minute=60, headers=Dialect.ANTHROPIC)}),
        epoch_s=1_700_000_000,
    )
    headers = _accepted(provider, 0.5).headers
    assert headers["anthropic-ratelimit-requests-remaining"] == "59"
    assert headers["anthropic-ratelimit-requests-reset"] == "2023-11-14T22:13:22Z"


def test_a_vague_provider_does_not_say_which_limit_it_was() -> None:
    telling = _provider(ModelSpec(concurrency=0))
    vague = _provider(ModelSpec(concurrency=0, vague=True))
    assert "concurrent" in str(_rejected(telling, 0).body)
    assert "concurrent" not in str(_rejected(vague, 0).body)


def test_an_unknown_model_is_404_and_in_no_model_s_account() -> None:
    provider = _provider(ModelSpec())
    no = provider.begin(ProviderRequest("other", "Why?"), 0)
    assert isinstance(no, Rejected)
    assert no.status == 404
    stats = provider.stats(0)
    assert (stats.unknown_model, stats.models["m"].requests) == (1, 0)


@pytest.mark.parametrize(
    ("fault", "status", "recorded"),
    [
        (Fault.ERROR_500, 500, "500"),
        (Fault.OVERLOADED, 503, "503"),
        (Fault.UNAUTHORIZED, 401, "401"),
        (Fault.BAD_REQUEST, 400, "400"),
        (Fault.RESET, 200, "reset"),
        (Fault.MALFORMED, 200, "200"),
        (Fault.SLOW_BODY, 200, "200"),
        (Fault.SLOW, 200, "200"),
    ],
)
def test_each_fault_has_its_status_and_place_in_the_account(fault: Fault, status: int, recorded: str) -> None:
    provider = _provider(ModelSpec(faults=Faults.model_validate({fault.value: 1.0})))
    accepted = _accepted(provider, 0)
    assert (accepted.fault, accepted.status) == (fault, status)
    assert (accepted.error is None) == (status == 200)
    provider.end(accepted.request_id, 1)
    stats = provider.stats(1).models["m"]
    assert stats.statuses == {recorded: 1}
    assert stats.faults == {fault.value: 1}
    assert stats.answered == (recorded == "200")


def test_slow_answers_take_longer_and_slow_bodies_only_in_the_body() -> None:
    spec = ModelSpec(latency=Latency(mean_s=2, per_output_token_s=0.5), output_tokens=OutputTokens(mean=4))
    plain = _accepted(_provider(spec), 0)
    slow = _accepted(_provider(spec.model_copy(update={"faults": Faults(slow=1)})), 0)
    body = _accepted(_provider(spec.model_copy(update={"faults": Faults(slow_body=1, slow_factor=3)})), 0)
    assert (plain.latency_s, plain.body_s) == (4, 0)
    assert (slow.latency_s, slow.body_s) == (40, 0)
    assert (body.latency_s, body.body_s) == (4, 8)


def test_anthropic_says_529_when_overloaded() -> None:
    provider = _provider(ModelSpec(headers=Dialect.ANTHROPIC, faults=Faults(overloaded=1)))
    assert _accepted(provider, 0).status == 529


def test_poisoned_content_fails_every_time_and_other_content_never() -> None:
    provider = _provider(ModelSpec(faults=Faults(poison={"row 7": Fault.ERROR_500})))
    assert [_accepted(provider, 0, "this is row 7").fault for _ in range(5)] == [Fault.ERROR_500] * 5
    assert _accepted(provider, 0, "this is row 8").fault is None


def test_a_retry_may_succeed_unless_faults_are_sticky() -> None:
    def fates(*, sticky: bool) -> list[set[Fault | None]]:
        provider = _provider(ModelSpec(faults=Faults(error_500=0.5, sticky=sticky)))
        return [{_accepted(provider, 0, str(row)).fault for _ in range(20)} for row in range(20)]

    assert all(len(fate) == 2 for fate in fates(sticky=False))
    assert all(len(fate) == 1 for fate in fates(sticky=True))
    assert {Fault.ERROR_500} in fates(sticky=True)
    assert {None} in fates(sticky=True)


def test_faults_and_lengths_come_as_often_and_as_long_as_configured() -> None:
    provider = _provider(
        ModelSpec(
            faults=Faults(error_500=0.1, hang=0.3),
            latency=Latency(mean_s=5, sigma=1),
            output_tokens=OutputTokens(mean=100, sigma=0.5),
        )
    )
    taken = [_accepted(provider, 0, str(row)) for row in range(10_000)]
    assert sum(one.fault is Fault.ERROR_500 for one in taken) == pytest.approx(1_000, rel=0.15)
    assert sum(one.fault is Fault.HANG for one in taken) == pytest.approx(3_000, rel=0.1)
    assert sum(one.latency_s for one in taken) / 10_000 == pytest.approx(5, rel=0.1)
    assert sum(one.output_tokens for one in taken) / 10_000 == pytest.approx(100, rel=0.05)


def test_the_account_shows_what_was_asked_and_paid_for_twice() -> None:
    provider = _provider(ModelSpec(concurrency=1))
    first = _accepted(provider, 0, "once")
    _rejected(provider, 0, "twice")
    provider.end(first.request_id, 1)
    for now in (1, 2):
        provider.end(_accepted(provider, now, "twice").request_id, now + 1)
    provider.end(_accepted(provider, 3, "left").request_id, 4, left=True)
    provider.end(_accepted(provider, 4, "left").request_id, 5)
    stats = provider.stats(5).models["m"]
    assert (stats.contents, stats.accepted_again, stats.answered_again) == (3, 2, 1)
    twice = provider.count("m", "twice")
    assert (twice.requests, twice.accepted, twice.answered) == (3, 2, 2)
    assert provider.count("m", "never").requests == 0
    assert stats.statuses == {"200": 4, "429": 1, "left": 1}


def test_the_memory_of_contents_is_bounded_and_says_what_it_forgot() -> None:
    provider = _provider(ModelSpec(), remember=10)
    for row in range(100):
        _accepted(provider, 0, str(row))
    stats = provider.stats(0).models["m"]
    assert (stats.contents, stats.forgotten) == (10, 90)
    assert provider.count("m", "99").requests == 1
    assert provider.count("m", "0").requests == 0


def test_the_integrals_give_the_utilisation() -> None:
    provider = _provider(ModelSpec(concurrency=4))
    taken = [_accepted(provider, 10, str(row)) for row in range(4)]
    for accepted in taken:
        provider.end(accepted.request_id, 12)
    stats = provider.stats(14).models["m"]
    assert (stats.busy_s, stats.capacity_s, stats.served_s, stats.utilisation) == (8, 16, 8, 0.5)
    assert provider.stats(14).now_s == 4
    unlimited = _provider(ModelSpec())
    _accepted(unlimited, 0)
    assert unlimited.stats(1).models["m"].utilisation is None


def test_a_reset_starts_the_counts_again_with_those_in_flight() -> None:
    provider = _provider(ModelSpec(concurrency=2))
    first = _accepted(provider, 0)
    provider.end(_accepted(provider, 0).request_id, 1)
    provider.reset_stats(5)
    provider.check()
    provider.end(first.request_id, 6)
    stats = provider.stats(7).models["m"]
    assert (stats.requests, stats.statuses, stats.busy_s, stats.in_flight) == (1, {"200": 1}, 1, 0)


def test_changes_before_the_first_request_hold_and_do_not_start_the_clock() -> None:
    provider = _provider(ModelSpec(concurrency=5, script=(Change(at_s=10, concurrency=7),)))
    provider.change("m", Capacity(concurrency=0, requests_per_minute=1), 3)
    assert provider.stats(50).now_s == 0
    _rejected(provider, 100)
    assert provider.capacity("m").concurrency == 0
    _accepted(provider, 110)
    assert _rejected(provider, 110).limit is ProviderLimit.REQUESTS
    with pytest.raises(KeyError):
        provider.change("other", Capacity(), 110)


def test_ending_twice_is_the_caller_s_fault() -> None:
    provider = _provider(ModelSpec())
    accepted = _accepted(provider, 0)
    provider.end(accepted.request_id, 1)
    with pytest.raises(AssertionError, match="ended twice"):
        provider.end(accepted.request_id, 1)
