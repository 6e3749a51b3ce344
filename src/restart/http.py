"""Analysis services over HTTP, by whatever client the program has: httpx2, httpx, or one that is called like them.

A service takes ``POST <url>/cycles`` with the cycle as JSON and answers 2xx once it has begun, or had begun before: the
id of the cycle, percent-encoded, is the ``Idempotency-Key``. ``GET <url>/cycles/<id>`` is 200 with the verdict, 202 or
204 while there is none, and 404 for a cycle that it does not know, which is then sent again::

    {"verdict": "quarantine", "tasks": [{"row": 7, "column": "summary"}], "reason": "context too long"}

Everything else is no verdict, whatever it looks like: a redirect, a body that is compressed or too large, an answer
about another cycle.
"""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Final, Literal, Protocol
from urllib.parse import quote, urlsplit

import anyio
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ..errors import ConfigError
from .ports import InvalidAnswer, SourceUnreachable
from .values import Answer, Cycle, TaskId, Verdict

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from contextlib import AbstractAsyncContextManager

__all__ = ["ANSWER_MOST", "HttpSource", "StreamingClient", "StreamingResponse", "http_client", "parse_answer"]

_CYCLES: Final = TypeAdapter(Cycle)
ANSWER_MOST: Final = 256 * 1024  # bytes
_SAID_MOST: Final = 200  # characters of what a service says instead of an answer
_NOT_YET: Final = frozenset({202, 204})
_LATER: Final = frozenset({408, 425, 429})


class StreamingResponse(Protocol):
    """What a client gives while a response comes in."""

    @property
    def status_code(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; the case of their names does not count."""
        ...

    def aiter_bytes(self) -> AsyncGenerator[bytes, None]:
        """The body, in parts."""
        ...


class StreamingClient(Protocol):
    """What is needed of ``httpx2.AsyncClient``."""

    def stream(
        self, method: str, url: str, *, content: bytes | None, headers: dict[str, str], follow_redirects: bool
    ) -> AbstractAsyncContextManager[StreamingResponse]:
        """Send a request, and give the response as it comes in."""
        ...


class _Said(BaseModel):
    """The body of a verdict. Services may say more than is understood here."""

    model_config = ConfigDict(extra="ignore")

    verdict: Literal["restart", "stop", "quarantine", "pending"]
    tasks: tuple[TaskId, ...] = ()
    reason: str = ""
    cycle: str | None = Field(default=None, description="the id, if the service says it")


class HttpSource:
    """An analysis service at ``url``. One request takes ``request_timeout_s`` at most; ``headers`` go with each."""

    elsewhere = True

    def __init__(
        self,
        url: str,
        client: StreamingClient,
        *,
        name: str | None = None,
        headers: Mapping[str, str] | None = None,
        request_timeout_s: float = 10.0,
    ) -> None:
        self.name = name or f"http {urlsplit(url).netloc.rpartition('@')[2]}{urlsplit(url).path}"
        self._url = url.rstrip("/")
        self._client = client
        self._headers = {"Accept": "application/json", "Accept-Encoding": "identity", **(headers or {})}
        self._request_timeout_s = request_timeout_s

    async def trigger(self, cycle: Cycle) -> None:
        """See :meth:`headgate.restart.ports.RestartSource.trigger`. Raises SourceUnreachable, InvalidAnswer."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": _safe(cycle.id)}
        status, body = await self._request("POST", "/cycles", _CYCLES.dump_json(cycle), headers)
        if not 200 <= status < 300:
            raise _refusal(self.name, status, body)

    async def read(self, cycle: Cycle) -> Answer | None:
        """See :meth:`headgate.restart.ports.RestartSource.read`."""
        status, body = await self._request("GET", f"/cycles/{_safe(cycle.id)}", None, {})
        if status == 200:
            return parse_answer(body, cycle)
        if status in _NOT_YET:
            return None
        if status == 404:
            await self.trigger(cycle)  # it never heard of it, or has restarted
            return None
        raise _refusal(self.name, status, body)

    async def _request(
        self, method: str, path: str, content: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        try:
            with anyio.fail_after(self._request_timeout_s):
                async with self._client.stream(
                    method,
                    f"{self._url}{path}",
                    content=content,
                    headers={**self._headers, **headers},
                    follow_redirects=False,
                ) as response:
                    return response.status_code, await _body(response)
        except InvalidAnswer:
            raise
        except TimeoutError as error:
            raise SourceUnreachable(f"{self.name}: no answer within {self._request_timeout_s:g} s") from error
        except Exception as error:  # each client has errors of its own for what the network does
            raise SourceUnreachable(f"{self.name}: {type(error).__name__}: {error}") from error


def parse_answer(body: bytes, cycle: Cycle) -> Answer | None:
    """The verdict in ``body``; None if it is pending. Raises InvalidAnswer if it is none, or one on another cycle."""
    try:
        said = _Said.model_validate_json(body)
        if said.cycle not in (None, cycle.id):
            raise InvalidAnswer(f"the answer is about cycle {said.cycle!r}, not about {cycle.id!r}")
        if said.verdict == "pending":
            return None
        return Answer(Verdict(said.verdict), tuple(sorted(set(said.tasks))), said.reason)
    except (ValidationError, ConfigError) as error:
        raise InvalidAnswer(f"no verdict: {_first_line(error)}; it began with {body[:_SAID_MOST]!r}") from error


@asynccontextmanager
async def http_client() -> AsyncGenerator[StreamingClient]:
    """A client of the extra ``http``. Raises ConfigError if that is not installed."""
    for name in ("httpx2", "httpx"):
        try:
            library = import_module(name)
        except ModuleNotFoundError:
            continue
        async with library.AsyncClient() as client:
            yield client
        return
    raise ConfigError("asking an analysis service needs an HTTP client: pip install 'headgate[http]'")


async def _body(response: StreamingResponse) -> bytes:
    """All of it, unless it is too much. What is compressed may be any length once it is unpacked."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise InvalidAnswer(f"a compressed answer ({response.headers['Content-Encoding']}) that nobody asked for")
    body = b""
    async with aclosing(response.aiter_bytes()) as parts:
        async for part in parts:
            body += part
            if len(body) > ANSWER_MOST:
                raise InvalidAnswer(f"an answer of more than {ANSWER_MOST} bytes")
    return body


def _safe(cycle_id: str) -> str:
    """The id as part of an address or a header: runs are called as their users like."""
    return quote(cycle_id, safe="")


def _refusal(name: str, status: int, body: bytes) -> Exception:
    said = f"{name} answered {status}: {body[:_SAID_MOST].decode(errors='replace').strip()}"
    if status in _LATER or status >= 500:
        return SourceUnreachable(said)
    return InvalidAnswer(f"{said} (redirects are not followed: name the final address)" if status < 400 else said)


def _first_line(error: ValidationError | ConfigError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}"
    return str(error)
