"""What one response says about the provider's limits: the rate-limit headers of every dialect as one Feedback.

Decides what the headers mean; what follows from it is for the gate and its laws. Pure: wall-clock time is handed in.
Untrusted input: whatever makes no sense (words, negative or non-finite numbers, more left than there ever was, values
of any length) is counted in ``Feedback.ignored`` and otherwise treated as absent. Never raises (A8).

Dialects, from the providers' references and the standards:

- ``retry-after-ms`` (OpenAI, Azure), ``Retry-After`` in seconds or as a date (RFC 9110);
- ``x-ratelimit-{limit,remaining,reset}-{requests,tokens}`` (OpenAI, Groq, Azure, and many after them), resets as Go
  durations; with ``-minute``, ``-hour`` or ``-day`` behind where a provider states several;
- ``anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}``, resets as RFC 3339;
- ``RateLimit`` and ``RateLimit-Policy`` (draft-ietf-httpapi-ratelimit-headers-10), the dictionary of its draft 7, and
  the older ``RateLimit-Limit``, ``-Remaining``, ``-Reset``, also with ``X-`` in front.

*tokens* without "input" or "output" are both together: OpenAI counts prompt and completion against one limit, and
Anthropic states the sum (or the tighter of its limits) under that name. So they are a limit of their own,
``Feedback.tokens``, that a request loads with the sum of its estimates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Final, NamedTuple, cast

from ..values import Feedback, LimitKind, RateWindow
from .header_values import Item, duration, moment, number, sf_items

__all__ = ["parse_feedback"]

HEADERS_MAX: Final = 1000
"""No response has more headers that matter."""

MINUTE_S: Final = 60.0
WINDOWS_S: Final = (1.0, MINUTE_S, 3600.0, 86_400.0)
"""The windows that limits come in."""

SAME_WINDOW: Final = 0.02
"""How exactly a reset must match a window to prove it."""

LIMIT_MAX: Final = 1e12
WAIT_S_MAX: Final = 366 * 86_400.0
"""Beyond these a value is no limit and no wait, but a fault."""

EPOCH_S_MIN: Final = 1e9
EPOCH_MS_MIN: Final = 1e12
"""A reset this large is a moment in seconds (milliseconds) since 1970, not a duration."""

KINDS: Final = {
    "requests": LimitKind.REQUESTS,
    "tokens": LimitKind.TOKENS,
    "input-tokens": LimitKind.INPUT_TOKENS,
    "output-tokens": LimitKind.OUTPUT_TOKENS,
}
SUFFIXES: Final = {"": None, "-minute": MINUTE_S, "-hour": 3600.0, "-day": 86_400.0}
CONCURRENT: Final = "concurrent-requests"
TOKEN_PARTS: Final = frozenset({LimitKind.INPUT_TOKENS, LimitKind.OUTPUT_TOKENS})
PREFIXES: Final = ("x-ratelimit", "anthropic-ratelimit", "ratelimit", "retry-after", "x-ms-retry-after", "date")


def parse_feedback(
    headers: Mapping[str, str] | Iterable[tuple[str, str]], *, wall_now: float, status: int | None = None
) -> Feedback:
    """Read the headers of one response. ``wall_now``: seconds since 1970, ``status``: of the response, if known.

    Dates are read against the response's own ``Date`` where it has one, so a wrong clock on either side does no harm.
    ``kind`` is set only for a 429 whose headers show exactly one limit with nothing left.
    """
    return _Reading(headers, wall_now).feedback(status)


class _Triple(NamedTuple):
    """The names of the three headers that state one limit."""

    limit: str
    remaining: str
    reset: str
    kind: LimitKind
    window_s: float | None


def _triple(pattern: str, kind: LimitKind, window_s: float | None = None) -> _Triple:
    limit, remaining, reset = (pattern.format(part) for part in ("limit", "remaining", "reset"))
    return _Triple(limit, remaining, reset, kind, window_s)


TRIPLES: Final = (
    *(_triple(f"x-ratelimit-{{}}-{word}{end}", kind, w) for word, kind in KINDS.items() for end, w in SUFFIXES.items()),
    *(_triple(f"anthropic-ratelimit-{word}-{{}}", kind, MINUTE_S) for word, kind in KINDS.items()),
)
OLDER_TRIPLES: Final = tuple(_triple(p, LimitKind.REQUESTS) for p in ("ratelimit-{}", "x-ratelimit-{}"))

_Grammar = Callable[[str], float | None]


class _Reading:
    """The headers of one response while they are read. Lives for one call."""

    __slots__ = ("_exhausted", "_headers", "_ignored", "_now", "_windows")

    def __init__(self, headers: Mapping[str, str] | Iterable[tuple[str, str]], wall_now: float) -> None:
        self._headers = _relevant(headers)
        self._ignored = 0
        self._windows: dict[LimitKind, RateWindow] = {}
        self._exhausted: set[LimitKind] = set()
        date = self._headers.get("date")
        sent = None if date is None else moment(date)
        self._now = wall_now if sent is None else sent

    def feedback(self, status: int | None) -> Feedback:
        if not self._headers:
            return Feedback()
        retry_after_s = self._retry_after()
        for triple in TRIPLES:
            self._triple(triple, triple.window_s)
        policies = self._list("ratelimit-policy")
        self._structured(policies)
        for triple in OLDER_TRIPLES:
            self._triple(triple, _policy_window_s(policies))
        return Feedback(
            retry_after_s=retry_after_s,
            kind=self._kind() if status == 429 else None,
            requests=self._windows.get(LimitKind.REQUESTS),
            input_tokens=self._windows.get(LimitKind.INPUT_TOKENS),
            output_tokens=self._windows.get(LimitKind.OUTPUT_TOKENS),
            tokens=self._windows.get(LimitKind.TOKENS),
            ignored=self._ignored,
        )

    def _kind(self) -> LimitKind | None:
        found = self._exhausted
        if LimitKind.TOKENS in found and len(found & TOKEN_PARTS) == 1:
            found = found - {LimitKind.TOKENS}  # the sum only repeats the part that ran out
        return next(iter(found)) if len(found) == 1 else None

    def _retry_after(self) -> float | None:
        for name in ("retry-after-ms", "x-ms-retry-after-ms"):
            millis = self._read(name, number)
            if millis is not None and self._sane(millis / 1000.0 <= WAIT_S_MAX):
                return millis / 1000.0
        return self._read("retry-after", self._wait)

    def _wait(self, text: str) -> float | None:
        """A wait in seconds, stated as such or as the date of its end."""
        seconds = number(text)
        if seconds is None:
            at = moment(text)
            seconds = None if at is None else max(0.0, at - self._now)
        return seconds if seconds is not None and seconds <= WAIT_S_MAX else None

    def _reset(self, text: str) -> float | None:
        """Seconds until a reset, stated as a duration, a date, or seconds or milliseconds since 1970."""
        seconds = duration(text)
        if seconds is None or seconds < EPOCH_S_MIN:
            return self._wait(text) if seconds is None else seconds
        at = seconds / 1000.0 if seconds >= EPOCH_MS_MIN else seconds
        left = max(0.0, at - self._now)
        return left if left <= WAIT_S_MAX else None

    def _triple(self, names: _Triple, window_s: float | None) -> None:
        """Take in a limit that is stated in three headers."""
        if names.limit not in self._headers and names.remaining not in self._headers:
            return
        limit = self._read(names.limit, _first_number)
        remaining = self._read(names.remaining, number)
        reset_s = self._read(names.reset, self._reset)
        if limit is not None and remaining is not None:
            self._add(names.kind, limit, remaining, reset_s, window_s)

    def _structured(self, policies: list[Item]) -> None:
        states = self._list("ratelimit")
        pairs = {name: value for name, _, value in (item.value.partition("=") for item in states)}
        if "remaining" in pairs:  # draft 7: limit=100, remaining=50, reset=30
            limit, remaining = number(pairs.get("limit", "")), number(pairs["remaining"])
            if limit is None or remaining is None:
                self._ignored += 1
            else:
                reset_s = number(pairs.get("reset", ""))
                self._add(LimitKind.REQUESTS, limit, remaining, reset_s, _policy_window_s(policies))
            return
        by_name = {policy.value: policy.parameters for policy in policies}
        for state in states:
            self._service_limit(state, by_name.get(state.value, {}))

    def _service_limit(self, state: Item, policy: dict[str, str]) -> None:
        """Take in one member of ``RateLimit``; without its policy it says only whether anything is left."""
        remaining = number(state.parameters.get("r", ""))
        if remaining is None:
            self._ignored += 1
            return
        unit = policy.get("qu")
        if unit == CONCURRENT:
            self._note_exhausted(LimitKind.CONCURRENCY, remaining)
            return
        # A policy may be named for what it counts; without a unit it counts requests.
        named = KINDS.get(state.value.replace("_", "-").lower(), LimitKind.REQUESTS)
        kind = named if unit is None else KINDS.get(unit)
        limit = number(policy.get("q", ""))
        if kind is not None and limit is not None:
            reset_s, window_s = number(state.parameters.get("t", "")), number(policy.get("w", ""))
            self._add(kind, limit, remaining, reset_s, window_s)

    def _add(
        self, kind: LimitKind, limit: float, remaining: float, reset_s: float | None, window_s: float | None
    ) -> None:
        """Keep a window that can be meant; of several of one kind the one with least left."""
        if not self._sane(0.0 < limit <= LIMIT_MAX and remaining <= limit):
            return
        if reset_s is not None and reset_s > WAIT_S_MAX:
            reset_s = None
        if window_s is None or not 0.0 < window_s <= WAIT_S_MAX:
            window_s = _window_s(limit, remaining, reset_s)
        self._note_exhausted(kind, remaining)
        known = self._windows.get(kind)
        if known is None or (remaining, window_s) < (known.remaining, known.window_s):
            self._windows[kind] = RateWindow(limit, remaining, reset_s, window_s)

    def _note_exhausted(self, kind: LimitKind, remaining: float) -> None:
        if remaining == 0.0:
            self._exhausted.add(kind)

    def _read(self, name: str, grammar: _Grammar) -> float | None:
        """Read one header; a value repeated by a proxy (``30, 30``) counts once."""
        text = self._headers.get(name)
        if text is None:
            return None
        value = grammar(text)
        if value is None and "," in text:
            value = grammar(text.partition(",")[0])
        self._sane(value is not None)
        return value

    def _list(self, name: str) -> list[Item]:
        text = self._headers.get(name)
        items = [] if text is None else sf_items(text)
        self._sane(items is not None)
        return items or []

    def _sane(self, so: bool) -> bool:
        self._ignored += not so
        return so


def _relevant(headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> dict[str, str]:
    """The headers that may say something here, names in lower case, repeated ones joined as RFC 9110 has it."""
    pairs = cast("Mapping[str, str]", headers).items() if isinstance(headers, Mapping) else headers
    found: dict[str, str] = {}
    for name, value in islice(pairs, HEADERS_MAX):
        key = name.lower()
        if key.startswith(PREFIXES):
            found[key] = f"{found[key]}, {value}" if key in found else value
    return found


def _first_number(text: str) -> float | None:
    """A number; the oldest drafts put policies behind it (``100, 100;w=60``)."""
    return number(text.partition(",")[0].partition(";")[0])


def _policy_window_s(policies: list[Item]) -> float | None:
    """The window of the only policy."""
    return number(policies[0].parameters.get("w", "")) if len(policies) == 1 else None


def _window_s(limit: float, remaining: float, reset_s: float | None) -> float:
    """The window of a limit that does not state it, from the time in which what is missing is to be refilled.

    A minute unless the reset says otherwise: Groq's and some of OpenAI's request limits are per day.
    """
    if reset_s is None:
        return MINUTE_S
    if remaining < limit:
        implied = reset_s * limit / (limit - remaining)
        for window in WINDOWS_S:
            if abs(implied / window - 1.0) <= SAME_WINDOW:
                return window
    return next((window for window in WINDOWS_S[1:] if reset_s <= window * (1.0 + SAME_WINDOW)), WINDOWS_S[-1])
