"""What can be a column, what is refused and with which words, and what the engine reads from one."""

# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# Lambdas and functions without annotations are what is tested here.

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator  # noqa: TC003  (read at run time)
from math import inf, nan
from typing import Any, assert_type

import pytest
from pydantic import ValidationError

from headgate.engine.pipeline import Pipeline
from headgate.errors import PipelineError
from headgate.scheduler.graph import Scope
from headgate.values import ResourceKey
from tests.unit.defined import Opaque, Verdict, ask, dangling, define, opaque, scalar, unannotated


def refusal(fn: Any, **options: Any) -> str:
    with pytest.raises(PipelineError) as caught:
        define(fn, **options)
    return str(caught.value)


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
        ({"tokens": -1}, "column 'ask': tokens must be a whole number from 0 to 1000000000000"),
        ({"tokens": 1.5}, "not 1.5"),
        ({"tokens": 10**13}, "not 10000000000000"),
        ({"max_output_tokens": 10**13}, "not 10000000000000"),
        ({"tokens": ask}, "column 'ask': tokens must be a whole number from 0 to 1000000000000, or a plain function"),
        ({"tokens": lambda question: 1}, "column 'ask': tokens= asks for 'question', and can have the column's own"),
        ({"tokens": lambda *args: 1}, "column 'ask': tokens= takes *args"),
        ({"max_output_tokens": 0}, "column 'ask': max_output_tokens must be a whole number from 1 to 1000000000000"),
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
