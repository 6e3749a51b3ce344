"""OpenAI's wire format, as far as a test provider speaks it: requests read from bytes, answers made as
values.

No HTTP here: what is read is untrusted, and anything that cannot be read is an :class:`UnreadableRequest`.
"""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from .answers import answer_json, answer_text, content_of, count_tokens, embedding, prompt_of
from .values import ProviderRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .values import Accepted

__all__ = [
    "ChatAsk",
    "EmbeddingAsk",
    "Json",
    "UnreadableRequest",
    "check_schema",
    "list_in",
    "model_of",
    "object_in",
    "part_of",
    "pieces",
    "read_messages",
]

Json = dict[str, object]
CHUNKS_MAX: Final = 8
DIMENSIONS: Final = 16
DIMENSIONS_MAX: Final = 4096


class UnreadableRequest(ValueError):
    """The body is not a request that this provider understands; the message says why."""


@dataclass(frozen=True, slots=True)
class ChatAsk:
    """A chat completion request, and its answers."""

    request: ProviderRequest
    prompt: str
    stream: bool
    include_usage: bool
    wants_json: bool
    schema: Mapping[str, object] | None

    @classmethod
    def read(cls, body: bytes) -> ChatAsk:
        """Read a request body. Raises UnreadableRequest."""
        fields = object_in(body)
        messages = list_in(fields.get("messages"))
        if not messages:
            raise UnreadableRequest("'messages' must be a list with at least one message")
        limit = fields.get("max_completion_tokens", fields.get("max_tokens"))
        if limit is not None and (not isinstance(limit, int) or limit < 1):
            raise UnreadableRequest("'max_completion_tokens' must be a positive integer")
        wants_json, schema = _response_format(fields.get("response_format"))
        request, prompt = read_messages(model_of(fields), messages, limit)
        check_schema(schema)
        return cls(
            request=request,
            prompt=prompt,
            stream=bool(fields.get("stream")),
            include_usage=bool(part_of(fields, "stream_options").get("include_usage")),
            wants_json=wants_json,
            schema=schema,
        )

    def text(self, accepted: Accepted) -> str:
        """Return the text of the answer: JSON if the request asked for it."""
        if self.wants_json:
            return answer_json(self.schema, self.prompt, accepted.tag)
        return answer_text(self.prompt, accepted.output_tokens, accepted.tag)

    def completion(self, accepted: Accepted, created: int) -> Json:
        """Return the complete answer."""
        message = {"role": "assistant", "content": self.text(accepted), "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._finish(accepted)}
        return {
            **self._frame(accepted, created, "chat.completion"),
            "choices": [choice],
            "usage": _usage(self.request.input_tokens, accepted.output_tokens),
        }

    def events(self, accepted: Accepted, created: int) -> list[bytes]:
        """Return the pieces of a streamed answer, without its end."""
        frame = self._frame(accepted, created, "chat.completion.chunk")
        return [
            _event(
                {
                    **frame,
                    "choices": [{"index": 0, "delta": {"role": "assistant", "content": piece}, "finish_reason": None}],
                }
            )
            for piece in pieces(self.text(accepted))
        ]

    def last_events(self, accepted: Accepted, created: int) -> Iterator[bytes]:
        """Yield the end of a streamed answer: why it ended, then the usage if it was asked for."""
        frame = self._frame(accepted, created, "chat.completion.chunk")
        delta: Json = {}
        yield _event({**frame, "choices": [{"index": 0, "delta": delta, "finish_reason": self._finish(accepted)}]})
        if self.include_usage:
            usage = _usage(self.request.input_tokens, accepted.output_tokens)
            yield _event({**frame, "choices": [], "usage": usage})
        yield b"data: [DONE]\n\n"

    def _frame(self, accepted: Accepted, created: int, kind: str) -> Json:
        name = f"chatcmpl-{accepted.request_id}"
        return {"id": name, "object": kind, "created": created, "model": self.request.model}

    def _finish(self, accepted: Accepted) -> str:
        return "length" if accepted.output_tokens == self.request.max_output_tokens else "stop"


@dataclass(frozen=True, slots=True)
class EmbeddingAsk:
    """An embeddings request, and its answer."""

    request: ProviderRequest
    texts: Sequence[str]
    dimensions: int
    encoded: bool

    @classmethod
    def read(cls, body: bytes) -> EmbeddingAsk:
        """Read a request body. Raises UnreadableRequest."""
        fields = object_in(body)
        given = fields.get("input")
        inputs = list_in(given) or [given]
        if not all(isinstance(text, str) and text for text in inputs):
            raise UnreadableRequest("'input' must be a text or a list of texts, none empty")
        dimensions = fields.get("dimensions", DIMENSIONS)
        if not isinstance(dimensions, int) or not 1 <= dimensions <= DIMENSIONS_MAX:
            raise UnreadableRequest(f"'dimensions' must be from 1 to {DIMENSIONS_MAX}")
        request = ProviderRequest(model_of(fields), content_of(inputs), count_tokens(inputs), 0)
        encoded = fields.get("encoding_format") == "base64"
        return cls(request, cast("list[str]", inputs), dimensions, encoded)

    def answer(self) -> Json:
        """Return the vectors of all texts, in base64 or as numbers, as the request asked."""
        data = [
            {"object": "embedding", "index": index, "embedding": self._vector(text)}
            for index, text in enumerate(self.texts)
        ]
        tokens = self.request.input_tokens
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "data": data, "model": self.request.model, "usage": usage}

    def _vector(self, text: str) -> object:
        packed = embedding(text, self.dimensions)
        if self.encoded:
            return base64.b64encode(packed).decode()
        return list(struct.unpack(f"<{self.dimensions}f", packed))


def object_in(body: bytes) -> Json:
    """Read a JSON object. Raises UnreadableRequest."""
    try:
        fields: object = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UnreadableRequest("the body is not JSON, or nested too deeply") from error
    if not isinstance(fields, dict):
        raise UnreadableRequest("the body is not a JSON object")
    return cast("Json", fields)


def model_of(fields: Json) -> str:
    """Return the model that is asked for. Raises UnreadableRequest."""
    model = fields.get("model")
    if not isinstance(model, str):
        raise UnreadableRequest("'model' must be a text")
    return model


def list_in(given: object) -> list[object]:
    """Return ``given`` if it is a list, else an empty one."""
    return cast("list[object]", given) if isinstance(given, list) else []


def read_messages(model: str, messages: list[object], limit: int | None) -> tuple[ProviderRequest, str]:
    """Return the request that ``messages`` are, and the text of the last one. Raises UnreadableRequest."""
    try:
        return ProviderRequest(model, content_of(messages), count_tokens(messages), limit), prompt_of(messages)
    except RecursionError as error:
        raise UnreadableRequest("the messages are nested too deeply") from error


def check_schema(schema: Mapping[str, object] | None) -> None:
    """See that an answer can be made up for it. Raises UnreadableRequest."""
    try:
        if schema is not None:
            answer_json(schema, "", 0)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise UnreadableRequest(f"no answer fits the schema: {type(error).__name__}: {error}") from error


def part_of(fields: Mapping[str, object], name: str) -> Json:
    """Return the object ``name`` of ``fields``, empty if there is none."""
    part = fields.get(name)
    return cast("Json", part) if isinstance(part, dict) else {}


def _response_format(given: object) -> tuple[bool, Mapping[str, object] | None]:
    """Return whether JSON is wanted, and the schema it has to fit."""
    if not isinstance(given, dict):
        return False, None
    fields = cast("Json", given)
    match fields.get("type"):
        case "json_object":
            return True, None
        case "json_schema":
            return True, part_of(part_of(fields, "json_schema"), "schema") or None
        case _:
            return False, None


def _event(chunk: Mapping[str, object]) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def _usage(input_tokens: int, output_tokens: int) -> Json:
    return {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
    }


def pieces(text: str) -> list[str]:
    """Cut a text into at most eight pieces between words; together they are the text."""
    words = text.split(" ")
    step = -(-len(words) // CHUNKS_MAX)
    starts = range(0, len(words), step)
    return [(" " if start else "") + " ".join(words[start : start + step]) for start in starts]
