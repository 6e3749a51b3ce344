"""Deterministic answers made from the prompt: text, JSON that fits a schema, vectors; and the counting of
tokens.

A token is a word between spaces. The same request gets the same answer from every process. The schemas
understood are those that structured outputs use: objects, arrays, scalars, ``enum``, ``const``, ``anyOf``,
``$ref`` into ``$defs``, and the bounds of lengths and numbers; patterns and formats are not read.
"""

from __future__ import annotations

import json
import struct
from hashlib import blake2b
from itertools import cycle, islice
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["answer_json", "answer_text", "content_of", "count_tokens", "embedding", "prompt_of"]

Json = dict[str, object]
DEPTH_MAX: Final = 12


def content_of(messages: object) -> str:
    """Return the canonical text of chat messages or embedding input: what makes two requests the same."""
    return json.dumps(messages, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def count_tokens(messages: object) -> int:
    """Return the words in all texts of ``messages`` (at least 1), images and other parts not counted."""
    return max(1, sum(len(text.split()) for text in _texts(messages)))


def prompt_of(messages: Sequence[object]) -> str:
    """Return the text of the last message."""
    return " ".join(_texts(messages[-1])) if messages else ""


def _texts(part: object) -> list[str]:
    if isinstance(part, str):
        return [part]
    if isinstance(part, list):
        return [text for item in cast("list[object]", part) for text in _texts(item)]
    if isinstance(part, dict):
        fields = cast("Json", part)
        return [text for key in ("content", "text", "input") if key in fields for text in _texts(fields[key])]
    return []


def answer_text(prompt: str, tokens: int, tag: int) -> str:
    """Return exactly ``tokens`` words: the tag, then the prompt's words, over and over.

    >>> answer_text("Why is it so?", 4, tag=255)
    '0000ff Why is it'
    """
    words = prompt.split() or ["yes"]
    return " ".join((_mark(tag), *islice(cycle(words), max(0, tokens - 1)))) if tokens > 0 else ""


def answer_json(schema: Mapping[str, object] | None, prompt: str, tag: int) -> str:
    """Return JSON text that fits ``schema``; without one, an object with the field ``answer``.

    >>> answer_json({"type": "object", "properties": {"ok": {"type": "boolean"}}}, "Well?", tag=1)
    '{"ok": true}'
    """
    if schema is None:
        return json.dumps({"answer": answer_text(prompt, 8, tag)})
    return json.dumps(_Filler(schema, prompt, tag).fill(schema, 0))


class _Filler:
    """Walks a schema and gives each place the simplest value that fits."""

    def __init__(self, root: Mapping[str, object], prompt: str, tag: int) -> None:
        self._root = root
        self._prompt = prompt
        self._tag = tag

    def fill(self, schema: Mapping[str, object], depth: int) -> object:
        if "const" in schema:
            return schema["const"]
        if choices := cast("list[object]", schema.get("enum") or []):
            return choices[self._tag % len(choices)]
        if (other := self._elsewhere(schema, depth)) is not None:
            return self.fill(other, depth + 1)
        match self._kind(schema):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "integer":
                return int(self._number(schema))
            case "number":
                return self._number(schema)
            case "boolean":
                return bool(self._tag & 1)
            case "null":
                return None
            case _:
                return self._string(schema)

    def _elsewhere(self, schema: Mapping[str, object], depth: int) -> Mapping[str, object] | None:
        """Return the schema that this one points to, or None. Deep down the last choice ends recursion."""
        reference = schema.get("$ref")
        if isinstance(reference, str):
            return self._resolve(reference)
        for key in ("anyOf", "oneOf", "allOf"):
            options = cast("list[Json]", schema.get(key) or [])
            if options:
                return options[-1 if depth >= DEPTH_MAX else 0]
        return None

    def _resolve(self, reference: str) -> Mapping[str, object]:
        place: object = self._root
        for name in reference.removeprefix("#").strip("/").split("/"):
            if name:
                place = cast("Json", place).get(name, {})
        return cast("Json", place)

    def _kind(self, schema: Mapping[str, object]) -> object:
        kind = schema.get("type", "object" if "properties" in schema else "string")
        return cast("list[object]", kind)[0] if isinstance(kind, list) else kind

    def _object(self, schema: Mapping[str, object], depth: int) -> Json:
        properties = cast("dict[str, Json]", schema.get("properties") or {})
        required = cast("list[str]", schema.get("required") or [])
        wanted = [name for name in properties if name in required or depth < DEPTH_MAX]
        return {name: self.fill(properties[name], depth + 1) for name in wanted}

    def _array(self, schema: Mapping[str, object], depth: int) -> list[object]:
        items = cast("Json", schema.get("items") or {})
        fewest = cast("int", schema.get("minItems", 0))
        most = cast("int", schema.get("maxItems", max(1, fewest)))
        count = fewest if depth >= DEPTH_MAX else max(fewest, min(1, most))
        return [self.fill(items, depth + 1) for _ in range(count)]

    def _number(self, schema: Mapping[str, object]) -> float:
        low = cast("float | None", schema.get("minimum", schema.get("exclusiveMinimum")))
        high = cast("float | None", schema.get("maximum", schema.get("exclusiveMaximum")))
        if low is None:
            return self._tag % 10 if high is None else min(high - 1, self._tag % 10)
        above = low + ("minimum" not in schema)
        inclusive = "maximum" in schema
        return above if high is None or above < high or (inclusive and above == high) else low + (high - low) / 2

    def _string(self, schema: Mapping[str, object]) -> str:
        text = answer_text(self._prompt, 4, self._tag)
        shortest = cast("int", schema.get("minLength", 0))
        longest = cast("int", schema.get("maxLength", max(len(text), shortest)))
        return text.ljust(shortest, ".")[:longest]


def embedding(text: str, dimensions: int) -> bytes:
    """Return ``dimensions`` little-endian 32-bit floats in [-1, 1): a function of the text alone."""
    blocks = -(-dimensions // 32)
    stream = b"".join(
        blake2b(text.encode(errors="surrogatepass"), salt=n.to_bytes(8, "little")).digest() for n in range(blocks)
    )
    shorts = struct.unpack(f"<{dimensions}h", stream[: 2 * dimensions])
    return struct.pack(f"<{dimensions}f", *(short / 32768 for short in shorts))


def _mark(tag: int) -> str:
    return f"{tag & 0xFFFFFF:06x}"
