"""A pipeline that behaves as somebody's own would, and calls nothing of it: latency and made-up values instead.

Each model column asks the virtual provider through the same leases as a real client would, and returns a value that
fits its return type. Conditions (``when=``) and token estimates (``tokens=``) are plain functions of values, so they
are asked where everything that they look at is known: input fields, and columns whose answer was given.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import anyio
from pydantic import ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import from_json

from ..engine.jobs import Job
from ..engine.requests import request, requester
from ..errors import ConfigError
from ..scheduler.graph import Scope
from .assumed import ColumnAssumption
from .provider.answers import answer_json

if TYPE_CHECKING:
    from ..engine.column import Column
    from ..engine.pipeline import Pipeline
    from .assumed import Assumptions, ModelAssumption
    from .provider.virtual import VirtualProvider

__all__ = ["Answers", "StandIn"]

Answers = Mapping[str, object]
"""A value by column, or a plain function of the column's parameters that gives it."""

VARIANTS: Final = 8
"""Different values that are made up for one column, so that not every row is the same."""

_UNCONDITIONAL: Final = ColumnAssumption()


class StandIn:
    """A pipeline in the place of ``pipeline``: see the module. ``notes`` says what is assumed of each column.

    ``made_up`` are input fields that nobody gave, ``call`` local columns whose own function is called nevertheless.
    Raises ConfigError for a name that is no column, and for a model that nothing is assumed of.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        assumed: Assumptions,
        answers: Answers,
        call: frozenset[str],
        *,
        made_up: frozenset[str] = frozenset(),
        seed: int = 0,
    ) -> None:
        self._assumed = assumed
        self._answers = {
            **{name: one.answer for name, one in assumed.columns.items() if one.answered},
            **answers,
        }
        self._call = call
        self._rng = random.Random(seed)
        self.notes: list[str] = []
        _check_names(pipeline, self._assumed.columns.keys() | self._answers.keys() | call)
        for column in pipeline.columns:
            if column.name in call and column.spec.resource is not None:
                raise ConfigError(f"column {column.name!r} asks a model: its function is not called in a simulation")
        known = self._answers.keys() | call
        self._unknown = made_up | {column.name for column in pipeline.columns if column.name not in known}
        self.models: dict[str, ModelAssumption] = {
            str(column.spec.resource): assumed.model(str(column.spec.resource))
            for column in pipeline.columns
            if column.spec.resource is not None
        }
        self.provider: VirtualProvider | None = None
        self.pipeline = pipeline.remade(self._remade)

    def _remade(self, column: Column) -> Column:
        if column.name in self._call:
            return replace(column, when_fn=self._condition(column))
        value, checked = self._value(column)
        return replace(
            column,
            fn=self._body(column, value),
            is_async=True,
            adapter=column.adapter if checked else None,
            when_fn=self._condition(column),
            tokens=self._estimate(column),
        )

    # What a call does

    def _body(self, column: Column, value: Callable[[Job, Mapping[str, object]], object]) -> Callable[..., object]:
        does = self._assumed.columns.get(column.name, _UNCONDITIONAL)
        resource = None if column.spec.resource is None else str(column.spec.resource)
        model = None if resource is None else self.models[resource]

        async def body(**arguments: object) -> object:
            job = requester.get()
            assert isinstance(job, Job)
            if model is not None and resource is not None:
                tokens = model.input_tokens if column.tokens is None else self._tokens(column, model, arguments)
                for number in range(does.requests):
                    content = f"{column.name} {job.task.unit} {number}"
                    await self._ask(resource, content, tokens, column.max_output_tokens)
            if does.seconds:
                await anyio.sleep(does.seconds)
            return value(job, arguments)

        return body

    async def _ask(self, resource: str, content: str, tokens: int, most: int | None) -> None:
        """One request: the first one of a call goes out on the lease that the engine has taken for it."""
        assert self.provider is not None
        async with request(resource, tokens=tokens, output_tokens=most or 0) as lease:
            answer = await self.provider.chat(resource, content, input_tokens=tokens, max_output_tokens=most)
            lease.report(status=answer.status, headers=answer.headers, usage=answer.usage)

    # What is asked of the user's plain functions

    def _condition(self, column: Column) -> Callable[..., object] | None:
        if column.when_fn is None:
            return None
        share = self._assumed.columns.get(column.name, _UNCONDITIONAL).share
        if share is None and self._unknown.isdisjoint(column.when_parameters):
            return column.when_fn
        if share is None:
            share = 1.0
            guessed = ", ".join(name for name in column.when_parameters if name in self._unknown)
            self.notes.append(
                f"{column.name}: its condition looks at {guessed}, which is made up, so it is taken to hold always; "
                "say share=, or give the answers"
            )
        rng, part = self._rng, share

        def drawn(**_: object) -> bool:
            return rng.random() < part

        return drawn

    def _estimate(self, column: Column) -> int | Callable[..., int] | None:
        if column.spec.resource is None or not callable(column.tokens):
            return column.tokens
        model = self.models[str(column.spec.resource)]

        def estimate(**arguments: object) -> int:
            return self._tokens(column, model, arguments)

        return estimate

    def _tokens(self, column: Column, model: ModelAssumption, arguments: Mapping[str, object]) -> int:
        """The user's estimate, or the assumed tokens where it makes nothing of values that are made up."""
        try:
            return column.estimate(arguments)
        except Exception:
            if self._unknown.isdisjoint(column.token_parameters):
                raise
            return model.input_tokens

    # Values

    def _value(self, column: Column) -> tuple[Callable[[Job, Mapping[str, object]], object], bool]:
        """What gives the values of a column, and whether they are checked against its type."""
        group = column.spec.scope is Scope.GROUP
        if column.name in self._answers:
            answer = self._answers[column.name]
            if not callable(answer):
                return (lambda job, _: [answer] * len(job.rows) if group else answer), True
            if inspect.iscoroutinefunction(answer):
                raise ConfigError(f"answers: {column.name!r} must be a plain function: nothing is waited for in it")
            return (lambda _, arguments: answer(**arguments)), True
        values, fit = _made_up(column)
        if not fit:
            self.notes.append(f"{column.name}: no value could be made up that fits {column.output}; it goes unchecked")

        def pick(job: Job, _: Mapping[str, object]) -> object:
            if group:
                return [values[row % VARIANTS] for row in job.rows]
            return values[job.rows[0] % VARIANTS]

        return pick, fit


def _made_up(column: Column) -> tuple[list[object], bool]:
    """Values that fit the type of a cell; or some that do not, where its schema does not say enough."""
    if column.adapter is None:
        return [f"{column.name} {number}" for number in range(VARIANTS)], True
    try:
        schema = column.adapter.json_schema()
        texts = [answer_json(schema, f"made up for {column.name}", number) for number in range(VARIANTS)]
    except (PydanticUserError, ValueError, TypeError):
        return [None] * VARIANTS, False
    try:
        return [column.adapter.validate_json(text) for text in texts], True
    except (ValidationError, ValueError, TypeError):
        return [from_json(text) for text in texts], False


def _check_names(pipeline: Pipeline, named: frozenset[str] | set[str]) -> None:
    known = {column.name for column in pipeline.columns}
    for name in sorted(named - known):
        raise ConfigError(
            f"there is no column {name!r} (columns: {', '.join(column.name for column in pipeline.columns)})"
        )
