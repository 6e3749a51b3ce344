"""Answers are deterministic, as long as was billed, and fit the schema that was asked for."""

from __future__ import annotations

import json
import struct
from enum import Enum
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from headgate.testing.provider.answers import (
    answer_json,
    answer_text,
    content_of,
    count_tokens,
    embedding,
    prompt_of,
)


@given(st.text(), st.integers(1, 300), st.integers(0, 2**64 - 1))
def test_a_text_has_exactly_the_billed_tokens_and_is_a_function_of_its_input(
    prompt: str, tokens: int, tag: int
) -> None:
    text = answer_text(prompt, tokens, tag)
    assert len(text.split()) == tokens
    assert text == answer_text(prompt, tokens, tag)


def test_different_tags_give_different_texts() -> None:
    assert answer_text("Why?", 5, 1) != answer_text("Why?", 5, 2)


def test_tokens_are_counted_in_all_texts_of_all_messages() -> None:
    messages: list[object] = [
        {"role": "system", "content": "be brief"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "what is this"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA BBBB"}},
            ],
        },
    ]
    assert count_tokens(messages) == 5
    assert prompt_of(messages) == "what is this"
    assert count_tokens([]) == 1
    assert prompt_of([]) == ""


def test_the_order_of_keys_does_not_make_another_content() -> None:
    assert content_of([{"role": "user", "content": "a"}]) == content_of([{"content": "a", "role": "user"}])
    assert content_of([{"role": "user", "content": "a"}]) != content_of([{"role": "user", "content": "b"}])


class Mood(Enum):
    GLAD = "glad"
    SAD = "sad"


class Leaf(BaseModel):
    name: Annotated[str, Field(min_length=30, max_length=32)]
    short: Annotated[str, Field(max_length=3)]
    child: Leaf | None = None


class Verdict(BaseModel):
    ok: bool
    score: Annotated[float, Field(ge=0.25, le=0.5)]
    above: Annotated[int, Field(gt=3)]
    below: Annotated[int, Field(lt=-3)]
    one: Annotated[int, Field(gt=0, le=1)]
    mood: Mood
    kind: Literal["only"]
    tags: Annotated[list[str], Field(min_length=2, max_length=3)]
    none_left: Annotated[list[int], Field(max_length=0)]
    leaf: Leaf
    either: int | str
    note: str | None


@given(st.integers(0, 2**64 - 1), st.text(max_size=40))
def test_json_answers_fit_the_schemas_of_pydantic(tag: int, prompt: str) -> None:
    text = answer_json(Verdict.model_json_schema(), prompt, tag)
    Verdict.model_validate_json(text)
    assert text == answer_json(Verdict.model_json_schema(), prompt, tag)


def test_a_schema_that_refers_to_itself_ends() -> None:
    class Endless(BaseModel):
        next: Endless | None

    text = answer_json(Endless.model_json_schema(), "", 1)
    Endless.model_validate_json(text)
    assert text.count("next") < 20


def test_json_without_a_schema_is_an_object() -> None:
    assert "answer" in json.loads(answer_json(None, "Why?", 3))


@pytest.mark.parametrize("dimensions", [1, 32, 33, 1536])
def test_vectors_have_their_length_and_depend_on_the_text_alone(dimensions: int) -> None:
    vector = struct.unpack(f"<{dimensions}f", embedding("a text", dimensions))
    assert all(-1 <= value < 1 for value in vector)
    assert embedding("a text", dimensions) == embedding("a text", dimensions)
    assert embedding("a text", dimensions) != embedding("another", dimensions)
