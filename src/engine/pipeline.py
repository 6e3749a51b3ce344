"""The public `Pipeline`: functions become columns, and their parameters say what they need."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload

from ..errors import PipelineError
from ..scheduler.graph import Graph
from .column import Column, ColumnOptions, column_name, define_column, is_identifier
from .signatures import function_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Column", "ColumnOptions", "Pipeline", "one_column"]

F = TypeVar("F", bound="Callable[..., object]")

UNNAMED = "value"


class Pipeline:
    """A named set of columns. Runs are called after it unless they get a name of their own."""

    def __init__(self, name: str) -> None:
        if not is_identifier(name):
            raise PipelineError(f"a pipeline needs an identifier for its name, such as 'tickets_v2', not {name!r}")
        self.name = name
        self._columns: dict[str, Column] = {}

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns in order of definition, which is that of the graph's indexes."""
        return tuple(self._columns.values())

    @overload
    def column(self, fn: F, /, **options: Unpack[ColumnOptions]) -> F: ...

    @overload
    def column(self, fn: None = None, /, **options: Unpack[ColumnOptions]) -> Callable[[F], F]: ...

    def column(
        self,
        fn: Callable[..., object] | None = None,
        /,
        *,
        model: str | None = None,
        scope: Literal["cell", "group"] = "cell",
        when: Callable[..., object] | None = None,
        name: str | None = None,
        weight: float = 1.0,
        tokens: int | Callable[..., int] | None = None,
        max_output_tokens: int | None = None,
        timeout: float | None = 600.0,
        version: str = "1",
        output: Any = None,
    ) -> object:
        """Make a column of a function and return the function; a decorator with or without parentheses.

        ``model`` ("provider/model") has the engine hold a request's lease before it calls the function;
        without it the work is local, and blocking functions run in threads. ``scope="group"`` calls the
        function once per row group, with lists, for a list; a field that only some rows have is None in the others.
        ``when`` is a plain function of columns and fields; where it says no, the cell and all that need it
        are skipped. ``weight`` is the column's share of its resource. ``tokens`` estimates the input tokens
        of a call (a number, or a function of some of the column's parameters), ``max_output_tokens`` bounds
        those of its answer. ``timeout`` is in seconds per attempt. ``version`` is raised when the function
        changes. ``output`` replaces the return type.

        Raises PipelineError that names the column and the cure.
        """

        def define(function: Callable[..., object]) -> Callable[..., object]:
            column = define_column(
                function, name=column_name(function, name), model=model, scope=scope, when=when, weight=weight,
                tokens=tokens, max_output_tokens=max_output_tokens, timeout=timeout, version=version, output=output,
            )  # fmt: skip
            if column.name in self._columns:
                raise PipelineError(
                    f"column {column.name!r} is defined twice: give one of the two another name with name="
                )
            self._columns[column.name] = column
            return function

        return define if fn is None else define(fn)

    def rewritten(self, body: Callable[[Column], Callable[..., object]]) -> Pipeline:
        """Return this pipeline with ``body(column)`` in the place of each column's function; all else stays.

        For tracing and testing around functions: the new one is called by name with the column's parameters, and is
        a coroutine function exactly if ``column.is_async``.
        """
        return self.remade(lambda column: replace(column, fn=body(column)))

    def remade(self, make: Callable[[Column], Column]) -> Pipeline:
        """Return this pipeline with ``make(column)`` in the place of each column, under the same names and needs."""
        copy = Pipeline(self.name)
        copy._columns = {column.name: make(column) for column in self.columns}
        return copy

    def compile(self, input_fields: Iterable[str] | None = None) -> Graph:
        """Check the columns together, and against the fields of the rows if known. Raises PipelineError."""
        return Graph.build((column.spec for column in self.columns), input_fields=input_fields)


def one_column(fn: Callable[..., object], **options: Unpack[ColumnOptions]) -> tuple[Pipeline, str | None]:
    """Return a pipeline with ``fn`` as its only column, and the field that a row which is no mapping becomes.

    That is the only required parameter, or the only one at all; None if there are several. Options are those of
    :meth:`Pipeline.column`. A function without a name, such as a lambda, makes the column ``value``.
    """
    if options.get("name") is None and callable(fn) and not is_identifier(function_name(fn)):
        options["name"] = UNNAMED
    pipeline = Pipeline(column_name(fn, options.get("name")))
    pipeline.column(fn, **options)
    column = pipeline.columns[0]
    names = column.spec.required() or column.spec.optional
    return pipeline, names[0] if len(names) == 1 else None
