"""One column of a pipeline: a function with everything that is known of it, checked when it is defined.

Decides whether a column can be meant by itself, and says so in one PipelineError that names the column and the cure;
what concerns all columns together is the graph's. Calls no column and makes no request.

A parameter is looked up among the columns and the input fields. One with a default is optional: it is filled in
when a column or a field of that name exists, and keeps its default otherwise. A group column is given None for the rows
that lack a field which others of the group have.
"""

from __future__ import annotations

from dataclasses import dataclass
from keyword import iskeyword
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeGuard, cast, get_args, get_origin

from pydantic import TypeAdapter
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic_core import from_json

from ..admission.values import TOKENS_MAX
from ..errors import PipelineError
from ..scheduler.graph import ColumnSpec, Scope
from ..values import ResourceKey, is_number, shown
from .signatures import (
    Parameters,
    awaited_type,
    describe_type,
    function_name,
    is_awaited,
    is_generator,
    read_parameters,
    return_type,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Column", "ColumnOptions", "column_name", "define_column", "is_identifier"]


class ColumnOptions(TypedDict, total=False):
    """What :meth:`Pipeline.column` takes by name."""

    model: str | None
    scope: Literal["cell", "group"]
    when: Callable[..., object] | None
    name: str | None
    weight: float
    tokens: int | Callable[..., int] | None
    max_output_tokens: int | None
    timeout: float | None
    version: str
    output: Any


@dataclass(frozen=True, slots=True)
class Column:
    """One column, checked. ``spec`` is what the scheduler sees of it.

    ``parameters`` and ``when_parameters`` are the names that ``fn`` and ``when_fn`` are called with; those
    in ``spec.optional`` are left out when nothing provides them. ``adapter`` checks one cell's value, for a
    group column one element of its list; None takes anything. ``timeout`` is seconds per attempt, None for
    no limit.
    """

    spec: ColumnSpec
    fn: Callable[..., Any]
    is_async: bool
    parameters: tuple[str, ...]
    when_fn: Callable[..., object] | None
    when_parameters: tuple[str, ...]
    adapter: TypeAdapter[Any] | None
    output: str
    tokens: int | Callable[..., int] | None
    token_parameters: tuple[str, ...]
    max_output_tokens: int | None
    timeout: float | None
    version: str

    @property
    def name(self) -> str:
        """The column's name."""
        return self.spec.name

    def validate(self, value: object) -> object:
        """Return the value of one cell as the return type has it. Raises pydantic's ValidationError."""
        return value if self.adapter is None else self.adapter.validator.validate_python(value)

    def restore(self, payload: bytes) -> object:
        """Return the value of one cell from its stored JSON. Raises ValidationError if it does not fit the type."""
        return from_json(payload) if self.adapter is None else self.adapter.validate_json(payload)

    def estimate(self, arguments: Mapping[str, object]) -> int:
        """Return the input tokens that a call with ``arguments`` is expected to use, 0 if nobody said.

        Raises what the user's estimate raises, and TypeError if it gives no whole number from 0 to 10**12.
        """
        if not callable(self.tokens):
            return self.tokens or 0
        given = {name: arguments[name] for name in self.token_parameters if name in arguments}
        estimate: object = self.tokens(**given)
        if not _is_count(estimate):
            raise TypeError(
                f"column {self.name!r}: tokens= must give a whole number from 0 to {TOKENS_MAX}, not {estimate!r}"
            )
        return estimate


def define_column(
    fn: Callable[..., object],
    *,
    name: str,
    model: str | None,
    scope: str,
    when: Callable[..., object] | None,
    weight: float,
    tokens: int | Callable[..., int] | None,
    max_output_tokens: int | None,
    timeout: float | None,
    version: str,
    output: Any,
) -> Column:
    """Return the column that :meth:`Pipeline.column` describes; ``timeout`` is in seconds. Raises PipelineError that
    names the cure.
    """
    what = f"column {name!r}"
    if is_generator(fn):
        raise PipelineError(f"{what} is a generator: return one value, or a list of them")
    kind = _scope(scope, what)
    parameters = read_parameters(fn, what)
    condition = _condition(when, kind, what)
    annotation, is_async = _output(fn, output, what)
    spec = ColumnSpec(
        name=name,
        needs=parameters.required,
        resource=_resource(model, what),
        scope=kind,
        when_needs=condition.required,
        weight=_number(weight, "weight", what),
        optional=tuple(dict.fromkeys(parameters.optional + condition.optional)),
    )
    if max_output_tokens is not None and not (_is_count(max_output_tokens) and max_output_tokens):
        raise PipelineError(
            f"{what}: max_output_tokens must be a whole number from 1 to {TOKENS_MAX}, not {max_output_tokens!r}"
        )
    if not isinstance(cast("object", version), str):
        raise PipelineError(f'{what}: version must be text, such as "2", not {version!r}')
    return Column(
        spec=spec,
        fn=fn,
        is_async=is_async,
        parameters=parameters.names,
        when_fn=when,
        when_parameters=condition.names,
        adapter=_adapter(_element(annotation, what) if kind is Scope.GROUP else annotation, what),
        output=describe_type(annotation),
        tokens=tokens,
        token_parameters=_token_parameters(tokens, parameters, what),
        max_output_tokens=max_output_tokens,
        timeout=None if timeout in (None, inf) else _number(timeout, "timeout", what),
        version=version,
    )


def is_identifier(name: object) -> TypeGuard[str]:
    """Whether a parameter could have this name."""
    return isinstance(name, str) and name.isidentifier() and not iskeyword(name)


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= TOKENS_MAX


def column_name(fn: object, name: str | None) -> str:
    """Return ``name``, or else the name of ``fn``. Raises PipelineError if no parameter could have it."""
    if not callable(fn):
        raise PipelineError(
            f"{fn!r} is not a function: write @pipeline.column(model=...) above one, with every option by name"
        )
    found = name if name is not None else function_name(fn)
    if found is None:
        raise PipelineError(f"{fn!r} has no name that other columns could ask for: give it one with name=")
    if not is_identifier(found):
        raise PipelineError(
            f"column {found!r}: parameters of other columns must be able to name it; give it an identifier with name="
        )
    return found


def _resource(model: str | None, what: str) -> ResourceKey | None:
    if model is None:
        return None
    if not isinstance(cast("object", model), str):
        raise PipelineError(f"{what}: model must be text such as 'openai/gpt-x', not {model!r}")
    try:
        return ResourceKey.parse(model)
    except ValueError as error:
        raise PipelineError(f"{what}: model {error}") from error


def _scope(scope: str, what: str) -> Scope:
    try:
        return Scope(scope)
    except ValueError as error:
        raise PipelineError(f'{what}: scope must be "cell" or "group", not {scope!r}') from error


def _number(value: object, option: str, what: str) -> float:
    if not is_number(value) or not isfinite(value) or value <= 0:
        raise PipelineError(f"{what}: {option} must be a finite number above zero, not {shown(value)}")
    return float(value)


def _output(fn: Callable[..., object], output: Any, what: str) -> tuple[Any, bool]:
    """The type of what a call gives in the end, and whether the call is awaited for it."""
    if output is not None:
        return output, is_awaited(fn)
    annotation = return_type(fn, what)
    given = awaited_type(annotation)
    return (annotation, is_awaited(fn)) if given is None else (given, True)


def _condition(when: Callable[..., object] | None, kind: Scope, what: str) -> Parameters:
    if when is None:
        return Parameters()
    if not callable(cast("object", when)):
        raise PipelineError(f"{what}: when= must be a function of columns and fields, not {when!r}")
    if kind is Scope.GROUP:
        raise PipelineError(
            f"{what}: when= decides per row, and a group column runs once for all rows of a group; put the "
            "condition into the function, or into a column before it"
        )
    if is_awaited(when) or is_generator(when):
        raise PipelineError(f"{what}: when= must answer at once; let a column of its own await, and look at that")
    return read_parameters(when, f"{what}: when=")


def _token_parameters(tokens: object, parameters: Parameters, what: str) -> tuple[str, ...]:
    if tokens is None or _is_count(tokens):
        return ()
    if not callable(tokens) or is_awaited(tokens):
        raise PipelineError(
            f"{what}: tokens must be a whole number from 0 to {TOKENS_MAX}, or a plain function that gives one, "
            f"not {tokens!r}"
        )
    own = read_parameters(tokens, f"{what}: tokens=")
    for name in own.required:
        if name not in parameters.names:
            raise PipelineError(
                f"{what}: tokens= asks for {name!r}, and can have the column's own parameters only "
                f"({', '.join(parameters.names) or 'none'})"
            )
    return tuple(name for name in own.names if name in parameters.names)


def _element(annotation: object, what: str) -> object:
    arguments = get_args(annotation)
    if get_origin(annotation) is not list or len(arguments) != 1:
        raise PipelineError(
            f"{what} is a group column and must be annotated to return list[...], one value per row; "
            "use list[Any] to leave the values unchecked"
        )
    return arguments[0]


def _adapter(annotation: Any, what: str) -> TypeAdapter[Any] | None:
    if annotation is Any:
        return None
    try:
        return TypeAdapter(annotation)
    except (PydanticUserError, PydanticUndefinedAnnotation, TypeError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise PipelineError(
            f"{what}: pydantic cannot check its return type {annotation!r} ({reason}): return plain data, a dataclass "
            "or a pydantic model, or give output=Any to leave it unchecked"
        ) from error
