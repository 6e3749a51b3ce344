"""What providers say about their limits, byte for byte."""

from __future__ import annotations

import math

import pytest

from headgate.testing.provider import Dialect, ProviderLimit, QuotaState, RetryAfter
from headgate.testing.provider.dialects import (
    error_body,
    go_duration,
    http_date,
    rate_headers,
    retry_after_headers,
)

QUOTAS = {
    ProviderLimit.REQUESTS: QuotaState(limit=600, remaining=598.7, reset_s=0.13),
    ProviderLimit.INPUT_TOKENS: QuotaState(limit=150_000, remaining=149_984, reset_s=360),
    ProviderLimit.OUTPUT_TOKENS: QuotaState(limit=8_000, remaining=0, reset_s=60),
}
WALL = 784_111_777.0  # 1994-11-06 08:49:37 UTC


def test_openai_headers_use_go_durations_and_whole_numbers() -> None:
    assert rate_headers(Dialect.OPENAI, QUOTAS, WALL) == {
        "x-ratelimit-limit-requests": "600",
        "x-ratelimit-remaining-requests": "598",
        "x-ratelimit-reset-requests": "130ms",
        "x-ratelimit-limit-tokens": "150000",
        "x-ratelimit-remaining-tokens": "149984",
        "x-ratelimit-reset-tokens": "6m0s",
    }


def test_anthropic_headers_use_rfc3339_times() -> None:
    headers = rate_headers(Dialect.ANTHROPIC, QUOTAS, WALL)
    assert headers["anthropic-ratelimit-requests-limit"] == "600"
    assert headers["anthropic-ratelimit-requests-remaining"] == "598"
    assert headers["anthropic-ratelimit-requests-reset"] == "1994-11-06T08:49:38Z"
    assert headers["anthropic-ratelimit-input-tokens-reset"] == "1994-11-06T08:55:37Z"
    assert headers["anthropic-ratelimit-output-tokens-remaining"] == "0"
    assert len(headers) == 9


def test_ietf_headers_are_structured_fields() -> None:
    assert rate_headers(Dialect.IETF, QUOTAS, WALL) == {
        "ratelimit-policy": '"requests";q=600;w=60, "input_tokens";q=150000;w=60, "output_tokens";q=8000;w=60',
        "ratelimit": '"requests";r=598;t=1, "input_tokens";r=149984;t=360, "output_tokens";r=0;t=60',
    }


@pytest.mark.parametrize("dialect", list(Dialect))
def test_a_model_without_rates_sends_no_rate_headers(dialect: Dialect) -> None:
    assert rate_headers(dialect, {}, WALL) == {}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0001, "1ms"),
        (0.12, "120ms"),
        (0.9999, "1s"),
        (1, "1s"),
        (8.64, "8.64s"),
        (59.9996, "1m0s"),
        (90.5, "1m30.5s"),
        (360, "6m0s"),
        (7200.25, "2h0m0.25s"),
    ],
)
def test_go_durations(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text


@pytest.mark.parametrize(
    ("form", "headers"),
    [
        (RetryAfter.NONE, {}),
        (RetryAfter.SECONDS, {"retry-after": "3"}),
        (RetryAfter.MS, {"retry-after-ms": "2350", "retry-after": "3"}),
        (RetryAfter.DATE, {"retry-after": "Sun, 06 Nov 1994 08:49:40 GMT"}),
    ],
)
def test_retry_after_rounds_up_in_every_form(form: RetryAfter, headers: dict[str, str]) -> None:
    assert retry_after_headers(form, 2.35, WALL) == headers


@pytest.mark.parametrize("form", list(RetryAfter))
def test_a_wait_without_end_has_no_retry_after(form: RetryAfter) -> None:
    assert retry_after_headers(form, math.inf, WALL) == {}


def test_http_dates_do_not_depend_on_the_locale() -> None:
    assert http_date(0) == "Thu, 01 Jan 1970 00:00:00 GMT"
    assert http_date(WALL + 0.9) == "Sun, 06 Nov 1994 08:49:37 GMT"


def test_error_bodies_have_the_provider_s_shape() -> None:
    assert error_body(Dialect.OPENAI, 429, "no", ProviderLimit.REQUESTS) == {
        "error": {"message": "no", "type": "requests", "param": None, "code": "rate_limit_exceeded"}
    }
    assert error_body(Dialect.ANTHROPIC, 429, "no", ProviderLimit.REQUESTS) == {
        "type": "error",
        "error": {"type": "rate_limit_error", "message": "no"},
    }
    assert error_body(Dialect.ANTHROPIC, 529, "busy")["error"] == {
        "type": "overloaded_error",
        "message": "busy",
    }
    assert error_body(Dialect.NONE, 401, "who?")["error"] == {
        "message": "who?",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_api_key",
    }
