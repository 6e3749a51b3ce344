"""Values keep what they are on their way through the store, and a row has one digest everywhere."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import os
import subprocess
import sys
import uuid
from enum import Enum

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, TypeAdapter

from headgate.storage.codec import DIGEST_SIZE, decode, digest_of, encode, encode_row, stored_form

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


class Score(BaseModel):
    value: float
    note: str | None = None


class Careful(Score):
    model_config = ConfigDict(ser_json_inf_nan="constants")


class Tagged(BaseModel):
    tags: set[str]


@dataclasses.dataclass
class Point:
    x: float
    tags: frozenset[str] = frozenset()


class Colour(Enum):
    RED = "red"


@given(json_values)
def test_json_data_comes_back_as_it_was(value: object) -> None:
    assert repr(decode(encode(value))) == repr(value)  # repr: NaN is not equal to itself, 1 is to True


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_the_order_of_keys_does_not_change_a_digest(row: dict[str, object]) -> None:
    turned = dict(reversed(row.items()))
    assert digest_of(row) == digest_of(turned)
    assert digest_of(row) == digest_of(encode_row(row))
    assert len(digest_of(row)) == DIGEST_SIZE


plain_values = st.none() | st.booleans() | st.integers() | st.text()


@given(st.dictionaries(st.text(), plain_values | json_values, max_size=5))
def test_the_form_of_a_row_and_its_digest_are_the_same_by_either_way(row: dict[str, object]) -> None:
    data = encode_row(row)
    assert stored_form(row) == (data, digest_of(data))


def test_digests_stay_what_they_were() -> None:
    """Runs that are resumed compare them with what another version stored."""
    row = {"b": 'ü\x7f\u2028\n"/', "a": -(10**30), "c": None, "d": True}
    assert stored_form(row)[1].hex() == digest_of(encode_row(row)).hex() == "e2a875bcb2950a12df5e8d2d7336d604"
    assert stored_form({**row, "e": 1e16})[1].hex() == "42176ec3e3a22662f6eae220da08e068"


def test_other_content_has_another_digest() -> None:
    rows: list[dict[str, object]] = [
        {},
        {"a": 1},
        {"a": "1"},
        {"a": None},
        {"a": ""},
        {"b": 1},
        {"a": [1]},
        {"a": True},
    ]
    assert len({digest_of(row) for row in rows}) == len(rows)


def test_t46_empty_is_not_none_and_not_missing() -> None:
    """T46: an empty result could not be told from none."""
    empty: list[object] = [None, "", [], {}]
    assert [encode(value) for value in empty] == [b"null", b'""', b"[]", b"{}"]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (Score(value=1.5), Score),
        (Point(1.5), Point),
        (dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC), dt.datetime),
        (uuid.UUID(int=7), uuid.UUID),
        (Colour.RED, Colour),
        ((1, "a"), tuple[int, str]),
        (math.inf, float),
        (Careful(value=-math.inf, note=None), Careful),
    ],
)
def test_who_knows_the_type_gets_it_back(value: object, kind: type[object]) -> None:
    assert TypeAdapter(kind).validate_json(encode(value)) == value


@pytest.mark.parametrize(
    ("value", "named", "cure"),
    [
        (object(), "object", "plain data"),
        ({"a": [lambda: 1]}, "function", "plain data"),
        (b"\xff", "bytes", "base64"),
        ({"a": "\ud800"}, "dict", "utf-8"),
    ],
)
def test_what_cannot_be_stored_is_named_with_its_cure(value: object, named: str, cure: str) -> None:
    with pytest.raises(TypeError) as caught:
        encode(value)
    assert named in str(caught.value)
    assert cure in str(caught.value)


LONG = 10**4300  # one digit too many


@pytest.mark.parametrize("value", [LONG, -LONG, [1, LONG], {"n": {"of": LONG}}], ids=["n", "-n", "[n]", "{n}"])
def test_a_number_that_could_not_be_read_again_is_refused(value: object) -> None:
    """It was stored, and the run could never be resumed."""
    with pytest.raises(TypeError, match=r"more than 4300 digits.*hex"):
        encode(value)
    with pytest.raises(TypeError, match=r"more than 4300 digits.*hex"):
        stored_form({"n": value})


def test_what_is_long_and_can_be_read_again_is_stored() -> None:
    for value in (10**4299, -(10**4299), "7" * 9000, ["3" * 9000, 5], "x" * 9000):
        assert decode(encode(value)) == value
        assert decode(stored_form({"n": value})[0]) == {"n": value}


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(TypeError, match="contains itself"):
        encode(loop)
    with pytest.raises(TypeError, match="contains itself"):
        encode_row({"loop": loop})


def test_nan_in_a_model_is_never_turned_into_none_silently() -> None:
    with pytest.raises(TypeError, match="ser_json_inf_nan"):
        encode({"scores": [Score(value=math.nan)]})
    assert encode(Score(value=1.0, note=None)) == b'{"value":1.0,"note":null}'
    assert math.isnan(decode(encode([Careful(value=math.nan)]))[0]["value"])


def digests_with_hash_seed(seed: str) -> str:
    program = (
        "from headgate.storage.codec import digest_of\n"
        "from pydantic import BaseModel\n"
        "class Tagged(BaseModel):\n    tags: set[str]\n"
        "words = {f'word{i}' for i in range(40)}\n"
        "rows = [{'a': 1}, {'b': words}, {'c': [{'d': frozenset(words)}]}, {'e': Tagged(tags=words)}]\n"
        "print([digest_of(row).hex() for row in rows])\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def test_t54_random_identity() -> None:
    """T54: cache keys from hash() changed with each process; data sets of the same shape were swapped."""
    assert digests_with_hash_seed("1") == digests_with_hash_seed("2")


def test_sets_in_a_row_are_stored_in_one_order() -> None:
    data = encode_row({"tags": {"b", "a"}, "point": Point(1.0, frozenset("ba")), "model": Tagged(tags={"b", "a"})})
    assert decode(data) == {"tags": ["a", "b"], "point": {"x": 1.0, "tags": ["a", "b"]}, "model": {"tags": ["a", "b"]}}
