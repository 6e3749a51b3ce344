"""Anthropic's wire format, as far as a test provider speaks it: messages, whole and streamed, with their usage.

No HTTP here, and no tools: the answer is a text, or JSON where ``output_config`` asks for it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .answers import answer_json, answer_text
from .wire import (
    Json,
    UnreadableRequest,
    check_schema,
    list_in,
    model_of,
    object_in,
    part_of,
    pieces,
    read_messages,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .values import Accepted, ProviderRequest

__all__ = ["MessagesAsk"]


@dataclass(frozen=True, slots=True)
class MessagesAsk:
    """A messages request, and its answers. A system prompt counts as a message before the others."""

    request: ProviderRequest
    prompt: str
    stream: bool
    wants_json: bool
    schema: Mapping[str, object] | None

    @classmethod
    def read(cls, body: bytes) -> MessagesAsk:
        """Read a request body. Raises UnreadableRequest."""
        fields = object_in(body)
        messages = list_in(fields.get("messages"))
        if not messages:
            raise UnreadableRequest("messages: at least one message is required")
        limit = fields.get("max_tokens")
        if not isinstance(limit, int) or limit < 1:
            raise UnreadableRequest("max_tokens: a positive integer is required")
        if "system" in fields:
            messages = [{"role": "system", "content": fields["system"]}, *messages]
        asked = part_of(part_of(fields, "output_config"), "format")
        schema = part_of(asked, "schema") or None
        request, prompt = read_messages(model_of(fields), messages, limit)
        check_schema(schema)
        return cls(
            request=request,
            prompt=prompt,
            stream=bool(fields.get("stream")),
            wants_json=asked.get("type") == "json_schema",
            schema=schema,
        )

    def completion(self, accepted: Accepted, created: int) -> Json:
        """Return the complete answer, which has no date (``created``)."""
        content = [{"type": "text", "text": self._text(accepted)}]
        ended = {"stop_reason": self._stop(accepted), "stop_sequence": None}
        return {**self._frame(accepted), "content": content, **ended, "usage": self._usage(accepted.output_tokens)}

    def events(self, accepted: Accepted, created: int) -> list[bytes]:
        """Return the pieces of a streamed answer, without its end. The first says how many tokens were read."""
        open_ended: Json = {"content": [], "stop_reason": None, "stop_sequence": None, "usage": self._usage(1)}
        begun = _event("message_start", message={**self._frame(accepted), **open_ended})
        begun += _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        texts = [
            _event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})
            for piece in pieces(self._text(accepted))
        ]
        return [begun + texts[0], *texts[1:]]

    def last_events(self, accepted: Accepted, created: int) -> Iterator[bytes]:
        """Yield the end of a streamed answer, which says how many tokens were written."""
        yield _event("content_block_stop", index=0)
        delta = {"stop_reason": self._stop(accepted), "stop_sequence": None}
        yield _event("message_delta", delta=delta, usage={"output_tokens": accepted.output_tokens})
        yield _event("message_stop")

    def _text(self, accepted: Accepted) -> str:
        if self.wants_json:
            return answer_json(self.schema, self.prompt, accepted.tag)
        return answer_text(self.prompt, accepted.output_tokens, accepted.tag)

    def _frame(self, accepted: Accepted) -> Json:
        name = f"msg_{accepted.request_id}"
        return {"id": name, "type": "message", "role": "assistant", "model": self.request.model}

    def _stop(self, accepted: Accepted) -> str:
        return "max_tokens" if accepted.output_tokens == self.request.max_output_tokens else "end_turn"

    def _usage(self, output_tokens: int) -> Json:
        cached = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
        return {"input_tokens": self.request.input_tokens, **cached, "output_tokens": output_tokens}


def _event(kind: str, **fields: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()
