"""Whatever a server sends, reading it never raises, and what is understood can be meant (A8)."""

from __future__ import annotations

from datetime import UTC, datetime
from math import isfinite
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from headgate.admission.header_values import duration, moment, number, sf_items
from headgate.admission.headers import parse_feedback

if TYPE_CHECKING:
    from headgate.values import Feedback, RateWindow

KINDS = ["requests", "tokens", "input-tokens", "output-tokens"]
NAMES = [
    "date", "retry-after", "retry-after-ms", "x-ms-retry-after-ms", "ratelimit", "ratelimit-policy",
    *(f"{x}ratelimit-{part}" for x in ("", "x-") for part in ("limit", "remaining", "reset")),
    *(f"x-ratelimit-{part}-{kind}" for part in ("limit", "remaining", "reset") for kind in KINDS),
    *(f"anthropic-ratelimit-{kind}-{part}" for part in ("limit", "remaining", "reset") for kind in KINDS),
]  # fmt: skip
nearly = st.from_regex(r'[-+]?[0-9]{0,20}[.,eEhms;=" ]{0,3}[0-9a-zA-Z.:"=;, -]{0,12}')
dates = st.from_regex(r"(Mon|Tue|Sun|Wednesday),? [0-9]{1,3}[ -](Jan|Feb|Oct)[ -][0-9]{2,6} [0-9:]{5,9}( GMT)?")
lists = st.from_regex(
    r'("[a-z]{1,8}"|[a-z]{1,8})(;(q|r|w|t|qu|pk)=("[a-z-]{0,9}"|-?[0-9]{0,6}|:[A-z=]*:)){0,4}(, ?"a";r=1)?'
)
values = st.one_of(
    st.text(max_size=60), nearly, dates, lists, st.integers().map(str), st.floats().map(str), st.datetimes().map(str)
)
headers = st.lists(st.tuples(st.sampled_from(NAMES), values), max_size=20)
statuses = st.sampled_from([None, 200, 429, 503, 529])
clocks = st.floats(0.0, 4e9)


def windows(feedback: Feedback) -> list[RateWindow]:
    found = [feedback.requests, feedback.input_tokens, feedback.output_tokens, feedback.tokens]
    return [window for window in found if window is not None]


@given(pairs=headers, status=statuses, wall_now=clocks)
def test_nothing_raises_and_nothing_absurd_comes_out(
    pairs: list[tuple[str, str]], status: int | None, wall_now: float
) -> None:
    feedback = parse_feedback(pairs, wall_now=wall_now, status=status)
    assert feedback.ignored >= 0
    if feedback.retry_after_s is not None:
        assert 0.0 <= feedback.retry_after_s <= 366 * 86_400
    for window in windows(feedback):
        assert 0.0 < window.limit <= 1e12
        assert 0.0 <= window.remaining <= window.limit
        assert isfinite(window.window_s)
        assert window.window_s > 0.0
        assert window.reset_s is None or 0.0 <= window.reset_s <= 366 * 86_400
    assert feedback.kind is None or status == 429


@given(pairs=headers, status=statuses, wall_now=clocks)
def test_case_and_container_of_the_names_do_not_matter(
    pairs: list[tuple[str, str]], status: int | None, wall_now: float
) -> None:
    unique = dict(pairs)
    expected = parse_feedback(unique, wall_now=wall_now, status=status)
    shouted = [(name.upper(), text) for name, text in unique.items()]
    assert parse_feedback(shouted, wall_now=wall_now, status=status) == expected


@given(name=st.sampled_from(NAMES), piece=st.sampled_from(["9", "a", '"', ";", "a;", "1,", '"\\', "1h", " ", "\u0663"]))
def test_a_value_of_100_kb_is_not_believed(name: str, piece: str) -> None:
    feedback = parse_feedback({name: piece * 100_000}, wall_now=0.0, status=429)
    assert not windows(feedback)
    assert feedback.retry_after_s in (None, 1.0, 0.001)  # "1,1,1,...": a repeated 1, of seconds or milliseconds


@given(
    limit=st.integers(1, 10**12), used=st.floats(0.0, 1.0), reset_ms=st.integers(0, 86_400_000),
    kind=st.sampled_from(KINDS),
)  # fmt: skip
def test_what_a_provider_means_is_what_is_read(limit: int, used: float, reset_ms: int, kind: str) -> None:
    """Written by an independent pen: Go durations, RFC 3339, structured fields."""
    remaining = limit - int(limit * used)
    minutes, millis = divmod(reset_ms, 60_000)
    go = f"{minutes // 60}h{minutes % 60}m{millis // 1000}.{millis % 1000:03d}s"
    reset_s = reset_ms / 1000.0
    openai = {
        f"x-ratelimit-limit-{kind}": str(limit),
        f"x-ratelimit-remaining-{kind}": str(remaining),
        f"x-ratelimit-reset-{kind}": go,
    }
    now = 1_700_000_000.0
    stamp = datetime.fromtimestamp(now + reset_s, UTC).isoformat(timespec="milliseconds")
    anthropic = {
        f"anthropic-ratelimit-{kind}-limit": str(limit),
        f"anthropic-ratelimit-{kind}-remaining": str(remaining),
        f"anthropic-ratelimit-{kind}-reset": stamp,
    }
    ietf = {
        "ratelimit-policy": f'"{kind}";q={limit};w=60',
        "ratelimit": f'"{kind}";r={remaining};t={reset_ms // 1000}',
    }
    for headers, exact in ((openai, 1e-6), (anthropic, 2e-3), (ietf, 1.0)):
        feedback = parse_feedback(headers, wall_now=now)
        (window,) = windows(feedback)
        assert (window.limit, window.remaining, feedback.ignored) == (limit, remaining, 0)
        assert window.reset_s is not None
        assert abs(window.reset_s - reset_s) <= exact


@given(text=st.one_of(st.text(max_size=200), nearly, dates, lists))
def test_the_small_grammars_take_any_text(text: str) -> None:
    for value in (number(text), duration(text)):
        assert value is None or (isfinite(value) and value >= 0.0)
    at = moment(text)
    assert at is None or isfinite(at)
    items = sf_items(text)
    assert items is None or len(items) <= 16
