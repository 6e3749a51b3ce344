"""What can be a column, what is refused and with which words, and what the engine reads from one."""

# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# Lambdas and functions without annotations are what is tested here.

from __future__ import annotations

import functools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator  # noqa: TC003  (read at run time)
from dataclasses import dataclass
from enum import Enum
from math import inf, nan
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict, assert_type

import pytest
from pydantic import BaseModel, Field, ValidationError

from headgate.engine.pipeline import Column, Pipeline, one_column
from headgate.engine.signatures import describe_type
from headgate.errors import PipelineError
from headgate.scheduler.graph import Scope
from headgate.values import ResourceKey

if TYPE_CHECKING:
    from decimal import Decimal as Nowhere  # what a column may not be annotated with


class Verdict(BaseModel):
    score: int
    note: str = ""


class Opaque:
    """Nothing that pydantic could check."""


async def ask(topic: str) -> str:
    return topic


def define(fn: Callable[..., object], **options: Any) -> Column:
    pipeline = Pipeline("tickets")
    pipeline.column(fn, **options)
    return pipeline.columns[0]


def refusal(fn: Any, **options: Any) -> str:
    with pytest.raises(PipelineError) as caught:
        define(fn, **options)
    return str(caught.value)


# What a column may be.


def test_the_design_page_pipeline() -> None:
    pipeline = Pipeline("tickets")

    @pipeline.column(model="openai/gpt-x")
    async def question(topic: str) -> str:
        return topic

    @pipeline.column(model="anthropic/claude-x", when=lambda question: len(question) > 20)
    async def verdict(question: str, topic: str) -> Verdict:
        return Verdict(score=len(question) + len(topic))

    @pipeline.column(scope="group")
    async def dedupe(question: list[str]) -> list[bool]:
        return [True for _ in question]

    graph = pipeline.compile(["topic"])
    assert [spec.name for spec in graph.specs] == ["question", "verdict", "dedupe"]
    assert graph.children == ((1, 2), (), ())
    assert graph.specs[1].resource == ResourceKey("anthropic", "claude-x")
    assert graph.specs[2].resource is None
    assert graph.specs[2].scope is Scope.GROUP
    assert [column.is_async for column in pipeline.columns] == [True, True, True]


def test_the_decorator_returns_the_function_itself() -> None:
    pipeline = Pipeline("tickets")

    @pipeline.column
    def plain(topic: str) -> int:
        return len(topic)

    @pipeline.column()
    def called(topic: str) -> int:
        return len(topic)

    def third(topic: str) -> int:
        return len(topic)

    assert pipeline.column(third, name="other") is third
    assert_type(plain("abc"), int)
    assert_type(called("abc"), int)
    assert plain("abc") == called("abc") == 3
    assert [column.name for column in pipeline.columns] == ["plain", "called", "other"]
    assert not pipeline.columns[0].is_async


class Speaker:
    def __call__(self, topic: str) -> str:
        return topic

    async def method(self, topic: str) -> str:
        return topic


class AsyncSpeaker:
    async def __call__(self, topic: str) -> Verdict:
        return Verdict(score=len(topic))


def test_objects_methods_and_partials_are_functions_too() -> None:
    assert define(Speaker(), name="said").parameters == ("topic",)
    assert not define(Speaker(), name="said").is_async
    assert define(AsyncSpeaker(), name="said").is_async
    assert define(AsyncSpeaker(), name="said").validate({"score": 1}) == Verdict(score=1)
    method = define(Speaker().method)
    assert (method.name, method.parameters, method.is_async) == ("method", ("topic",), True)


def test_what_a_partial_has_bound_is_bound() -> None:
    async def styled(topic: str, style: str) -> str:
        return topic + style

    by_name = define(functools.partial(styled, style="terse"))
    assert (by_name.name, by_name.parameters, by_name.spec.optional) == ("styled", ("topic",), ())
    assert by_name.is_async
    assert define(functools.partial(styled, "cats")).parameters == ("style",)
    assert by_name.adapter is not None


def test_decorated_functions_are_read_through() -> None:
    def retried(fn: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        @functools.wraps(fn)
        async def wrapper(*args: Any, **kwargs: Any) -> object:
            return await fn(*args, **kwargs)

        return wrapper

    column = define(retried(ask))
    assert (column.name, column.parameters, column.is_async) == ("ask", ("topic",), True)
    with pytest.raises(ValidationError):
        column.validate(3)


def test_types_are_looked_up_where_the_function_was_written_not_its_decorator() -> None:
    @functools.cache
    def cached(topic: str) -> Verdict:
        return Verdict(score=len(topic))

    assert define(cached).parameters == ("topic",)
    assert define(cached).validate({"score": 3}) == Verdict(score=3)


def test_a_function_that_returns_an_awaitable_is_awaited() -> None:
    def later(topic: str) -> Awaitable[int]:
        raise NotImplementedError(topic)

    column = define(later)
    assert column.is_async
    assert column.validate("3") == 3


def test_a_parameter_with_a_default_is_optional() -> None:
    def column(topic: str, style: str = "terse") -> str:
        return topic + style

    spec = define(column, when=lambda topic, floor=3: len(topic) > floor).spec
    assert (spec.needs, spec.when_needs, spec.optional) == (("topic",), ("topic",), ("style", "floor"))


def test_conditions_resolve_like_parameters() -> None:
    column = define(ask, when=lambda topic, urgent: urgent and topic)
    assert column.when_parameters == ("topic", "urgent")
    assert column.spec.required() == ("topic", "urgent")


# What is refused.


@pytest.mark.parametrize("name", ["", "two words", "9lives", "my-pipeline", "class", None, 3])
def test_a_pipeline_name_is_an_identifier(name: Any) -> None:
    with pytest.raises(PipelineError, match="a pipeline needs an identifier for its name"):
        Pipeline(name)


def star(*topics: str) -> str:
    raise NotImplementedError


def double_star(**topics: str) -> str:
    raise NotImplementedError


def positional(topic: str, /) -> str:
    raise NotImplementedError


async def stream(topic: str) -> AsyncIterator[str]:
    yield topic


def generate(topic: str) -> Iterator[str]:
    yield topic


def opaque(topic: str) -> Opaque:
    raise NotImplementedError


def dangling(topic: str) -> Nowhere:
    raise NotImplementedError


def scalar(topic: list[str]) -> bool:
    raise NotImplementedError


def unannotated(topic):  # type: ignore[no-untyped-def]  # pyright: ignore
    raise NotImplementedError


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        ("openai/gpt-x", "'openai/gpt-x' is not a function: write @pipeline.column(model=...)"),
        (star, "column 'star' takes *topics: parameters name what a column needs"),
        (double_star, "column 'double_star' takes **topics: parameters name"),
        (positional, "column 'positional' takes 'topic' by position only: remove the '/'"),
        (stream, "column 'stream' is a generator: return one value"),
        (generate, "column 'generate' is a generator"),
        (opaque, "column 'opaque': pydantic cannot check its return type"),
        (dangling, "column 'dangling': its return type 'Nowhere' cannot be looked up"),
        (lambda topic: topic, "column '<lambda>': parameters of other columns must be able to name it"),
        (Speaker(), "has no name that other columns could ask for: give it one with name="),
        (dict.fromkeys, "column 'fromkeys' takes 'iterable' by position only"),
        (type, "column 'type' has no readable parameters: wrap it in a function"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_column(fn: Any, words: str) -> None:
    assert words in refusal(fn)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "two words"}, "column 'two words': parameters"),
        ({"name": "for"}, "column 'for': parameters"),
        ({"model": "gpt-x"}, "column 'ask': model 'gpt-x' does not name a model: write it as 'provider/model'"),
        ({"model": 3}, "column 'ask': model must be text such as 'openai/gpt-x', not 3"),
        ({"scope": "row"}, "column 'ask': scope must be \"cell\" or \"group\", not 'row'"),
        ({"weight": 0}, "column 'ask': weight must be a finite number above zero, not 0"),
        ({"weight": nan}, "not nan"),
        ({"weight": inf}, "not inf"),
        ({"weight": "2"}, "not '2'"),
        ({"weight": True}, "not True"),
        ({"timeout": 0}, "column 'ask': timeout must be a finite number above zero, not 0"),
        ({"timeout": -1.5}, "not -1.5"),
        ({"timeout": nan}, "not nan"),
        ({"tokens": -1}, "column 'ask': tokens must be a whole number from 0 on"),
        ({"tokens": 1.5}, "not 1.5"),
        ({"tokens": ask}, "column 'ask': tokens must be a whole number from 0 on, or a plain function"),
        ({"tokens": lambda question: 1}, "column 'ask': tokens= asks for 'question', and can have the column's own"),
        ({"tokens": lambda *args: 1}, "column 'ask': tokens= takes *args"),
        ({"max_output_tokens": 0}, "column 'ask': max_output_tokens must be a whole number above zero, not 0"),
        ({"version": 2}, "column 'ask': version must be text, such as \"2\", not 2"),
        ({"when": True}, "column 'ask': when= must be a function of columns and fields, not True"),
        ({"when": ask}, "column 'ask': when= must answer at once"),
        ({"when": lambda *names: True}, "column 'ask': when= takes *names"),
        ({"output": Opaque}, "column 'ask': pydantic cannot check its return type"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_meant(options: dict[str, Any], words: str) -> None:
    assert words in refusal(ask, **options)


@pytest.mark.parametrize("fn", [scalar, unannotated])
def test_a_group_column_returns_a_list(fn: Callable[..., object]) -> None:
    message = refusal(fn, scope="group")
    assert f"column '{fn.__name__}' is a group column and must be annotated to return list[...]" in message


def test_a_group_column_has_no_condition() -> None:
    assert "when= decides per row" in refusal(scalar, scope="group", when=lambda topic: True, output=list[bool])


def test_an_unknown_option_is_no_option() -> None:
    with pytest.raises(TypeError, match="modle"):
        define(ask, modle="openai/gpt-x")


def test_one_name_twice_is_said_at_once() -> None:
    pipeline = Pipeline("tickets")
    pipeline.column(ask)
    with pytest.raises(PipelineError, match="column 'ask' is defined twice"):
        pipeline.column(ask)
    assert len(pipeline.columns) == 1


def test_the_graph_is_checked_with_the_fields() -> None:
    pipeline = Pipeline("tickets")
    pipeline.column(ask)
    with pytest.raises(PipelineError, match="did you mean 'topics'"):
        pipeline.compile(["topics"])
    assert pipeline.compile().input_fields == {"topic"}


# What a value must be.


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
    with pytest.raises(TypeError, match=r"column 'ask': tokens= must give a whole number from 0 on, not 2\.5"):
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
    ],
)
def test_types_as_text(annotation: object, text: str) -> None:
    assert describe_type(annotation) == text


# One function over many rows.


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
