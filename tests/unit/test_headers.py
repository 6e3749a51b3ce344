"""The rate-limit headers of each dialect, as real providers send them (A8)."""

from __future__ import annotations

import pytest

from headgate.admission.headers import parse_feedback
from headgate.values import Feedback, LimitKind, RateWindow

WALL = 1_445_412_480.0  # Wed, 21 Oct 2015 07:28:00 GMT


def read(status: int | None = None, **headers: str) -> Feedback:
    return parse_feedback(
        {name.replace("_", "-"): text for name, text in headers.items()}, wall_now=WALL, status=status
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2", 2.0),
        ("0", 0.0),
        (" 1.5 ", 1.5),
        ("Wed, 21 Oct 2015 07:28:30 GMT", 30.0),
        ("Wednesday, 21-Oct-15 07:28:30 GMT", 30.0),
        ("Wed Oct 21 07:28:30 2015", 30.0),
        ("Wed, 21 Oct 2015 07:20:00 GMT", 0.0),
        ("30, 30", 30.0),
    ],
)
def test_retry_after(text: str, seconds: float) -> None:
    assert read(Retry_After=text).retry_after_s == seconds
    assert read(Retry_After=text).ignored == 0


@pytest.mark.parametrize(
    "text",
    [
        "soon", "", "-1", "+1", "nan", "NaN", "inf", "1e3", "0x10", "1_000", "\u0661\u0662", "9" * 400, "9" * 100_000,
        "99999999999", "Wed, 99 Oct 2015 07:28:30 GMT", "Wed, 21 Oct 2015", "Wed, 21 Oct 99999999 07:28:30 GMT",
        "Mon, " + "a" * 100_000,
    ],
)  # fmt: skip
def test_a_retry_after_that_makes_no_sense_is_counted(text: str) -> None:
    assert read(Retry_After=text) == Feedback(ignored=1)


def test_t19_retry_after_ceiling() -> None:
    """Elsewhere a hint over 60 s was ignored and the provider hit again within 8 s. Any wait that can be meant is
    passed on; capping is the gate's business."""
    assert read(Retry_After="3600").retry_after_s == 3600.0
    assert read(Retry_After="86400").retry_after_s == 86_400.0


def test_milliseconds_are_finer_and_go_first() -> None:
    assert read(retry_after_ms="1500", retry_after="2").retry_after_s == 1.5
    assert read(retry_after_ms="soon", retry_after="2") == Feedback(retry_after_s=2.0, ignored=1)


def test_dates_are_read_against_the_clock_of_the_server() -> None:
    """The client's clock is an hour off; the wait is still thirty seconds."""
    headers = {"Date": "Wed, 21 Oct 2015 07:28:00 GMT", "Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT"}
    assert parse_feedback(headers, wall_now=WALL + 3600.0).retry_after_s == 30.0
    headers["Date"] = "nonsense"
    assert parse_feedback(headers, wall_now=WALL).retry_after_s == 30.0


def test_openai() -> None:
    feedback = read(
        x_ratelimit_limit_requests="10000",
        x_ratelimit_remaining_requests="9999",
        x_ratelimit_reset_requests="6ms",
        x_ratelimit_limit_tokens="2000000",
        x_ratelimit_remaining_tokens="1999750",
        x_ratelimit_reset_tokens="7ms",
    )
    assert feedback.requests == RateWindow(10_000, 9_999, 0.006, 60.0)
    assert feedback.tokens == RateWindow(2_000_000, 1_999_750, 0.007, 60.0)
    assert feedback.input_tokens is feedback.output_tokens is None
    assert (feedback.kind, feedback.ignored) == (None, 0)


def test_a_request_limit_per_day_shows_by_its_reset() -> None:
    """Groq: 30 of 14,400 requests are missing and back in 180 s, so the window is a day; its tokens are per minute."""
    feedback = read(
        x_ratelimit_limit_requests="14400",
        x_ratelimit_remaining_requests="14370",
        x_ratelimit_reset_requests="2m59.56s",
        x_ratelimit_limit_tokens="18000",
        x_ratelimit_remaining_tokens="17997",
        x_ratelimit_reset_tokens="7.66ms",
    )
    assert feedback.requests == RateWindow(14_400, 14_370, 179.56, 86_400.0)
    assert feedback.tokens is not None
    assert feedback.tokens.window_s == 60.0


def test_of_several_windows_the_one_with_least_left_counts() -> None:
    feedback = read(
        x_ratelimit_limit_requests_day="14400",
        x_ratelimit_remaining_requests_day="12",
        x_ratelimit_limit_requests_minute="30",
        x_ratelimit_remaining_requests_minute="29",
    )
    assert feedback.requests == RateWindow(14_400, 12, None, 86_400.0)


def test_anthropic() -> None:
    feedback = read(
        anthropic_ratelimit_requests_limit="50",
        anthropic_ratelimit_requests_remaining="49",
        anthropic_ratelimit_requests_reset="2015-10-21T07:28:02Z",
        anthropic_ratelimit_input_tokens_limit="40000",
        anthropic_ratelimit_input_tokens_remaining="39000",
        anthropic_ratelimit_input_tokens_reset="2015-10-21T09:28:02+02:00",
        anthropic_ratelimit_output_tokens_limit="8000",
        anthropic_ratelimit_output_tokens_remaining="8000",
        anthropic_ratelimit_output_tokens_reset="2015-10-21T07:27:59.500Z",
        anthropic_ratelimit_tokens_limit="48000",
        anthropic_ratelimit_tokens_remaining="47000",
        anthropic_ratelimit_tokens_reset="2015-10-21T07:28:02Z",
    )
    assert feedback.requests == RateWindow(50, 49, 2.0)
    assert feedback.input_tokens == RateWindow(40_000, 39_000, 2.0)
    assert feedback.output_tokens == RateWindow(8_000, 8_000, 0.0)
    assert feedback.tokens == RateWindow(48_000, 47_000, 2.0)
    assert feedback.ignored == 0


def test_ietf_current_draft() -> None:
    feedback = parse_feedback(
        [
            ("RateLimit-Policy", '"permin";q=50;w=60,"perhr";q=1000;w=3600;pk=:cHsdsRa894==:'),
            ("RateLimit", '"permin";r=40;t=12'),
            ("RateLimit", '"perhr";r=30;t=1500'),
        ],
        wall_now=WALL,
    )
    assert feedback.requests == RateWindow(1000, 30, 1500.0, 3600.0)
    assert feedback.ignored == 0


def test_ietf_policies_named_for_what_they_count() -> None:
    feedback = parse_feedback(
        {
            "ratelimit-policy": '"requests";q=50;w=60, "input_tokens";q=9000;w=60',
            "ratelimit": '"requests";r=40;t=12, "input_tokens";r=100;t=30',
        },
        wall_now=WALL,
    )
    assert feedback.requests == RateWindow(50, 40, 12.0)
    assert feedback.input_tokens == RateWindow(9000, 100, 30.0)


def test_ietf_concurrency_quota_names_the_limit() -> None:
    headers = {"ratelimit-policy": '"c";q=8;qu="concurrent-requests"', "ratelimit": '"c";r=0'}
    assert parse_feedback(headers, wall_now=WALL, status=429) == Feedback(kind=LimitKind.CONCURRENCY)


def test_a_quota_of_bytes_is_no_quota_of_requests() -> None:
    headers = {"ratelimit-policy": '"b";q=65535;qu="content-bytes";w=10', "ratelimit": '"b";r=0'}
    assert parse_feedback(headers, wall_now=WALL, status=429) == Feedback()


def test_ietf_draft_7_and_older() -> None:
    headers = {"ratelimit": "limit=100, remaining=50, reset=30", "ratelimit-policy": "100;w=10"}
    assert parse_feedback(headers, wall_now=WALL).requests == RateWindow(100, 50, 30.0, 10.0)
    assert read(RateLimit_Limit="100, 100;w=30", RateLimit_Remaining="7", RateLimit_Reset="9").requests == RateWindow(
        100, 7, 9.0, 60.0
    )


def test_resets_stated_as_moments() -> None:
    for reset in (f"{WALL + 5:.0f}", f"{(WALL + 5) * 1000:.0f}"):
        window = read(X_RateLimit_Limit="100", X_RateLimit_Remaining="7", X_RateLimit_Reset=reset).requests
        assert window == RateWindow(100, 7, 5.0, 60.0)


@pytest.mark.parametrize(
    ("limit", "remaining"), [("-1", "-1"), ("0", "0"), ("100", "101"), ("100", "-1"), ("nan", "1"), ("100", ""),
                             ("1e9", "5"), ("9" * 15, "5")],
)  # fmt: skip
def test_a_window_that_makes_no_sense_is_counted(limit: str, remaining: str) -> None:
    """Azure has been seen to state -1 for both."""
    feedback = read(x_ratelimit_limit_tokens=limit, x_ratelimit_remaining_tokens=remaining)
    assert feedback.tokens is None
    assert feedback.ignored >= 1


def test_a_reset_that_makes_no_sense_costs_only_the_reset() -> None:
    feedback = read(
        x_ratelimit_limit_tokens="100", x_ratelimit_remaining_tokens="5", x_ratelimit_reset_tokens="whenever"
    )
    assert feedback.tokens == RateWindow(100, 5, None, 60.0)
    assert feedback.ignored == 1


@pytest.mark.parametrize(
    "text", ['"open', ";", "a;;b", ",", '"a";r=x', '"a"', "a" * 100_000, '"a";r=1' * 1000, "a,b" * 99]
)
def test_a_broken_list_is_counted(text: str) -> None:
    feedback = parse_feedback({"ratelimit": text, "ratelimit-policy": text}, wall_now=WALL, status=429)
    assert feedback.requests is None
    assert feedback.kind is None
    assert feedback.ignored >= 1


def exhausted(*kinds: str) -> dict[str, str]:
    headers: dict[str, str] = {}
    for kind in ("requests", "tokens", "input-tokens", "output-tokens"):
        headers[f"anthropic-ratelimit-{kind}-limit"] = "100"
        headers[f"anthropic-ratelimit-{kind}-remaining"] = "0" if kind in kinds else "60"
    return headers


@pytest.mark.parametrize(
    ("empty", "kind"),
    [
        (["requests"], LimitKind.REQUESTS),
        (["tokens"], LimitKind.TOKENS),
        (["input-tokens"], LimitKind.INPUT_TOKENS),
        (["output-tokens", "tokens"], LimitKind.OUTPUT_TOKENS),
        (["requests", "tokens"], None),
        (["input-tokens", "output-tokens", "tokens"], None),
        ([], None),
    ],
)
def test_t18_the_limit_is_named_only_by_an_exhausted_window(empty: list[str], kind: LimitKind | None) -> None:
    """Elsewhere 429s were told apart by words in their text ("rate" is in "generate"). Here by numbers, and only when
    exactly one limit has nothing left."""
    assert parse_feedback(exhausted(*empty), wall_now=WALL, status=429).kind == kind


@pytest.mark.parametrize("status", [None, 200, 500, 529])
def test_only_a_429_names_a_limit(status: int | None) -> None:
    assert parse_feedback(exhausted("requests"), wall_now=WALL, status=status).kind is None


def test_headers_about_something_else_say_nothing() -> None:
    headers = {"content-type": "text/html", "x-request-id": "rate limit", "server": "retry"}
    assert parse_feedback(headers, wall_now=WALL, status=429) == Feedback()
