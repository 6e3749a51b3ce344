"""Sessions of aiohttp: every request that goes through their middlewares is one attempt.

The last middleware is called once for each attempt, below redirects and other middlewares that retry. It works
inside of aiohttp's total time-out, which therefore counts the time in the local queue; the time-outs of the socket do
not. aiohttp is not imported before somebody has a session.
"""

from __future__ import annotations

import sys
import weakref
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from ..errors import ConfigError
from .attempts import Attempt, begin
from .naming import Asked, Naming, model_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

__all__ = ["attach_session", "is_session"]

T = TypeVar("T")

READS: Final = frozenset({"read", "readany", "readexactly", "readline", "readuntil"})
"""What takes bytes from the body of an answer; everything else in it is made of these."""


def is_session(client: object) -> bool:
    """Whether this is a session of aiohttp."""
    module = sys.modules.get("aiohttp")
    return module is not None and isinstance(client, module.ClientSession)


def attach_session(session: Any, said: Naming) -> None:
    """Let every attempt of ``session`` through the engine's admission."""
    middlewares = getattr(session, "_middlewares", None)
    if not isinstance(middlewares, (tuple, list)):
        raise ConfigError("headgate.attach() needs aiohttp 3.12 or newer, whose sessions have middlewares")
    others = [one for one in middlewares if not isinstance(one, _Gate)]  # pyright: ignore[reportUnknownVariableType]
    session._middlewares = (*others, _Gate(said))  # public only where a session is made


class _Gate:
    """The innermost middleware."""

    def __init__(self, said: Naming) -> None:
        self._said = said

    async def __call__(self, request: Any, send: Callable[[Any], Awaitable[Any]]) -> Any:
        attempt = await begin(await _asked(request), self._said)
        if attempt is None:
            return await send(request)
        try:
            response = await send(request)
            attempt.answered(response.status, response.headers)
            _lease(response, attempt)
        except BaseException as error:
            attempt.failed(error)
            raise
        return response


async def _asked(request: Any) -> Asked:
    body = request.body
    at_hand = isinstance(body, sys.modules["aiohttp"].BytesPayload)  # not a file, which reading would use up
    text = await body.as_bytes() if at_hand else b""
    return Asked(request.method, request.url.host or "", request.url.path, model_in(text))


def _lease(response: Any, attempt: Attempt) -> None:
    """Make the end of ``response`` the end of ``attempt``. What takes the place of its methods does not hold it: one
    that is forgotten goes at once, with its connection, as it does without us."""
    cls = cast("Any", type(response))
    forgotten: weakref.ref[Any] = weakref.ref(response)

    def closed() -> None:
        attempt.left()
        if (one := forgotten()) is not None:
            cls.close(one)

    def released() -> Any:
        attempt.left()
        return None if (one := forgotten()) is None else cls.release(one)

    response.close, response.release = closed, released
    response.content = _LeasedContent(response.content, attempt)


class _LeasedContent:
    """The stream of an answer, which its attempt reads along."""

    def __init__(self, stream: Any, attempt: Attempt) -> None:
        self._stream = stream
        self._attempt = attempt
        self._over()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._stream, name)
        return self._reading(found) if name in READS else found

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _until_empty(self.readline)

    def iter_any(self) -> AsyncIterator[bytes]:
        return _until_empty(self.readany)

    def iter_chunked(self, n: int) -> AsyncIterator[bytes]:
        return _until_empty(lambda: self.read(n))

    async def iter_chunks(self) -> AsyncIterator[tuple[bytes, bool]]:
        while (chunk := await self.readchunk()) != (b"", False):
            yield chunk

    async def readchunk(self) -> tuple[bytes, bool]:
        chunk: tuple[bytes, bool] = await self._watched(self._stream.readchunk())
        part, ends = chunk
        self._attempt.feed(part)
        self._over()
        return part, ends

    def read_nowait(self, n: int = -1) -> bytes:
        part: bytes = self._stream.read_nowait(n)
        self._attempt.feed(part)
        self._over()
        return part

    def _reading(self, read: Callable[..., Awaitable[bytes]]) -> Callable[..., Awaitable[bytes]]:
        async def reading(*args: Any, **more: Any) -> bytes:
            part = await self._watched(read(*args, **more))
            self._attempt.feed(part)
            self._over()
            return part

        return reading

    async def _watched(self, reading: Awaitable[T]) -> T:
        try:
            return await reading
        except BaseException as error:
            self._attempt.failed(error)
            raise

    def _over(self) -> None:
        if self._stream.at_eof():
            self._attempt.ended()


async def _until_empty(read: Callable[[], Awaitable[bytes]]) -> AsyncIterator[bytes]:
    while part := await read():
        yield part
