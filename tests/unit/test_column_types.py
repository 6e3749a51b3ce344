"""The types of columns: what values are checked, what is taken unchecked, and how types are told."""

# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# Lambdas and functions without annotations are what is tested here.
# Bodies that raise NotImplementedError are never called: their annotations are what counts.

from __future__ import annotations

import json
import sys
from collections.abc import Callable  # noqa: TC003  (read at run time)
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

import pytest
from pydantic import BaseModel, Field, ValidationError
from typing_extensions import TypeAliasType, TypeVar

from headgate.engine.pipeline import one_column
from headgate.engine.signatures import Parameters, describe_type, read_parameters, return_type
from headgate.errors import PipelineError
from tests.unit.defined import Opaque, Verdict, ask, dangling, define, opaque, scalar, unannotated

if TYPE_CHECKING:
    from decimal import Decimal as Nowhere


def test_values_are_checked_by_the_return_type() -> None:
    class Local(BaseModel):
        score: int

    def local(topic: str) -> Local:
        raise NotImplementedError

    def nested(topic: str) -> dict[str, list[Local]]:
        raise NotImplementedError

    assert define(local).validate({"score": "3"}) == Local(score=3)
    assert define(nested).validate({"a": [{"score": 1}]}) == {"a": [Local(score=1)]}
    with pytest.raises(ValidationError):
        define(local).validate({"score": "many"})


def test_none_is_a_type_like_any_other() -> None:
    def nothing(topic: str) -> None:
        raise NotImplementedError

    column = define(nothing)
    assert column.validate(None) is None
    with pytest.raises(ValidationError):
        column.validate("something")


@pytest.mark.parametrize(("fn", "options"), [(unannotated, {}), (ask, {"output": Any}), (opaque, {"output": Any})])
def test_unchecked_columns_take_anything(fn: Callable[..., object], options: dict[str, Any]) -> None:
    column = define(fn, **options)
    thing = Opaque()
    assert column.adapter is None
    assert column.validate(thing) is thing


def test_output_replaces_the_return_type() -> None:
    assert define(dangling, output=int).validate("3") == 3


def test_a_group_column_checks_element_by_element() -> None:
    """T32, the part that is decided here: one bad element is one bad row, because each is checked alone."""
    column = define(scalar, scope="group", output=list[Verdict])
    assert column.validate({"score": 1}) == Verdict(score=1)
    with pytest.raises(ValidationError):
        column.validate({"score": None})


def test_stored_values_come_back_as_their_type() -> None:
    assert define(ask, output=Verdict).restore(b'{"score": 3, "note": "x"}') == Verdict(score=3, note="x")
    assert define(unannotated).restore(b'{"score": [3, null]}') == {"score": [3, None]}
    with pytest.raises(ValidationError):
        define(ask, output=Verdict).restore(b'{"mark": 3}')


def test_estimates() -> None:
    assert define(ask).estimate({"topic": "x"}) == 0
    assert define(ask, tokens=900).estimate({"topic": "x"}) == 900

    def by_length(topic: str, factor: int = 4, style: str = "") -> int:
        return len(topic) // factor + len(style)

    def styled(topic: str, style: str = "terse") -> str:
        raise NotImplementedError

    assert define(styled, tokens=by_length).estimate({"topic": "x" * 40}) == 10
    assert define(styled, tokens=by_length).estimate({"topic": "x" * 40, "style": "ab"}) == 12
    with pytest.raises(
        TypeError, match=r"column 'ask': tokens= must give a whole number from 0 to 1000000000000, not 2\.5"
    ):
        define(ask, tokens=lambda topic: 2.5).estimate({"topic": "x"})


def test_timeouts() -> None:
    assert define(ask).timeout == 600.0
    assert define(ask, timeout=None).timeout is None
    assert define(ask, timeout=inf).timeout is None


@dataclass
class Point:
    x: int
    nearest: Point | None = None


class Reply(TypedDict):
    text: str


class Color(Enum):
    RED = "r"


class Pick(Enum):
    SOME = frozenset({"c", "a", "b"})
    THING = object()


class Mood(Enum):
    NEW = "\u00e9\U0001fae8"


class Reference(TypedDict):
    to: list[Nowhere]


T = TypeVar("T")
Answers = TypeAliasType("Answers", dict[str, Reply])
Pair = TypeAliasType("Pair", tuple[T, T], type_params=(T,))


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "int"),
        (Any, "Any"),
        (list[int | None], "list[Union[int, NoneType]]"),
        (Annotated[int, Field(gt=0)], "int"),
        (Literal["a", 1], "Literal('a', 1)"),
        (tuple[int, ...], "tuple[int, ellipsis]"),
        (Verdict, "Verdict(score: int, note: str)"),
        (Point, "Point(x: int, nearest: Union[Point, NoneType])"),
        (Reply, "Reply(text: str)"),
        (Color, "Color(RED='r')"),
        (Pick, "Pick(SOME={'a', 'b', 'c'}, THING=object)"),  # a set has no order, an object another place each time
        (Mood, "Mood(NEW='\\xe9\\U0001fae8')"),  # as they are only where the tables of Unicode have them
        (Literal["\u00e9\U0001fae8"], "Literal('\\xe9\\U0001fae8',)"),
        (Reference, "Reference(to: list[Nowhere])"),  # nobody can look it up
        (Answers, "dict[str, Reply(text: str)]"),
        (Pair[int], "tuple[T, T][int]"),
    ],
)
def test_types_as_text(annotation: object, text: str) -> None:
    assert describe_type(annotation) == text


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations were looked up at once before Python 3.14")
def test_what_only_type_checkers_see_is_not_looked_up() -> None:
    names: dict[str, Any] = {"dataclass": dataclass}
    source = """
def ask(topic: Nowhere, style: str = "") -> Answer: ...
@dataclass
class Answer:
    text: str
    at: list[Nowhere]
def lost(topic: str) -> list[Nowhere]: ...
def free(topic: str) -> list[Nowhere]: ...
"""
    exec(compile(source, "<lazy>", "exec", dont_inherit=True), names)
    assert read_parameters(names["ask"], "c") == Parameters(("topic",), ("style",))
    assert describe_type(return_type(names["ask"], "c")) == "Answer(text: str, at: list[Nowhere])"
    with pytest.raises(PipelineError, match="cannot be looked up"):
        define(names["lost"])
    assert define(names["free"], output=Any).parameters == ("topic",)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the statement came with Python 3.12")
def test_a_named_type_may_be_made_of_itself_or_of_nothing_known() -> None:
    names: dict[str, Any] = {}
    exec("type Tree = list[Tree] | int\ntype Lost = list[Nowhere]", names)
    assert describe_type(names["Tree"]) == "Union[list[Tree], int]"
    assert describe_type(names["Lost"]) == "Lost"


def test_one_column_pipelines() -> None:
    pipeline, argument = one_column(ask, model="openai/gpt-x", timeout=5)
    assert (pipeline.name, argument) == ("ask", "topic")
    assert pipeline.columns[0].timeout == 5
    assert pipeline.compile(["topic"]).input_fields == {"topic"}


def test_which_parameter_a_plain_row_becomes() -> None:
    def two(topic: str, style: str) -> str:
        raise NotImplementedError

    def spare(topic: str, style: str = "terse") -> str:
        raise NotImplementedError

    def optional(topic: str = "cats") -> str:
        raise NotImplementedError

    def nothing() -> str:
        raise NotImplementedError

    assert one_column(two)[1] is None
    assert one_column(spare)[1] == "topic"
    assert one_column(optional)[1] == "topic"
    assert one_column(nothing)[1] is None


def test_a_lambda_may_be_mapped() -> None:
    pipeline, argument = one_column(lambda row: json.dumps(row))
    assert (pipeline.columns[0].name, argument) == ("value", "row")
    assert one_column(ask, name="answer")[0].columns[0].name == "answer"
    with pytest.raises(PipelineError, match="3 is not a function"):
        one_column(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
