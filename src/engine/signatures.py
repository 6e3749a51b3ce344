"""What a column's function says about itself: its parameters, whether it is awaited, what it returns.

Reads functions, lambdas, bound methods, `functools.partial` and callable objects, decorated ones included,
and refuses what cannot be called by parameter name. Runs nothing. Return types may be text (as all are
under `from __future__ import annotations`); they are looked up where the function was written.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from enum import Enum
from functools import partial
from types import SimpleNamespace, UnionType
from typing import (
    Annotated,
    Any,
    ForwardRef,
    Literal,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from pydantic import BaseModel

from ..errors import PipelineError

__all__ = [
    "Parameters",
    "awaited_type",
    "describe_type",
    "function_name",
    "is_awaited",
    "is_generator",
    "read_parameters",
    "return_type",
    "signature",
]

Function = Callable[..., object]

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+\b")


@dataclasses.dataclass(frozen=True, slots=True)
class Parameters:
    """The names that a function is called with. Optional ones keep their default if nothing provides them."""

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, required ones first."""
        return self.required + self.optional


# From Python 3.14 on, annotations that are no text are looked up when somebody asks for them. What is imported for type
# checkers only stays as it is written then, as everything does under ``from __future__ import annotations``.
if sys.version_info >= (3, 14):
    from annotationlib import Format, get_annotations

    def signature(function: Function) -> inspect.Signature:
        """Return the signature of ``function``, whatever its annotations name. Raises TypeError, ValueError."""
        return inspect.signature(function, annotation_format=Format.FORWARDREF)

    def _annotations(source: Function | type[object]) -> Mapping[str, Any]:
        return get_annotations(source, format=Format.FORWARDREF)
else:

    def signature(function: Function) -> inspect.Signature:
        """Return the signature of ``function``, whatever its annotations name. Raises TypeError, ValueError."""
        return inspect.signature(function)

    def _annotations(source: Function | type[object]) -> Mapping[str, Any]:
        return inspect.get_annotations(source)


def function_name(function: Function) -> str | None:
    """The name that a function was defined with; None for objects that have none."""
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__name__", None)


def read_parameters(function: Function, what: str) -> Parameters:
    """Return the parameters of ``function``. Raises PipelineError that begins with ``what`` and names the cure.

    Whatever a partial has bound is bound: it is neither needed nor replaced.
    """
    bound: Mapping[str, object] = getattr(function, "keywords", {}) if _is_partial(function) else {}
    try:
        parameters = signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise PipelineError(
            f"{what} has no readable parameters: wrap it in a function that names what it needs"
        ) from error
    required: list[str] = []
    optional: list[str] = []
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
            raise PipelineError(
                f"{what} takes {stars}{parameter.name}: parameters name what a column needs; write each of them out"
            )
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise PipelineError(f"{what} takes {parameter.name!r} by position only: remove the '/' from its parameters")
        if parameter.name not in bound:
            (required if parameter.default is parameter.empty else optional).append(parameter.name)
    return Parameters(tuple(required), tuple(optional))


def is_awaited(function: Function) -> bool:
    """Whether a call gives a coroutine. Others may block, and run in worker threads."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(_call_of(function))


def is_generator(function: Function) -> bool:
    """Whether a call gives values one by one, synchronously or not."""
    return any(
        check(target)
        for check in (inspect.isgeneratorfunction, inspect.isasyncgenfunction)
        for target in (function, _call_of(function))
    )


def return_type(function: Function, what: str) -> object:
    """Return what ``function`` is annotated to return; Any if it is not.

    Raises PipelineError that begins with ``what`` if the annotation names something that is not there.
    """
    source = inspect.unwrap(_call_of(function))
    annotation = _annotations(source).get("return", Any)
    try:
        return _resolve(annotation, source)
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        raise PipelineError(
            f"{what}: its return type {annotation!r} cannot be looked up ({error}): define it at module level, or "
            "give it as output="
        ) from error


def awaited_type(annotation: object) -> object | None:
    """What an awaitable of this type gives, None for types that are not awaited."""
    return get_args(annotation)[-1] if get_origin(annotation) in (Awaitable, Coroutine) else None


def _is_partial(function: Function) -> bool:
    return isinstance(function, partial)


def _call_of(function: Function) -> Function:
    """The function in which the work is written."""
    while isinstance(function, partial):
        function = function.func
    if inspect.isroutine(function) or inspect.isclass(function) or hasattr(function, "__wrapped__"):
        return function
    return cast("Function", type(function).__call__)


def _resolve(annotation: object, source: Function) -> object:
    # get_type_hints reads nested text too, and takes None for NoneType.
    holder = SimpleNamespace(__annotations__={"return": annotation})
    names: dict[str, Any] = getattr(source, "__globals__", {})
    try:
        return get_type_hints(holder, names, include_extras=True)["return"]
    except NameError:
        return get_type_hints(holder, names, _local_names(source, names), include_extras=True)["return"]


def _local_names(source: Function, names: Mapping[str, Any]) -> dict[str, Any]:
    """Names that the function or the code around its definition can see, for types that are defined locally.

    Only frames of the module that defines the function count, innermost first.
    """
    found: dict[str, Any] = {}
    code, cells = getattr(source, "__code__", None), getattr(source, "__closure__", None)
    for name, cell in zip(code.co_freevars if code else (), cells or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_globals is names:
            found = {**frame.f_locals, **found}
        frame = frame.f_back
    return found


def describe_type(annotation: object, within: tuple[object, ...] = ()) -> str:
    """Write a type as text that is the same in every process: names, arguments, the fields of records.

    Two texts differ when a field or a nested type was added, removed or renamed. What only narrows a field
    (constraints, validators) is not part of it.
    """
    origin = get_origin(annotation)
    if type(origin or annotation).__name__ == "TypeAliasType":  # typing has it from Python 3.12 on
        return _describe_alias(cast("Any", origin or annotation), get_args(annotation), within)
    if origin is Annotated:
        return describe_type(get_args(annotation)[0], within)
    if origin is Literal:
        return f"Literal{get_args(annotation)!a}"
    if origin is not None:
        name = "Union" if origin in (Union, UnionType) else getattr(origin, "__name__", "?")
        inner = ", ".join(describe_type(argument, within) for argument in get_args(annotation))
        return f"{name}[{inner}]"
    if isinstance(annotation, str):
        return annotation
    if isinstance(annotation, ForwardRef):
        return annotation.__forward_arg__
    if not isinstance(annotation, type):
        return getattr(annotation, "__name__", None) or type(annotation).__name__
    kind = cast("type[object]", annotation)
    parts = [] if kind in within else _parts_of(kind, (*within, kind))
    return f"{kind.__qualname__}({', '.join(parts)})" if parts else kind.__qualname__


def _describe_alias(alias: Any, arguments: tuple[object, ...], within: tuple[object, ...]) -> str:
    """What the name of ``type Answer = ...`` stands for; the name alone inside of itself, and where nobody can say."""
    try:
        meaning = alias.__name__ if alias in within else describe_type(alias.__value__, (*within, alias))
    except NameError:
        meaning = alias.__name__
    inner = ", ".join(describe_type(argument, within) for argument in arguments)
    return f"{meaning}[{inner}]" if inner else str(meaning)


def _parts_of(kind: type[object], within: tuple[object, ...]) -> list[str]:
    """The fields of a model, dataclass or TypedDict with their types, or the members of an enum."""
    if issubclass(kind, Enum):
        return [f"{member.name}={_value(member.value)}" for member in kind]
    fields: Mapping[str, object] = {}
    if issubclass(kind, BaseModel):
        fields = {name: field.annotation for name, field in kind.model_fields.items()}
    elif dataclasses.is_dataclass(kind) or is_typeddict(kind):
        try:
            fields = get_type_hints(kind)
        except NameError:
            fields = _annotations(kind)
    return [f"{name}: {describe_type(field, within)}" for name, field in fields.items()]


def _value(value: object) -> str:
    """The value of a member, as far as it is the same in every process: a set has no order, most objects an address."""
    if isinstance(value, (set, frozenset)):
        return f"{{{', '.join(sorted(map(ascii, cast('frozenset[object]', value))))}}}"
    said = ascii(value)
    return type(value).__qualname__ if _ADDRESS.search(said) else said
