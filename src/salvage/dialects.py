"""What providers' status codes, error codes and clients' exception names mean: tables, nothing else.

Only structured values are listed: numbers, codes and types of error bodies, names of classes. Free text is
never matched, since "rate" is also in "generate", and a message can say anything. Sources: the error
references of OpenAI, Anthropic, Google (canonical codes), AWS Bedrock, Groq, DeepSeek and Moonshot; the
exception trees of httpx, aiohttp, requests, urllib3, botocore and the two SDKs.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from ..values import LimitKind
from .kinds import FailureKind

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CLASSES", "CODES", "DECISIVE", "LIMITS", "SDK_ROOTS", "STATUSES", "TRANSPORT_ROOTS", "of_status"]

_K = FailureKind

STATUSES: Final[Mapping[int, FailureKind]] = MappingProxyType(
    {
        401: _K.UNAUTHORIZED,
        402: _K.QUOTA_EXHAUSTED,
        403: _K.UNAUTHORIZED,
        408: _K.PROVIDER_TIMEOUT,
        # Conflict, locked, failed dependency, too early, client closed: states of the server that pass. The
        # SDKs retry 409 as well; if it does not pass, attempts are bounded.
        409: _K.PROVIDER_ERROR,
        423: _K.PROVIDER_ERROR,
        424: _K.PROVIDER_ERROR,
        425: _K.PROVIDER_ERROR,
        429: _K.RATE_LIMITED,
        498: _K.OVERLOADED,  # Groq: no room in the flexible tier
        499: _K.PROVIDER_ERROR,
        503: _K.OVERLOADED,
        504: _K.PROVIDER_TIMEOUT,
        522: _K.PROVIDER_TIMEOUT,  # a proxy's connection to the origin timed out
        524: _K.PROVIDER_TIMEOUT,  # the origin did not answer the proxy in time
        529: _K.OVERLOADED,
    }
)
"""Statuses that mean something else than their hundred."""


def of_status(status: int) -> FailureKind | None:
    """Return what a status alone says; None if it is no error."""
    if status in STATUSES:
        return STATUSES[status]
    if 400 <= status < 500:
        return _K.REJECTED
    return _K.PROVIDER_ERROR if 500 <= status < 600 else None


LIMITS: Final[Mapping[str, LimitKind]] = MappingProxyType(
    {
        # OpenAI names the limit in "type", beside the code rate_limit_exceeded; others follow it.
        "requests": LimitKind.REQUESTS,
        "tokens": LimitKind.TOKENS,
        "input_tokens": LimitKind.INPUT_TOKENS,
        "output_tokens": LimitKind.OUTPUT_TOKENS,
        "concurrency": LimitKind.CONCURRENCY,
    }
)
"""Which limit a body says a 429 was about."""


DECISIVE: Final[Mapping[str, FailureKind]] = MappingProxyType(
    {
        # The account is empty, whatever the status (OpenAI sends 429, Moonshot 429, DashScope 400, DeepSeek
        # 402).
        "insufficient_quota": _K.QUOTA_EXHAUSTED,
        "billing_hard_limit_reached": _K.QUOTA_EXHAUSTED,
        "billing_not_active": _K.QUOTA_EXHAUSTED,
        "billing_error": _K.QUOTA_EXHAUSTED,
        "insufficient_balance": _K.QUOTA_EXHAUSTED,
        "exceeded_current_quota_error": _K.QUOTA_EXHAUSTED,
        "arrearage": _K.QUOTA_EXHAUSTED,
        # A slower pace is asked for, whatever the status (AWS services also send 400, gateways 503).
        "rate_limit_exceeded": _K.RATE_LIMITED,
        "rate_limit_error": _K.RATE_LIMITED,
        "throttling": _K.RATE_LIMITED,
        "throttlingexception": _K.RATE_LIMITED,
        "toomanyrequestsexception": _K.RATE_LIMITED,
        "overloaded_error": _K.OVERLOADED,
        "invalid_api_key": _K.UNAUTHORIZED,
    }
)
"""Codes that overrule the status, in lower case."""

CODES: Final[Mapping[str, FailureKind]] = MappingProxyType(
    {
        # Errors inside a stream whose response began with 200.
        "api_error": _K.PROVIDER_ERROR,
        "server_error": _K.PROVIDER_ERROR,
        "internal_server_error": _K.PROVIDER_ERROR,
        "timeout_error": _K.PROVIDER_TIMEOUT,
        "authentication_error": _K.UNAUTHORIZED,
        "permission_error": _K.UNAUTHORIZED,
        "invalid_request_error": _K.REJECTED,
        "not_found_error": _K.REJECTED,
        "request_too_large": _K.REJECTED,
        "context_length_exceeded": _K.REJECTED,
        # Canonical codes of Google's APIs and of gRPC.
        "resource_exhausted": _K.RATE_LIMITED,
        "unavailable": _K.OVERLOADED,
        "deadline_exceeded": _K.PROVIDER_TIMEOUT,
        "internal": _K.PROVIDER_ERROR,
        "aborted": _K.PROVIDER_ERROR,
        "unauthenticated": _K.UNAUTHORIZED,
        "permission_denied": _K.UNAUTHORIZED,
        "invalid_argument": _K.REJECTED,
        "failed_precondition": _K.REJECTED,
        "out_of_range": _K.REJECTED,
        "not_found": _K.REJECTED,
        # AWS, without the HTTP status that usually comes with them.
        "serviceunavailableexception": _K.OVERLOADED,
        "modelnotreadyexception": _K.OVERLOADED,
        "modeltimeoutexception": _K.PROVIDER_TIMEOUT,
        "internalserverexception": _K.PROVIDER_ERROR,
        "accessdeniedexception": _K.UNAUTHORIZED,
        "validationexception": _K.REJECTED,
    }
)
"""Codes that speak only where no HTTP status does, in lower case."""

TRANSPORT_ROOTS: Final = frozenset(
    {"aiohttp", "botocore", "grpc", "h11", "h2", "http", "httpcore", "httpcore2", "httpx", "httpx2"}
    | {"requests", "ssl", "urllib", "urllib3", "websockets"}
)
"""Top-level modules whose exceptions, where nothing else is known of them, are transport errors."""

SDK_ROOTS: Final = frozenset({"anthropic", "google", "groq", "litellm", "mistralai", "openai", "together"})
"""Top-level modules of SDKs. Their unknown exceptions may be about configuration: no guess is made."""

_TRANSPORT_CLASSES: Final[Mapping[str, FailureKind]] = {
    "ReadTimeout": _K.PROVIDER_TIMEOUT,
    "ReadTimeoutError": _K.PROVIDER_TIMEOUT,
    "WriteTimeout": _K.PROVIDER_TIMEOUT,
    "TimeoutException": _K.PROVIDER_TIMEOUT,
    "Timeout": _K.PROVIDER_TIMEOUT,
    "ServerTimeoutError": _K.PROVIDER_TIMEOUT,
    "ConnectTimeout": _K.CONNECTION_ERROR,
    "ConnectTimeoutError": _K.CONNECTION_ERROR,
    "ConnectionTimeoutError": _K.CONNECTION_ERROR,
    # The client's own pool had no connection free: a local queue, which the provider never saw.
    "PoolTimeout": _K.ADMISSION_TIMEOUT,
    "EmptyPoolError": _K.ADMISSION_TIMEOUT,
    # The answer came and cannot be read.
    "JSONDecodeError": _K.INVALID_OUTPUT,
    "InvalidJSONError": _K.INVALID_OUTPUT,
    "ContentTypeError": _K.INVALID_OUTPUT,
    # Nothing was sent, and nothing ever will be: the caller's mistake.
    "InvalidURL": _K.BUG,
    "InvalidHeader": _K.BUG,
    "MissingSchema": _K.BUG,
    "InvalidSchema": _K.BUG,
    "UnsupportedProtocol": _K.BUG,
    "StreamError": _K.BUG,
    "ParamValidationError": _K.BUG,
    "NoCredentialsError": _K.UNAUTHORIZED,
}
_SDK_CLASSES: Final[Mapping[str, FailureKind]] = {
    "APITimeoutError": _K.PROVIDER_TIMEOUT,
    "APIConnectionError": _K.CONNECTION_ERROR,
    "APIResponseValidationError": _K.INVALID_OUTPUT,
    "LengthFinishReasonError": _K.INVALID_OUTPUT,
    "ContentFilterFinishReasonError": _K.REJECTED,
    "RetryError": _K.CONNECTION_ERROR,
    "APIError": _K.PROVIDER_ERROR,
}
_OUTPUT_CLASSES: Final = (
    ("json", "JSONDecodeError"),
    ("simplejson", "JSONDecodeError"),
    ("pydantic", "ValidationError"),
    ("pydantic_core", "ValidationError"),
    ("jsonschema", "ValidationError"),
    ("msgspec", "DecodeError"),
    ("msgspec", "ValidationError"),
)
_STREAM_CLASSES: Final = tuple(
    (root, name) for root in ("anyio", "trio") for name in ("BrokenResourceError", "EndOfStream")
)

CLASSES: Final[Mapping[tuple[str, str], FailureKind]] = MappingProxyType(
    {(root, name): kind for root in TRANSPORT_ROOTS for name, kind in _TRANSPORT_CLASSES.items()}
    | {(root, name): kind for root in SDK_ROOTS for name, kind in _SDK_CLASSES.items()}
    | dict.fromkeys(_STREAM_CLASSES, _K.CONNECTION_ERROR)
    | dict.fromkeys(_OUTPUT_CLASSES, _K.INVALID_OUTPUT)
)
"""What a class is, by the top-level module that defines it and its name. Subclasses inherit the meaning."""
