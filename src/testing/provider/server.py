"""The provider over HTTP, as OpenAI's and Anthropic's clients want it, on aiohttp (the extra ``testing``).

``POST /v1/chat/completions`` and ``POST /v1/messages`` (also streamed), ``POST /v1/embeddings``, ``GET /v1/models``;
beside the API ``GET /stats`` (exact accounts; ``?contents=1`` adds the counts per content, ``?timeline=1`` how busy
each model was over time), ``POST /control`` (a :class:`.spec.Control`), ``POST /spec`` (a :class:`.spec.ProviderSpec`
to serve instead) and ``GET /healthz``.

A slot is free when the answer is complete or the client has gone, and always before the client can see the
end of its answer: a client that sends its next request at once finds the slot free. Bodies that cannot be
read get status 400 and are in no account. It uses asyncio directly, because aiohttp does.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from aiohttp import web
from pydantic import ValidationError

from .dialects import Dialect, error_body
from .model import ProviderModel
from .slot import slot
from .spec import Control, ProviderSpec
from .values import Accepted, Fault, Rejected
from .wire import ChatAsk, EmbeddingAsk, UnreadableRequest
from .wire_messages import MessagesAsk

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .values import ProviderRequest

__all__ = ["ProviderServer"]

MALFORMED: Final = b'{"id": "chatcmpl-'
SLOW_BODY_PARTS: Final = 8
BODY_BYTES_MAX: Final = 64 * 1024 * 1024


class ProviderServer:
    """One provider on one port. Its clock starts when it is made.

    >>> async def main() -> None:  # doctest: +SKIP
    ...     server = ProviderServer(ProviderSpec(models={"gpt-x": ModelSpec(concurrency=8)}))
    ...     port = await server.start()
    ...     ...
    ...     await server.stop()
    """

    def __init__(self, spec: ProviderSpec) -> None:
        self._zero_s = time.monotonic()
        self._model = ProviderModel(spec, epoch_s=time.time())
        self._runner = web.AppRunner(self._app(), handler_cancellation=True, access_log=None, shutdown_timeout=0.1)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen, and return the port (a free one for 0). Raises OSError."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, backlog=2048)
        await site.start()
        address = self._runner.addresses[0]
        return int(address[1])

    async def stop(self) -> None:
        """Close all connections."""
        await self._runner.cleanup()

    def _app(self) -> web.Application:
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_post("/v1/chat/completions", _readable(self._chat))
        app.router.add_post("/v1/messages", _readable(self._messages, Dialect.ANTHROPIC))
        app.router.add_post("/v1/embeddings", _readable(self._embeddings))
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/stats", self._stats)
        app.router.add_post("/control", self._control)
        app.router.add_post("/spec", self._replace)
        app.router.add_get("/healthz", self._healthz)
        return app

    def _now(self) -> float:
        return time.monotonic() - self._zero_s

    async def _chat(self, http: web.Request) -> web.StreamResponse:
        return await self._answer(http, ChatAsk.read(await http.read()))

    async def _messages(self, http: web.Request) -> web.StreamResponse:
        return await self._answer(http, MessagesAsk.read(await http.read()))

    async def _answer(self, http: web.Request, ask: ChatAsk | MessagesAsk) -> web.StreamResponse:
        decision = self._model.begin(ask.request, self._now())
        if isinstance(decision, Rejected):
            return _json(decision.body, decision.status, decision.headers)
        if ask.stream and decision.error is None and decision.fault is not Fault.HANG:
            return await self._stream(http, ask, decision)
        latency_s = self._first_token_s(ask.request, decision) if ask.stream else decision.latency_s
        return await self._serve(http, decision, latency_s, lambda: ask.completion(decision, int(time.time())))

    async def _embeddings(self, http: web.Request) -> web.StreamResponse:
        ask = EmbeddingAsk.read(await http.read())
        decision = self._model.begin(ask.request, self._now())
        if isinstance(decision, Rejected):
            return _json(decision.body, decision.status, decision.headers)
        return await self._serve(http, decision, decision.latency_s, ask.answer)

    async def _serve(
        self,
        http: web.Request,
        accepted: Accepted,
        latency_s: float,
        answer: Callable[[], Mapping[str, object]],
    ) -> web.StreamResponse:
        """Answer in one piece, after ``latency_s``, or do what the fault says."""
        slow: _SlowBody | None = None
        with slot(self._model, accepted, self._now):
            if accepted.fault is Fault.HANG:
                await asyncio.Event().wait()
            await asyncio.sleep(latency_s)
            if accepted.fault is Fault.SLOW_BODY:
                slow = await _drip(http, accepted, json.dumps(answer()).encode())
        if slow is not None:
            await slow.response.write(slow.last_part)
            return slow.response
        if accepted.fault is Fault.RESET:
            return _abort(http)
        if accepted.fault is Fault.MALFORMED:
            return web.Response(body=MALFORMED, content_type="application/json", headers=accepted.headers)
        return _json(accepted.error or answer(), accepted.status, accepted.headers)

    async def _stream(self, http: web.Request, ask: ChatAsk | MessagesAsk, accepted: Accepted) -> web.StreamResponse:
        """Answer as server-sent events: the first at the first token, the rest evenly over the time left."""
        created = int(time.time())
        response = web.StreamResponse(headers={**accepted.headers, "content-type": "text/event-stream"})
        first_s = self._first_token_s(ask.request, accepted)
        events = ask.events(accepted, created)
        pause_s = (accepted.latency_s - first_s + accepted.body_s) / len(events)
        with slot(self._model, accepted, self._now):
            await asyncio.sleep(first_s)
            await response.prepare(http)
            for number, event in enumerate(events):
                if accepted.fault is Fault.RESET and number >= len(events) // 2:
                    break
                await response.write(event)
                await asyncio.sleep(pause_s)
        if accepted.fault is Fault.RESET:
            return _abort(http)
        if accepted.fault is Fault.MALFORMED:
            await response.write(b"data: " + MALFORMED + b"\n\n")
        for event in ask.last_events(accepted, created):
            await response.write(event)
        return response

    def _first_token_s(self, request: ProviderRequest, accepted: Accepted) -> float:
        return accepted.latency_s * self._model.capacity(request.model).latency.first_token

    async def _models(self, http: web.Request) -> web.Response:
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "headgate"} for name in self._model.names()]
        return _json({"object": "list", "data": data})

    async def _stats(self, http: web.Request) -> web.Response:
        self._model.check()
        stats = dataclasses.asdict(self._model.stats(self._now()))
        if http.query.get("contents"):
            stats["contents"] = {name: self._contents(name) for name in self._model.names()}
        if http.query.get("timeline"):
            stats["timeline"] = {name: self._timeline(name) for name in self._model.names()}
        return _json(stats)

    def _contents(self, name: str) -> dict[str, dict[str, int]]:
        return {digest.hex(): dataclasses.asdict(count) for digest, count in self._model.contents(name).items()}

    def _timeline(self, name: str) -> list[dict[str, float | None]]:
        return [dataclasses.asdict(one) for one in self._model.timeline(name, self._now())]

    async def _control(self, http: web.Request) -> web.Response:
        try:
            control = Control.model_validate_json(await http.read())
        except ValidationError as error:
            return _json(error_body(Dialect.NONE, 400, str(error)), 400)
        if control.model is not None and control.model not in self._model.names():
            return _json(error_body(Dialect.NONE, 404, f"The model {control.model!r} does not exist."), 404)
        if control.reset:
            self._model.reset_stats(self._now())
        if control.change is not None:
            self._model.change(control.model, control.change, self._now())
        return _json({"ok": True})

    async def _replace(self, http: web.Request) -> web.Response:
        """Become another provider, as if just started. Requests in flight would belong to neither."""
        try:
            spec = ProviderSpec.model_validate_json(await http.read())
        except ValidationError as error:
            return _json(error_body(Dialect.NONE, 400, str(error)), 400)
        if self._model.in_flight():
            return _json(error_body(Dialect.NONE, 409, "Requests are in flight."), 409)
        self._zero_s = time.monotonic()
        self._model = ProviderModel(spec, epoch_s=time.time())
        return _json({"ok": True})

    async def _healthz(self, http: web.Request) -> web.Response:
        return _json({"ok": True})


class _SlowBody(NamedTuple):
    """A response that lacks only its last part."""

    response: web.StreamResponse
    last_part: bytes


async def _drip(http: web.Request, accepted: Accepted, body: bytes) -> _SlowBody:
    """Send the header now and all parts of the body but the last over ``body_s`` seconds."""
    response = web.StreamResponse(headers={**accepted.headers, "content-type": "application/json"})
    response.content_length = len(body)
    await response.prepare(http)
    step = -(-len(body) // SLOW_BODY_PARTS)
    parts = [body[start : start + step] for start in range(0, len(body), step)]
    for part in parts[:-1]:
        await response.write(part)
        await asyncio.sleep(accepted.body_s / (len(parts) - 1))
    return _SlowBody(response, parts[-1])


Route = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _readable(serve: Route, dialect: Dialect = Dialect.NONE) -> Route:
    """Answer 400 where the request could not be read."""

    async def guarded(http: web.Request) -> web.StreamResponse:
        try:
            return await serve(http)
        except UnreadableRequest as error:
            return _json(error_body(dialect, 400, str(error)), 400)

    return guarded


def _json(body: Mapping[str, object], status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=json.dumps(body).encode(), status=status, headers=headers, content_type="application/json")


def _abort(http: web.Request) -> web.Response:
    """Break the connection; the response that aiohttp wants goes nowhere."""
    if http.transport is not None:
        http.transport.abort()
    return web.Response()
