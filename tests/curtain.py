"""Clients for the examples in documents: the real ones, without a socket."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import anyio.from_thread
import httpx2
import openai

from headgate.testing import Latency, ModelSpec, OutputTokens, ProviderSpec, VirtualProvider

if TYPE_CHECKING:
    import pytest

    from headgate.testing.provider import Answer

__all__ = ["Curtain"]

# The real ones: the examples get clients of ours by these names.
SyncClient, AsyncClient = openai.OpenAI, openai.AsyncOpenAI


class Curtain:
    """OpenAI's own clients, with a virtual provider behind them that answers at once."""

    def __init__(self, *models: str) -> None:
        model = ModelSpec(latency=Latency(mean_s=0), output_tokens=OutputTokens(mean=12))
        names = ("gpt-small", "gpt-large", *models)
        self._provider = VirtualProvider(ProviderSpec(models=dict.fromkeys(names, model)), network_s=0)

    def draw(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let ``openai`` make such clients for the length of a test, whatever address they are given."""
        monkeypatch.setattr(openai, "OpenAI", self.sync_client)
        monkeypatch.setattr(openai, "AsyncOpenAI", self.async_client)

    def sync_client(
        self, *, max_retries: int, base_url: str = "http://provider/v1", api_key: str = "none"
    ) -> openai.OpenAI:
        """A client that blocks."""
        http = openai.DefaultHttpxClient(transport=httpx2.MockTransport(self._answer_in_thread))
        return SyncClient(api_key=api_key, base_url=base_url, http_client=http, max_retries=max_retries)

    def async_client(
        self, *, max_retries: int, base_url: str = "http://provider/v1", api_key: str = "none"
    ) -> openai.AsyncOpenAI:
        """A client for async code."""
        http = openai.DefaultAsyncHttpxClient(transport=httpx2.MockTransport(self._answer))
        return AsyncClient(api_key=api_key, base_url=base_url, http_client=http, max_retries=max_retries)

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        model, content = _asked(request)
        return _response(model, await self._provider.chat(model, content))

    def _answer_in_thread(self, request: httpx2.Request) -> httpx2.Response:
        model, content = _asked(request)
        return _response(model, anyio.from_thread.run(self._provider.chat, model, content))


def _asked(request: httpx2.Request) -> tuple[str, str]:
    body = json.loads(request.content)
    return body["model"], body["messages"][0]["content"]


def _response(model: str, answer: Answer) -> httpx2.Response:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": answer.text}}
    read, written = answer.usage.input_tokens, answer.usage.output_tokens
    usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    completion = {"id": "1", "object": "chat.completion", "created": 1, "model": model, "choices": [choice]}
    return httpx2.Response(200, headers=dict(answer.headers), json={**completion, "usage": usage})
