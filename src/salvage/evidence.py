"""What an exception of any client carries: status, error codes, headers. Read without importing one SDK.

Decides nothing. Looks at attributes and mappings only, at a bounded number of them, and calls nothing that
could do I/O: a body counts only if the client has already read it. What raises when it is looked at counts as absent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from itertools import islice
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Evidence", "examine"]

_MAX_BODY: Final = 65_536
_MAX_HEADERS: Final = 200
_STATUS_NAMES: Final = ("status_code", "status", "http_status", "code")
_CODE_NAMES: Final = ("code", "type", "status", "Code", "__type")


@dataclass(frozen=True, slots=True)
class Evidence:
    """``status`` is an HTTP status from 200 to 599; ``codes`` are structured codes in lower case."""

    status: int | None
    codes: frozenset[str]
    headers: tuple[tuple[str, str], ...]


def examine(exc: BaseException) -> Evidence:
    """Return what this one exception carries; its causes are looked at separately."""
    response = _get(exc, "response")
    body = _body(exc, response)
    codes = frozenset(_codes(exc, response, body))
    return Evidence(_status(exc, response, body), codes, _headers(exc, response))


def _get(source: object, name: str) -> object:
    try:
        if isinstance(source, Mapping):
            return cast("Mapping[object, object]", source).get(name)
        return getattr(source, name, None)
    except Exception:  # a property of somebody else's class
        return None


def _status(exc: BaseException, response: object, body: object) -> int | None:
    metadata = _get(response, "ResponseMetadata")
    places = ((exc, _STATUS_NAMES), (response, _STATUS_NAMES), (metadata, ("HTTPStatusCode",)))
    for source, names in (*places, (_get(body, "error"), _STATUS_NAMES), (body, _STATUS_NAMES)):
        for name in names:
            status = _number(_get(source, name))
            if status is not None:
                return status
    return None


def _number(value: object) -> int | None:
    if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 200 <= value <= 599:
        return int(value)
    return None


def _body(exc: BaseException, response: object) -> object:
    for candidate in (_get(exc, "body"), _get(exc, "details"), response, _get(response, "_content")):
        if isinstance(candidate, Mapping):
            return cast("Mapping[object, object]", candidate)
        # `_content` is where httpx and requests keep a body that was read; `.content` would read it now.
        if isinstance(candidate, (bytes, str)) and 0 < len(candidate) <= _MAX_BODY:
            try:
                return cast("object", json.loads(candidate))
            except (ValueError, RecursionError):
                continue
    return None


def _codes(exc: BaseException, response: object, body: object) -> Iterator[str]:
    error = _get(body, "error")
    for source in (exc, error, body, _get(response, "Error"), _get(body, "detail")):
        for name in _CODE_NAMES:
            value = _get(source, name)
            label = value if isinstance(value, str) else _get(value, "name") if value is not None else None
            if isinstance(label, str) and 0 < len(label) <= 80:
                yield label.lower()


def _headers(exc: BaseException, response: object) -> tuple[tuple[str, str], ...]:
    metadata = _get(response, "ResponseMetadata")
    for candidate in (_get(response, "headers"), _get(exc, "headers"), _get(metadata, "HTTPHeaders")):
        if isinstance(candidate, (Mapping, Message)):
            with suppress(Exception):
                pairs = cast("Mapping[object, object]", candidate).items()
                return tuple((str(name), str(value)) for name, value in islice(pairs, _MAX_HEADERS))
    return ()
