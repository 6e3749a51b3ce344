"""The provider in process, on anyio's time: for simulations and tests, a model call without HTTP.

On virtual time (:func:`headgate.testing.clock.run_virtual`) an hour of traffic takes seconds and repeats
exactly. Errors look as those of client libraries: statuses raise :class:`ProviderResponseError`, broken
connections ``ConnectionResetError``, broken bodies ``json.JSONDecodeError``; a hang sleeps until the caller
gives up.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from ...values import Usage
from .answers import answer_json, answer_text, count_tokens
from .dialects import http_date
from .model import ProviderModel
from .slot import slot
from .values import Accepted, ContentCount, Fault, ProviderRequest, ProviderStats, Rejected

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .spec import Capacity, ProviderSpec
    from .timeline import Slice

__all__ = ["Answer", "ProviderResponse", "ProviderResponseError", "VirtualProvider"]

MALFORMED_TEXT = '{"id": "chatcmpl-'


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer: its text, the tokens it cost, the response's headers (lower case) and status."""

    text: str
    usage: Usage
    headers: Mapping[str, str]
    status: int = 200


@dataclass(frozen=True, slots=True)
class ProviderResponse:
    """The response of a status error, in the shape that HTTP clients give it."""

    status_code: int
    headers: Mapping[str, str]
    text: str

    def json(self) -> object:
        """Return the parsed body."""
        return json.loads(self.text)


class ProviderResponseError(Exception):
    """The provider answered with a status of 400 or above. ``body`` is the parsed error body."""

    def __init__(self, status_code: int, headers: Mapping[str, str], body: Mapping[str, object]) -> None:
        super().__init__(f"status {status_code}: {json.dumps(body)}")
        self.status_code = status_code
        self.headers = headers
        self.body = body
        self.response = ProviderResponse(status_code, headers, json.dumps(body))


class VirtualProvider:
    """A provider of ``spec`` that answers after ``network_s`` there, its latency, and ``network_s`` back.

    ``epoch_s`` is the wall clock at time 0, for headers that hold dates; every answer carries ``date``.

    >>> from headgate.testing.clock import run_virtual
    >>> from headgate.testing.provider import Latency, ModelSpec, OutputTokens, ProviderSpec
    >>> spec = ModelSpec(latency=Latency(mean_s=5), output_tokens=OutputTokens(mean=3))
    >>> async def ask() -> tuple[int, float]:
    ...     provider = VirtualProvider(ProviderSpec(models={"m": spec}))
    ...     answer = await provider.chat("m", "What is a head gate?")
    ...     return answer.usage.output_tokens, round(anyio.current_time(), 2)
    >>> run_virtual(ask)
    (3, 5.08)
    """

    def __init__(self, spec: ProviderSpec, *, network_s: float = 0.04, epoch_s: float = 1_700_000_000.0) -> None:
        self._model = ProviderModel(spec, epoch_s=epoch_s)
        self._network_s = network_s
        self._epoch_s = epoch_s

    async def chat(
        self,
        model: str,
        content: str,
        *,
        input_tokens: int | None = None,
        max_output_tokens: int | None = None,
        json_schema: Mapping[str, object] | None = None,
    ) -> Answer:
        """Send one request and return its answer. ``input_tokens`` defaults to the words of ``content``.

        With ``json_schema`` the text is JSON that fits it. Raises ProviderResponseError, ConnectionResetError
        or json.JSONDecodeError, as the faults have it. A caller that is cancelled frees its slot at once.
        """
        tokens = count_tokens(content) if input_tokens is None else input_tokens
        await anyio.sleep(self._network_s)
        decision = self._model.begin(ProviderRequest(model, content, tokens, max_output_tokens), anyio.current_time())
        match decision:
            case Rejected():
                await anyio.sleep(self._network_s)
                raise ProviderResponseError(decision.status, self._dated(decision.headers), decision.body)
            case Accepted():
                await self._serve(decision)
        usage = Usage(tokens, decision.output_tokens)
        if json_schema is not None:
            text = answer_json(json_schema, content, decision.tag)
        else:
            text = answer_text(content, decision.output_tokens, decision.tag)
        return Answer(text, usage, self._dated(decision.headers))

    async def _serve(self, accepted: Accepted) -> None:
        with slot(self._model, accepted, anyio.current_time):
            if accepted.fault is Fault.HANG:
                await anyio.sleep_forever()
            await anyio.sleep(accepted.latency_s + accepted.body_s)
        await anyio.sleep(self._network_s)
        if accepted.fault is Fault.RESET:
            raise ConnectionResetError("connection reset by the provider")
        if accepted.fault is Fault.MALFORMED:
            json.loads(MALFORMED_TEXT)
        if accepted.error is not None:
            raise ProviderResponseError(accepted.status, self._dated(accepted.headers), accepted.error)

    def _dated(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {**headers, "date": http_date(self.wall_s())}

    def wall_s(self) -> float:
        """Return the provider's wall clock, in seconds since 1970."""
        return self._epoch_s + anyio.current_time()

    def change(self, model: str | None, change: Capacity) -> None:
        """Change what a model (None: every model) serves from now on. Raises KeyError."""
        self._model.change(model, change, anyio.current_time())

    def count(self, model: str, content: str) -> ContentCount:
        """Return how often a content was requested, accepted and answered."""
        return self._model.count(model, content)

    def timeline(self, model: str) -> tuple[Slice, ...]:
        """Return how busy a model was over time. Raises KeyError."""
        return self._model.timeline(model, anyio.current_time())

    def stats(self) -> ProviderStats:
        """Return the exact accounts of all models up to now."""
        self._model.check()
        return self._model.stats(anyio.current_time())
