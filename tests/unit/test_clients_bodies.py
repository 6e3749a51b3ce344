"""What bodies of answers say about tokens and errors, in one piece or many."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.clients.bodies import BODY_BYTES_MAX, LINE_BYTES_MAX, BodyReader
from headgate.values import Usage

EVENTS = "text/event-stream; charset=utf-8"


def read(body: bytes, content_type: str = "application/json", pieces: int = 1, *, failing: bool = False) -> BodyReader:
    reader = BodyReader(content_type, failing=failing)
    step = max(1, len(body) // pieces)
    for start in range(0, len(body), step):
        reader.feed(body[start : start + step])
    reader.close()
    return reader


def events(*data: object) -> bytes:
    return b"".join(b"event: x\ndata: " + json.dumps(one).encode() + b"\n\n" for one in data) + b"data: [DONE]\n\n"


CHAT = json.dumps({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}).encode()
OPENAI_STREAM = events(
    {"choices": [{"delta": {"content": "Hi"}}], "usage": None},
    {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}},
)
ANTHROPIC_STREAM = events(
    {"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 1}}},
    {"type": "content_block_delta", "delta": {"text": 'say "usage": {"output_tokens": 99}'}},
    {"type": "message_delta", "usage": {"output_tokens": 4}},
)
RESPONSES_STREAM = events(
    {"type": "response.created", "response": {"usage": None, "tools": [{"usage": {"type": "string"}}]}},
    {"type": "response.completed", "response": {"usage": {"input_tokens": 3, "output_tokens": 4}}},
)


@pytest.mark.parametrize("body", [OPENAI_STREAM, ANTHROPIC_STREAM, RESPONSES_STREAM])
@given(pieces=st.integers(1, 500))
def test_streams_however_they_are_cut(body: bytes, pieces: int) -> None:
    reader = read(body, EVENTS, pieces)
    assert (reader.usage, reader.error) == (Usage(3, 4), None)


@given(pieces=st.integers(1, 100))
def test_answers_in_one_piece_however_they_are_cut(pieces: int) -> None:
    assert read(CHAT, pieces=pieces).usage == Usage(3, 4)


def test_embeddings_have_input_only() -> None:
    body = json.dumps({"data": [[0.1] * 100], "usage": {"prompt_tokens": 8, "total_tokens": 8}}).encode()
    assert read(body).usage == Usage(8, 0)


def test_a_stream_that_nobody_read_to_its_end_says_what_it_said_so_far() -> None:
    reader = BodyReader(EVENTS)
    reader.feed(ANTHROPIC_STREAM[: ANTHROPIC_STREAM.index(b"message_delta")])
    reader.close()
    assert reader.usage == Usage(3, 1)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"usage": {"input_tokens": "3"}}', b'{"usage": {', b"\xff\xfe", b'"usage": 3']
)
def test_what_says_nothing_is_nothing(body: bytes) -> None:
    assert read(body).usage is None
    assert read(body, EVENTS).usage is None


def test_errors_in_the_middle_of_streams() -> None:
    overloaded = events({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
    assert (read(overloaded, EVENTS).error or {})["error"] == {"type": "overloaded_error", "message": "Overloaded"}
    failed = events({"type": "response.failed", "response": {"error": {"code": "server_error"}}})
    assert (read(failed, EVENTS).error or {})["error"] == {"code": "server_error"}


def test_errors_are_looked_for_where_they_can_be() -> None:
    body = b'{"error": {"code": "insufficient_quota"}}'
    assert read(body).error is None, "an answer may hold a field of that name"
    assert read(body, failing=True).error == {"error": {"code": "insufficient_quota"}}
    schema = events({"type": "response.created", "response": {"tools": [{"error": {"type": "string"}}]}})
    assert read(schema, EVENTS).error is None


def test_encoded_bodies_are_undone_at_their_end() -> None:
    reader = BodyReader("application/json", gzip.decompress)
    for start in range(0, 200, 10):
        reader.feed(gzip.compress(CHAT)[start : start + 10])
    reader.close()
    assert reader.usage == Usage(3, 4)
    broken = BodyReader(EVENTS, gzip.decompress)
    broken.feed(gzip.compress(OPENAI_STREAM)[:30])
    broken.close()
    assert broken.usage is None


def test_what_is_kept_is_bounded() -> None:
    reader = BodyReader("application/json")
    reader.feed(CHAT)
    for _ in range(3):
        reader.feed(b" " * (BODY_BYTES_MAX // 2))
    reader.close()
    assert reader.usage is None
    stream = BodyReader(EVENTS)
    for _ in range(4):
        stream.feed(b"x" * (LINE_BYTES_MAX // 2))
    stream.feed(b"\n" + OPENAI_STREAM)
    stream.close()
    assert stream.usage == Usage(3, 4), "after a line that was too long it reads on"


USAGE_LINE = b'data: {"usage": {"prompt_tokens": 3, "completion_tokens": 4}}\n\n'
SCRAPS = st.binary(max_size=9) | st.sampled_from([USAGE_LINE, USAGE_LINE, b"data: ", b"\n", b'{"error": {"code": 1}}'])


@given(st.lists(SCRAPS, max_size=5).map(b"".join), st.integers(1, 40), st.booleans(), st.booleans())
def test_any_bytes_at_all_are_no_trouble_however_they_are_cut(
    body: bytes, size: int, stream: bool, failing: bool
) -> None:
    found: list[object] = []
    for step in (size, len(body) or 1):
        reader = BodyReader(EVENTS if stream else "", failing=failing)
        for start in range(0, len(body), step):
            reader.feed(body[start : start + step])
        reader.close()
        found.append((reader.usage, reader.error))
    assert found[0] == found[1]


def test_what_was_read_from_a_cache_and_written_there_is_counted_apart() -> None:
    """Stated at the beginning of a stream, and by its end for some only."""
    counts = {"cache_creation_input_tokens": 70, "cache_read_input_tokens": 20}
    stream = events(
        {"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 1, **counts}}},
        {"type": "message_delta", "usage": {"output_tokens": 4, "cache_read_input_tokens": 25}},
    )
    usage = read(stream, EVENTS).usage
    assert usage == Usage(3, 4)
    assert usage is not None
    assert (usage.cached_input_tokens, usage.cache_read_tokens, usage.cache_write_tokens) == (0, 25, 70)
