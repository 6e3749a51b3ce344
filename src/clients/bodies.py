"""What the body of an answer says about tokens and errors, read while it passes by.

Decides nothing about the attempt. Knows the shapes that the providers' references state: ``usage`` with
``prompt_tokens`` and ``completion_tokens``, or ``input_tokens`` and ``output_tokens``, at any depth (Anthropic's
streams state the input at their beginning, in ``message``; OpenAI's responses in their last event, in
``response``), and ``error`` as an object. Bodies are untrusted: what cannot be read says nothing. Bounded: of an
event stream one line is kept, of any other body as much as an answer of a model may have.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final, cast

from ..engine.usage import cached_counts, token_counts
from ..values import Usage

__all__ = ["BODY_BYTES_MAX", "LINE_BYTES_MAX", "BodyReader", "Decoder"]

BODY_BYTES_MAX: Final = 16 * 1024 * 1024
"""A longer body in one piece is not read for its usage."""

LINE_BYTES_MAX: Final = 1024 * 1024
"""A longer line of an event stream is passed over."""

OBJECT_BYTES_MAX: Final = 64 * 1024
"""Neither usage nor an error is longer."""

DATA: Final = b"data:"
USAGE: Final = re.compile(rb'"usage"\s*:\s*(?=\{)')
ERROR: Final = re.compile(rb'"error"\s*:\s*(?=\{)')
"""Fields. Inside a text the quotation marks would have a backslash before them."""

Json = dict[str, object]
DECODER: Final = json.JSONDecoder()

Decoder = Callable[[bytes], bytes]
"""Undoes the content encoding of a whole body; may raise whatever the client's own decoders raise."""


class BodyReader:
    """Reads one body, part by part. ``usage`` and ``error`` are what it has said so far."""

    __slots__ = ("_cached", "_decode", "_events", "_failing", "_kept", "_read", "_size", "_written", "error")

    def __init__(self, content_type: str = "", decode: Decoder | None = None, *, failing: bool = False) -> None:
        """``failing``: the answer's status says that it is an error."""
        self._failing = failing
        self._events = content_type.partition(";")[0].strip().lower() == "text/event-stream"
        self._decode = decode
        self._kept: list[bytes] = []
        self._size = 0
        self._read: int | None = None
        self._written: int | None = None
        self._cached = (0, 0, 0)
        self.error: Mapping[str, object] | None = None
        """The object that holds the field ``error``."""

    @property
    def usage(self) -> Usage | None:
        """The tokens stated last; None as long as none were."""
        if self._read is None and self._written is None:
            return None
        return Usage(self._read or 0, self._written or 0, *self._cached)

    def feed(self, part: bytes) -> None:
        """Take in the next part of the body, as it came over the wire."""
        if not self._events or self._decode is not None:
            self._keep(part, BODY_BYTES_MAX)
            return
        if self._size > LINE_BYTES_MAX:  # in a line that is passed over
            _, ended, part = part.partition(b"\n")
            if not ended:
                return
            self._size = 0
        end = part.rfind(b"\n") + 1
        if end:
            self._look(self._taken() + part[:end])
        if end < len(part):
            self._keep(part[end:], LINE_BYTES_MAX)

    def close(self) -> None:
        """The body is over, or nobody will read more of it."""
        body = self._taken()
        if body and self._decode is not None:
            try:
                body = self._decode(body)
            except Exception:  # broken off in the middle, or an encoding that the client does not know
                return
        if body:
            self._look(body)

    def _keep(self, part: bytes, most: int) -> None:
        self._size += len(part)
        if self._size <= most:
            self._kept.append(part)
        else:
            self._kept.clear()

    def _taken(self) -> bytes:
        body = b"".join(self._kept)
        self._kept.clear()
        self._size = 0
        return body

    def _look(self, text: bytes) -> None:
        for place in USAGE.finditer(text):
            stated = _object_at(text, place.end())
            read, written = token_counts(stated)
            known, told = self._cached, cached_counts(stated)
            self._cached = max(known[0], told[0]), max(known[1], told[1]), max(known[2], told[2])
            self._read = self._read if read is None else read
            self._written = self._written if written is None else written
        # Elsewhere an "error" may be part of an answer, or of a schema that the answer repeats.
        for event in _events(text) if self._events else (text,) if self._failing else ():
            if self.error is None and ERROR.search(event):
                self.error = _holds_error(_object_at(event, 0))


def _events(text: bytes) -> Iterator[bytes]:
    return (line[len(DATA) :].lstrip() for line in text.splitlines() if line.startswith(DATA))


def _holds_error(found: object) -> Mapping[str, object] | None:
    """``found``, or the response in it, if that has an error."""
    for place in (found, cast("Mapping[str, object]", found).get("response") if isinstance(found, dict) else None):
        if isinstance(place, dict) and isinstance(cast("Json", place).get("error"), dict):
            return cast("Json", place)
    return None


def _object_at(text: bytes, start: int) -> Mapping[str, object] | None:
    """The JSON object that begins at ``start``."""
    try:
        found, _ = DECODER.raw_decode(text[start : start + OBJECT_BYTES_MAX].decode(errors="replace"))
    except (ValueError, RecursionError):
        return None
    return cast("Mapping[str, object]", found) if isinstance(found, dict) else None
