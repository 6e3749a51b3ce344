"""Configured limits: what is read, what is inherited, and what an error says."""

from __future__ import annotations

import re
from math import inf, nan
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from headgate.admission.limits import ConcurrencyRange, Limits
from headgate.admission.limits_book import LimitsBook, load_limits, parse_limits
from headgate.errors import ConfigError
from headgate.values import ResourceKey

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

GPT = ResourceKey("openai", "gpt-x")
CLAUDE = ResourceKey("anthropic", "claude-x")


def leaf(book: LimitsBook, name: str) -> Limits:
    found = book.for_scope(name, leaf=True)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (8, ConcurrencyRange(8, 8, 8, adaptive=False)),
        ("8", ConcurrencyRange(8, 8, 8, adaptive=False)),
        ("4-20-150", ConcurrencyRange(4, 20, 150, adaptive=True)),
        (" 4 - 20 - 150 ", ConcurrencyRange(4, 20, 150, adaptive=True)),
        ("1-1-1", ConcurrencyRange(1, 1, 1, adaptive=True)),
        ("auto", ConcurrencyRange(1, 4, 1024, adaptive=True)),
    ],
)
def test_concurrency(stated: int | str, expected: ConcurrencyRange) -> None:
    assert Limits(concurrency=stated).concurrency_range() == expected


@given(numbers=st.tuples(st.integers(-5, 500), st.integers(-5, 500), st.integers(-5, 500)))
def test_a_range_is_taken_if_and_only_if_it_rises(numbers: tuple[int, int, int]) -> None:
    minimum, start, maximum = numbers
    text = f"{minimum}-{start}-{maximum}"
    if 1 <= minimum <= start <= maximum:
        assert ConcurrencyRange.parse(text) == ConcurrencyRange(minimum, start, maximum, adaptive=True)
    else:
        with pytest.raises(ValueError):
            ConcurrencyRange.parse(text)


@given(text=st.text(max_size=20))
def test_any_other_text_is_refused_with_the_cure(text: str) -> None:
    assume(not re.fullmatch(r"\s*[0-9]+\s*(-\s*[0-9]+\s*-\s*[0-9]+\s*)?", text, re.ASCII))
    assume(text != "auto")
    with pytest.raises(ValueError, match=r"write|use"):
        ConcurrencyRange.parse(text)


@pytest.mark.parametrize(
    ("stated", "parts"),
    [
        ({"concurrency": "4-2-8"}, ["concurrency = '4-2-8'", "start 2 is below the minimum 4"]),
        ({"concurrency": "4-20-10"}, ["maximum 10 is below the start 20"]),
        ({"concurrency": "20-150"}, ['"4-20-150"']),
        ({"concurrency": 0}, ["concurrency = 0", "1 or more"]),
        ({"concurrency": -3}, ["concurrency = -3", "1 or more"]),
        ({"concurrency": True}, ["concurrency = True"]),
        ({"concurrency": 2.5}, ["concurrency = 2.5"]),
        ({"concurrency": "many"}, ['"auto"']),
        ({"requests_per_minute": 0}, ["requests_per_minute = 0", "greater than 0"]),
        ({"requests_per_minute": -5}, ["requests_per_minute = -5", "greater than 0"]),
        ({"tokens_per_minute": nan}, ["tokens_per_minute = nan"]),
        ({"input_tokens_per_minute": "60"}, ["input_tokens_per_minute = '60'", "number"]),
        ({"queue_timeout": -1}, ["queue_timeout = -1"]),
        ({"queue_timeout": nan}, ["queue_timeout = nan"]),
        ({"cooldown": 0}, ["cooldown = 0"]),
        ({"cooldown": inf}, ["cooldown = inf"]),
        ({"share": 0}, ["share = 0"]),
        ({"share": 1.5}, ["share = 1.5"]),
        ({"startup_ramp": nan}, ["startup_ramp = nan"]),
        ({"alias_of": "gpt-x"}, ["alias_of = 'gpt-x'", "provider/model"]),
        ({"requests_per_minut": 5}, ["did you mean requests_per_minute?"]),
        ({"rpm": 5}, ["did you mean requests_per_minute?"]),
        ({"zzz": 5}, ['unknown key "zzz"', "queue_timeout"]),
    ],
)
def test_errors_are_one_line_that_names_scope_key_value_and_cure(
    stated: Mapping[str, object], parts: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_limits({"openai/gpt-x": stated})
    message = str(caught.value)
    assert "\n" not in message
    for part in ['"openai/gpt-x"', *parts]:
        assert part in message


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ({"concurrency": 8}, 'put it below ["*"]'),
        ({"openai": {"gpt-x": {"concurrency": 8}}}, 'write ["openai/gpt-x"]'),
        ({"openai/": {}}, "is no scope"),
        ({"": {}}, "is no scope"),
        ({" openai": {}}, "is no scope"),
        ({"openai/gpt-x": 8}, "a scope is a table"),
        ({"openai/gpt-x": {}, "openai/gpt-x:chat": {}}, "there twice"),
        ({"openai": {"alias_of": "openai/gpt-x"}}, "only a model"),
        ({"a/b": {"alias_of": "a/b"}}, "leads back"),
        ({"a/b": {"alias_of": "a/c"}, "a/c": {"alias_of": "a/d"}, "a/d": {"alias_of": "a/c"}}, "leads back"),
    ],
)
def test_a_book_that_cannot_be_meant(source: Mapping[str, Mapping[str, object]], part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_limits(source)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    path.write_text(
        '["*"]\nqueue_timeout = 5\n[openai]\nrequests_per_minute = 500\n'
        '["openai/gpt-x"]\nconcurrency = "4-20-150"\n["openai/gpt-x:embedding"]\nconcurrency = 8\n',
        encoding="utf-8",
    )
    for source in (path, str(path)):
        book = load_limits(source)
        assert book.for_scope("openai") == Limits(requests_per_minute=500, queue_timeout=5)
        assert leaf(book, "openai/gpt-x").concurrency == "4-20-150"
        assert leaf(book, "openai/gpt-x:embedding").concurrency == 8


def test_a_file_with_an_error_names_the_file_and_the_line(tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    path.write_text('["openai/gpt-x"]\nconcurrency = = 8\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"limits\.toml.*line 2"):
        load_limits(path)
    path.write_text('["openai/gpt-x"]\nconcurency = 8\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"limits\.toml.*did you mean concurrency"):
        load_limits(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_limits(path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.toml: no such limits file"):
        load_limits(tmp_path / "nothing.toml")
    with pytest.raises(ConfigError, match="cannot read"):
        load_limits(tmp_path)


def test_nothing_stated_is_found_out_while_running() -> None:
    book = load_limits(None)
    assert book.knows(GPT)
    assert book.for_scope("openai") is None
    assert leaf(book, "openai/gpt-x") == Limits(concurrency="auto")


def test_one_object_is_for_every_model() -> None:
    book = load_limits(Limits(concurrency=3, requests_per_minute=60))
    assert book.knows(CLAUDE)
    assert leaf(book, "anthropic/claude-x").concurrency == 3
    assert book.for_scope("anthropic") is None


def test_a_model_without_a_concurrency_is_adaptive_and_an_account_has_none() -> None:
    book = load_limits({"openai": {"requests_per_minute": 5000}, "openai/gpt-x": {"requests_per_minute": 60}})
    account = book.for_scope("openai")
    assert account is not None
    assert account.concurrency is None
    assert leaf(book, "openai/gpt-x").concurrency == "auto"


def test_the_default_fills_in_what_a_model_leaves_out() -> None:
    book = load_limits({"*": {"concurrency": 5, "tokens_per_minute": 900}, "openai/gpt-x": {"tokens_per_minute": 100}})
    mine, other = leaf(book, "openai/gpt-x"), leaf(book, "openai/gpt-y")
    assert (mine.concurrency, mine.tokens_per_minute) == (5, 100)
    assert (other.concurrency, other.tokens_per_minute) == (5, 900)


def test_the_default_does_not_narrow_a_domain_whose_model_says_otherwise() -> None:
    """The model's own 600 a minute apply to its embeddings in the model's scope; 60 would apply on top."""
    book = load_limits({"*": {"requests_per_minute": 60}, "openai/gpt-x": {"requests_per_minute": 600}})
    assert leaf(book, "openai/gpt-x:embedding").requests_per_minute is None


def test_how_to_wait_is_inherited_from_the_narrowest_that_says_it() -> None:
    book = load_limits(
        {
            "*": {"queue_timeout": 1, "cooldown": 100},
            "openai": {"queue_timeout": 2, "share": 0.5},
            "openai/gpt-x": {"queue_timeout": 3},
        }
    )
    mine, sibling = leaf(book, "openai/gpt-x:embedding"), leaf(book, "openai/gpt-y")
    assert (mine.queue_timeout, mine.cooldown, mine.share) == (3, 100, 0.5)
    assert (sibling.queue_timeout, sibling.cooldown, sibling.share) == (2, 100, 0.5)
    assert leaf(book, "anthropic/claude-x").queue_timeout == 1


def test_inf_states_that_there_is_no_such_limit() -> None:
    book = load_limits({"*": {"requests_per_minute": 60}, "openai/gpt-x": {"requests_per_minute": inf}})
    assert leaf(book, "openai/gpt-x").requests_per_minute is None


@pytest.mark.parametrize(
    ("source", "known", "unknown"),
    [
        ({"openai/gpt-x": {}}, ["openai/gpt-x", "openai/gpt-x:embedding"], ["openai/gpt-y", "anthropic/claude-x"]),
        ({"openai/gpt-x": {}, "*": {}}, ["openai/gpt-y", "anthropic/claude-x"], []),
        ({"openai/gpt-x": {}, "anthropic": {}}, ["anthropic/claude-x"], ["openai/gpt-y"]),
        ({"openai": {}}, ["anthropic/claude-x"], []),
        ({"openai/x": {"alias_of": "azure/gpt-x"}}, ["openai/x", "azure/gpt-x"], ["azure/gpt-y"]),
    ],
)
def test_t11_a_model_that_nobody_named_is_unknown_before_anything_waits(
    source: Mapping[str, Mapping[str, object]], known: list[str], unknown: list[str]
) -> None:
    """Elsewhere an unregistered model surfaced as a timeout, and was retried."""
    book = load_limits(source)
    assert [name for name in known if not book.knows(ResourceKey.parse(name))] == []
    assert [name for name in unknown if book.knows(ResourceKey.parse(name))] == []


def test_a_misspelt_model_is_suggested() -> None:
    book = load_limits({"openai/gpt-x-mini": {}, "anthropic/claude-x": {}})
    assert book.suggest("openai/gpt-x-mnii") == "openai/gpt-x-mini"
    assert book.suggest("mistral/quite-different-thing") is None


def test_aliases() -> None:
    book = load_limits({"openai/x": {"alias_of": "azure/gpt-x", "concurrency": 4}, "azure/gpt-x": {"concurrency": 9}})
    assert book.alias_of(ResourceKey("openai", "x")) == ResourceKey("azure", "gpt-x")
    assert book.alias_of(ResourceKey("azure", "gpt-x")) is None


def test_a_limit_replaced_while_running_does_not_close_an_open_book() -> None:
    book = load_limits(None).replaced("openai/gpt-x", Limits(concurrency=2))
    assert book.knows(CLAUDE)
    assert leaf(book, "openai/gpt-x").concurrency == 2
    with pytest.raises(ConfigError):
        book.replaced("openai/", Limits())


def test_limits_are_frozen_and_strict() -> None:
    limits = Limits(concurrency=2)
    with pytest.raises(ValidationError):
        limits.concurrency = 3
    with pytest.raises(ValidationError):
        Limits.model_validate({"concurrncy": 3})
    assert parse_limits("openai", {"share": 0.25}) == Limits(share=0.25)
