"""How providers word their limits: rate-limit headers, Retry-After and error bodies, as functions of plain
values.

Sources: OpenAI's and Anthropic's public API references (rate limits, errors), RFC 9110 (Retry-After), and the
IETF draft "RateLimit header fields for HTTP" (draft-ietf-httpapi-ratelimit-headers-10). Times that a dialect
gives as dates need the wall clock, which is handed in as seconds since 1970.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, assert_never

from .values import ProviderLimit, QuotaState

__all__ = [
    "Dialect",
    "RetryAfter",
    "error_body",
    "go_duration",
    "http_date",
    "overloaded_status",
    "rate_headers",
    "retry_after_headers",
]

WINDOW_S: Final = 60


class Dialect(StrEnum):
    """Whose rate-limit headers and error bodies a model speaks. ``NONE``: no headers, bodies as OpenAI's."""

    NONE = "none"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    IETF = "ietf"


class RetryAfter(StrEnum):
    """The form of Retry-After. ``MS`` sends ``retry-after-ms`` beside the whole seconds, as OpenAI does."""

    NONE = "none"
    SECONDS = "seconds"
    MS = "ms"
    DATE = "date"


Quotas = Mapping[ProviderLimit, QuotaState]


def rate_headers(dialect: Dialect, quotas: Quotas, wall_s: float) -> dict[str, str]:
    """Return the headers that state ``quotas`` in ``dialect``; empty if it has none or nothing is limited.

    >>> quotas = {ProviderLimit.REQUESTS: QuotaState(limit=60, remaining=59, reset_s=1.0)}
    >>> rate_headers(Dialect.IETF, quotas, wall_s=0.0)["ratelimit"]
    '"requests";r=59;t=1'
    """
    match dialect:
        case Dialect.NONE:
            return {}
        case Dialect.OPENAI:
            return _openai_headers(quotas)
        case Dialect.ANTHROPIC:
            return _anthropic_headers(quotas, wall_s)
        case Dialect.IETF:
            return _ietf_headers(quotas)
        case _:
            assert_never(dialect)


def _openai_headers(quotas: Quotas) -> dict[str, str]:
    tokens = quotas.get(ProviderLimit.TOKENS) or quotas.get(ProviderLimit.INPUT_TOKENS)
    headers: dict[str, str] = {}
    for name, quota in (("requests", quotas.get(ProviderLimit.REQUESTS)), ("tokens", tokens)):
        if quota is not None:
            headers[f"x-ratelimit-limit-{name}"] = _whole(quota.limit)
            headers[f"x-ratelimit-remaining-{name}"] = _whole(quota.remaining)
            headers[f"x-ratelimit-reset-{name}"] = go_duration(quota.reset_s)
    return headers


def _anthropic_headers(quotas: Quotas, wall_s: float) -> dict[str, str]:
    headers: dict[str, str] = {}
    for limit, quota in quotas.items():
        prefix = f"anthropic-ratelimit-{limit.value.replace('_', '-')}"
        headers[f"{prefix}-limit"] = _whole(quota.limit)
        headers[f"{prefix}-remaining"] = _whole(quota.remaining)
        headers[f"{prefix}-reset"] = _rfc3339(wall_s + quota.reset_s)
    return headers


def _ietf_headers(quotas: Quotas) -> dict[str, str]:
    if not quotas:
        return {}
    policies = [f'"{limit.value}";q={_whole(quota.limit)};w={WINDOW_S}' for limit, quota in quotas.items()]
    states = [
        f'"{limit.value}";r={_whole(quota.remaining)};t={math.ceil(quota.reset_s)}' for limit, quota in quotas.items()
    ]
    return {"ratelimit-policy": ", ".join(policies), "ratelimit": ", ".join(states)}


def retry_after_headers(form: RetryAfter, wait_s: float, wall_s: float) -> dict[str, str]:
    """Return Retry-After for a wait of ``wait_s`` seconds, rounded up; nothing for an endless wait."""
    if math.isinf(wait_s):
        return {}
    match form:
        case RetryAfter.NONE:
            return {}
        case RetryAfter.SECONDS:
            return {"retry-after": str(math.ceil(wait_s))}
        case RetryAfter.MS:
            return {"retry-after-ms": str(math.ceil(wait_s * 1000)), "retry-after": str(math.ceil(wait_s))}
        case RetryAfter.DATE:
            return {"retry-after": http_date(math.ceil(wall_s + wait_s))}
        case _:
            assert_never(form)


def go_duration(seconds: float) -> str:
    """Write a duration as Go prints it, to the millisecond, rounded up: ``6m0s``, ``1.5s``, ``120ms``,
    ``0s``.

    >>> [go_duration(value) for value in (360, 1.5, 0.12, 0, 3661)]
    ['6m0s', '1.5s', '120ms', '0s', '1h1m1s']
    """
    millis = math.ceil(seconds * 1000 - 1e-6)
    if millis <= 0:
        return "0s"
    if millis < 1000:
        return f"{millis}ms"
    minutes, rest = divmod(millis, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:g}s" if rest % 1000 == 0 else f"{rest / 1000:.3f}".rstrip("0") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def http_date(wall_s: float) -> str:
    """Write seconds since 1970 as an HTTP-date, cut to the second, whatever the locale.

    >>> http_date(784111777)
    'Sun, 06 Nov 1994 08:49:37 GMT'
    """
    at = datetime.fromtimestamp(math.floor(wall_s), UTC)
    return f"{DAYS[at.weekday()]}, {at.day:02d} {MONTHS[at.month - 1]} {at.year} {at:%H:%M:%S} GMT"


def _rfc3339(wall_s: float) -> str:
    return datetime.fromtimestamp(math.ceil(wall_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _whole(amount: float) -> str:
    return str(math.floor(amount + 1e-9))


def overloaded_status(dialect: Dialect) -> int:
    """Return the status of an overloaded provider: 529 for Anthropic-like ones, else 503."""
    return 529 if dialect is Dialect.ANTHROPIC else 503


ANTHROPIC_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}
OPENAI_TYPES: Final = {
    400: "invalid_request_error",
    401: "invalid_request_error",
    404: "invalid_request_error",
}
OPENAI_CODES: Final = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}


def error_body(dialect: Dialect, status: int, message: str, limit: ProviderLimit | None = None) -> dict[str, object]:
    """Return an error body in the provider's shape; OpenAI's names the ``limit`` as the error's type."""
    if dialect is Dialect.ANTHROPIC:
        kind = ANTHROPIC_TYPES.get(status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": message}}
    kind = limit.value if limit is not None else OPENAI_TYPES.get(status, "server_error")
    if status == 429 and limit is None:
        kind = "rate_limit_error"
    return {
        "error": {"message": message, "type": kind, "param": None, "code": OPENAI_CODES.get(status)},
    }
