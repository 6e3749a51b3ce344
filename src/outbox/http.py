"""Deliveries over HTTP, by whatever client the program has: httpx, httpx2, or one that is called like them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, Protocol, cast
from urllib.parse import quote

from .ports import DeliveryFailed, Reconciled
from .values import Answer, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .values import Item

__all__ = ["HttpClient", "HttpResponse", "HttpSender"]

_GONE: Final = frozenset({404, 410})
_LATER: Final = frozenset({408, 425, 429, 503})
_PLAIN: Final = re.compile(r"[!-$&-~]([ -$&-~]*[!-$&-~])?")
_SAFE: Final = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")
_SAID: Final = 500  # characters of an answer that are kept


class HttpResponse(Protocol):
    """What a client returns."""

    @property
    def status_code(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; the case of their names does not count."""
        ...

    @property
    def content(self) -> bytes:
        """The body."""
        ...


class HttpClient(Protocol):
    """What is needed of ``httpx.AsyncClient``."""

    async def post(self, url: str, *, content: bytes, headers: dict[str, str]) -> HttpResponse:
        """Send a POST request and read the whole response."""
        ...


def _beside(destination: str) -> str:
    return f"{destination.rstrip('/')}/reconcile"


@dataclass(frozen=True, slots=True)
class HttpSender:
    """POSTs each body to its destination, which is a URL, with the key as ``Idempotency-Key``.

    Rows are called as their users like: a key that is not visible ASCII, or has a percent sign, is percent-encoded.

    Any 2xx acknowledges. 404 and 410 say that nobody waits for it any more; 408, 425, 429 and 503 that it may come
    later, after the Retry-After seconds or date if there is one; other 4xx and 3xx reject it. Everything else, like any
    other 5xx, counts as not reached. ``receiver_header`` names the response header that changes when the receiver
    restarts.

    Keys are asked about, as they were sent, with a POST of ``{"keys": [...]}`` to ``reconcile_url(destination)`` (by
    default ``<destination>/reconcile``), answered by ``{"known": [...]}``. With ``reconcile_url=None`` nobody is asked,
    and everything counts as known.
    """

    client: HttpClient
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    content_type: str = "application/json"
    receiver_header: str = "Headgate-Receiver"
    reconcile_url: Callable[[str], str] | None = _beside

    async def deliver(self, item: Item, body: bytes, attempt: int) -> Reply:
        """See :meth:`headgate.outbox.ports.Sender.deliver`."""
        headers = {
            "Content-Type": self.content_type,
            "Idempotency-Key": _sendable(item.key),
            "Headgate-Attempt": str(attempt),
            **self.headers,
        }
        response = await self._post(item.destination, body, headers)
        status = response.status_code
        answer = _answer_of(status)
        if answer is None:
            raise DeliveryFailed(f"{item.destination} answered {status}")
        said = "" if answer is Answer.ACK else f"{status} {response.content[:_SAID].decode(errors='replace')}".strip()
        return Reply(answer, response.headers.get(self.receiver_header), _retry_after(response.headers), said)

    async def reconcile(self, destination: str, keys: Sequence[str]) -> Reconciled:
        """See :meth:`headgate.outbox.ports.Sender.reconcile`."""
        if self.reconcile_url is None:
            return Reconciled(keys)
        url = self.reconcile_url(destination)
        sent = {_sendable(key): key for key in keys}
        headers = {"Content-Type": "application/json", **self.headers}
        response = await self._post(url, json.dumps({"keys": list(sent)}).encode(), headers)
        if not 200 <= response.status_code < 300:
            raise DeliveryFailed(f"{url} answered {response.status_code}")
        known = _known(response.content, url)
        return Reconciled(
            [key for name, key in sent.items() if name in known], response.headers.get(self.receiver_header)
        )

    async def _post(self, url: str, body: bytes, headers: dict[str, str]) -> HttpResponse:
        try:
            return await self.client.post(url, content=body, headers=headers)
        except Exception as error:  # each client has errors of its own for what the network does
            raise DeliveryFailed(f"{url}: {type(error).__name__}: {error}") from error


def _sendable(key: str) -> str:
    """The key as a header can hold it; another one for each key."""
    if _PLAIN.fullmatch(key) is not None:
        return key
    return quote(key, safe=_SAFE, errors="surrogatepass")


def _answer_of(status: int) -> Answer | None:
    if 200 <= status < 300:
        return Answer.ACK
    if status in _GONE:
        return Answer.GONE
    if status in _LATER:
        return Answer.RETRY
    return Answer.REJECTED if 300 <= status < 500 else None


def _known(body: bytes, url: str) -> frozenset[str]:
    try:
        plain: Any = json.loads(body)
        known = plain["known"]
    except (ValueError, TypeError, KeyError) as error:
        raise DeliveryFailed(f'{url} did not answer with {{"known": [...]}}') from error
    if not isinstance(known, list):
        raise DeliveryFailed(f"{url} did not answer with a list of known keys")
    return frozenset(key for key in cast("list[object]", known) if isinstance(key, str))


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from now; None if nothing, or nothing that makes sense, is said."""
    said = headers.get("Retry-After", "").strip()
    if said.isascii() and said.isdigit():
        seconds = float(said)
        return seconds if isfinite(seconds) else None
    try:
        at = parsedate_to_datetime(said)
    except (ValueError, OverflowError):
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())
