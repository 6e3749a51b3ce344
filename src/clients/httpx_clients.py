"""Clients of httpx and httpx2: every request that their transports send is one attempt.

A transport is called once for each attempt, below redirects, authentication and the retries of SDKs, and outside of the
client's time-outs: time in the local queue is not taken for a slow provider. So its one public method is what is
replaced, on the object; where the client keeps its transports is the only thing known here that is not documented.
Neither package is imported: whoever has a client has it.

A transport keeps connections of the event loop in which they were made, and uses them in the next one, where they fail
at best when the request is with the provider already. So those of loops that are over are closed before the first
request in another one: each call of a sync face is a loop of its own.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol, cast

from ..errors import ConfigError
from .attempts import Attempt, begin, begin_in_thread
from .naming import Asked, Naming, model_in

__all__ = ["attach_httpx", "is_httpx"]

MODULES: Final = ("httpx", "httpx2")
CLIENTS: Final = ("AsyncClient", "Client")
WRAPPED_MAX: Final = 8


class _Url(Protocol):
    host: str
    path: str


class _Request(Protocol):
    method: str
    url: _Url

    @property
    def content(self) -> bytes: ...


class _Response(Protocol):
    status_code: int
    headers: Mapping[str, str]
    stream: Any
    is_closed: bool

    @property
    def content(self) -> bytes: ...


def is_httpx(client: object) -> bool:
    """Whether this is a client or a transport of httpx or httpx2."""
    return _module(client, (*CLIENTS, *TRANSPORTS)) is not None


def attach_httpx(client: object, said: Naming) -> None:
    """Let every attempt of ``client``, or of a transport, through the engine's admission."""
    if _is_transport(client):
        _attach_transport(client, said)
        return
    transport = getattr(client, "_transport", None)
    mounts = getattr(client, "_mounts", None)
    if not _is_transport(transport) or not isinstance(mounts, Mapping):
        raise ConfigError(
            f"{type(client).__module__}.{type(client).__qualname__} keeps its transport where headgate does not know "
            "it: attach the transport, and make the client with it: Client(transport=headgate.attach(transport))"
        )
    for one in (transport, *cast("Mapping[object, object]", mounts).values()):
        if one is not None:
            _attach_transport(one, said)


def _module(thing: object, names: Iterable[str]) -> Any:
    """The module of which ``thing`` is an instance of one of the classes ``names``. Not to be read from the classes:
    some packages that export classes of others say that they are their own."""
    for name in MODULES:
        module = sys.modules.get(name)
        if module is not None and isinstance(thing, tuple(getattr(module, cls) for cls in names)):
            return module
    return None


def _is_transport(thing: object) -> bool:
    return _module(thing, TRANSPORTS) is not None


def _attach_transport(transport: Any, said: Naming) -> None:
    """A transport that wraps another one may retry: the innermost is where attempts are made."""
    for _ in range(WRAPPED_MAX):
        inner = getattr(transport, "wrapped", None)
        if not _is_transport(inner):
            break
        transport = inner
    for cls, (method, gate) in TRANSPORTS.items():
        module = _module(transport, (cls,))
        if module is None:
            continue
        send = getattr(transport, method)
        if isinstance(send, (_AsyncGate, _Gate)):
            send.said = said
        else:
            setattr(transport, method, gate(send, said, module))


class _AsyncGate:
    """Takes the place of ``handle_async_request``."""

    def __init__(self, send: Callable[[Any], Awaitable[_Response]], said: Naming, module: Any) -> None:
        self._send = send
        self.said = said
        self._module = module
        self._loops: tuple[weakref.ref[asyncio.AbstractEventLoop], ...] = ()  # a new one each time: threads read it
        self._stream = cast(
            "Callable[[Any, Attempt], object]",
            type("LeasedStream", (_AsyncLeasedStream, module.AsyncByteStream), {}),
        )

    async def __call__(self, request: _Request) -> _Response:
        await self._leave_loops_that_are_over()
        attempt = await begin(_asked(request), self.said)
        if attempt is None:
            return await self._send(request)
        try:
            response = await self._send(request)
            _received(response, attempt, self._stream, self._module)
        except BaseException as error:
            attempt.failed(error)
            raise
        return response

    async def _leave_loops_that_are_over(self) -> None:
        loop, known = _running_loop(), self._loops
        if loop is None or any(one() is loop for one in known):
            return
        open_ones = tuple(one for one in known if (other := one()) is not None and not other.is_closed())
        self._loops = (*open_ones, weakref.ref(loop))
        transport: Any = getattr(self._send, "__self__", None)
        opens_again = type(transport) is self._module.AsyncHTTPTransport  # of others nobody knows
        if known and not open_ones and opens_again:
            with suppress(Exception):  # they cannot be closed in good order any more
                await transport.aclose()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop, if it is one of asyncio."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class _Gate:
    """Takes the place of ``handle_request``, in a worker thread."""

    def __init__(self, send: Callable[[Any], _Response], said: Naming, module: Any) -> None:
        self._send = send
        self.said = said
        self._module = module
        self._stream = cast(
            "Callable[[Any, Attempt], object]",
            type("LeasedStream", (_LeasedStream, module.SyncByteStream), {}),
        )

    def __call__(self, request: _Request) -> _Response:
        attempt = begin_in_thread(_asked(request), self.said)
        if attempt is None:
            return self._send(request)
        try:
            response = self._send(request)
            _received(response, attempt, self._stream, self._module)
        except BaseException as error:
            attempt.failed(error)
            raise
        return response


class _AsyncLeasedStream:
    """A body whose end is the end of its attempt."""

    def __init__(self, stream: Any, attempt: Attempt) -> None:
        self._inner = stream
        self._attempt = attempt

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._inner:
                self._attempt.feed(part)
                yield part
        except GeneratorExit:
            self._attempt.left()
            raise
        except BaseException as error:
            self._attempt.failed(error)
            raise
        self._attempt.ended()

    async def aclose(self) -> None:
        try:
            await self._inner.aclose()
        finally:
            self._attempt.left()


class _LeasedStream:
    """The same for a client that blocks."""

    def __init__(self, stream: Any, attempt: Attempt) -> None:
        self._inner = stream
        self._attempt = attempt

    def __iter__(self) -> Iterator[bytes]:
        try:
            for part in self._inner:
                self._attempt.feed(part)
                yield part
        except GeneratorExit:
            self._attempt.left()
            raise
        except BaseException as error:
            self._attempt.failed(error)
            raise
        self._attempt.ended()

    def close(self) -> None:
        try:
            self._inner.close()
        finally:
            self._attempt.left()


TRANSPORTS: Final = {
    "AsyncBaseTransport": ("handle_async_request", _AsyncGate),
    "BaseTransport": ("handle_request", _Gate),
}
"""Classes of transports: the method that sends, and what takes its place."""


def _asked(request: _Request) -> Asked:
    try:
        body = request.content
    except Exception:  # RequestNotRead: a body that is streamed, such as a file's
        body = b""
    return Asked(request.method, request.url.host, request.url.path, model_in(body))


def _received(response: _Response, attempt: Attempt, stream: Callable[[Any, Attempt], object], module: Any) -> None:
    """The head of an answer is there: the end of its body is to be the end of the attempt.

    A transport that keeps answers may have it at hand, and nobody will read its stream.
    """
    if response.is_closed:
        attempt.answered(response.status_code, response.headers)
        attempt.feed(response.content)
        attempt.ended()
    else:
        attempt.answered(response.status_code, response.headers, _decoder(response, module))
        response.stream = stream(response.stream, attempt)


def _decoder(response: _Response, module: Any) -> Callable[[bytes], bytes] | None:
    """What undoes the content encoding: the client's own, which knows more of them than the standard library."""
    encoding = response.headers.get("content-encoding", "identity")
    if encoding == "identity":
        return None
    return lambda body: cast(
        "bytes", module.Response(200, headers={"content-encoding": encoding}, content=body).content
    )
