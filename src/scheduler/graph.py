"""The columns of a pipeline as a validated graph: who needs whom, in which order, how far each is from the
end.

Decides whether the columns fit together, once, before anything is spent. It knows names and indexes only:
no functions, no types, no values. A column may need input fields and other columns, by name; what its
condition needs counts as needed too. Cell columns and group columns mix freely.

The order is Kahn's (1962), ties broken by the order of definition, so that the same pipeline always gives
the same decisions. Reachability is one integer per column, used as a set of bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from heapq import heapify, heappop, heappush
from math import isfinite
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from ..errors import PipelineError
from ..values import is_number, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ..values import ResourceKey

__all__ = ["MAX_COLUMNS", "ColumnSpec", "Graph", "Scope"]

MAX_COLUMNS: Final = 255
"""Columns that one pipeline may have: a count of needs must fit into one byte."""


class Scope(StrEnum):
    """What one task of a column covers: a single row, or all rows of a row group at once."""

    CELL = "cell"
    GROUP = "group"


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """What the scheduler must know of a column.

    ``needs`` and ``when_needs`` name input fields or columns that must be there, ``optional`` names that
    are used if something provides them. ``resource`` is None for local work. Columns share a lane by
    ``weight``.
    """

    name: str
    needs: tuple[str, ...] = ()
    resource: ResourceKey | None = None
    scope: Scope = Scope.CELL
    when_needs: tuple[str, ...] = ()
    weight: float = 1.0
    optional: tuple[str, ...] = ()

    def required(self) -> tuple[str, ...]:
        """Names without which the column cannot start, each once."""
        return tuple(dict.fromkeys(self.needs + self.when_needs))


@dataclass(frozen=True, slots=True)
class Graph:
    """A pipeline that can run. Columns are indexes 0, 1, 2, ... in order of definition.

    ``parents`` and ``children`` are columns; ``order`` is topological. ``input_fields`` must be in every
    row, ``optional_fields`` may be. ``path_length[i]`` counts the columns on the longest way from i to an
    end, i included.
    """

    specs: tuple[ColumnSpec, ...]
    index: Mapping[str, int]
    parents: tuple[tuple[int, ...], ...]
    children: tuple[tuple[int, ...], ...]
    order: tuple[int, ...]
    input_fields: frozenset[str]
    optional_fields: frozenset[str]
    path_length: tuple[int, ...]
    reach: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.specs)

    def descendants(self, column: int) -> tuple[int, ...]:
        """All that needs ``column``, directly or not, in topological order."""
        return self.reach[column]

    @classmethod
    def build(cls, specs: Iterable[ColumnSpec], *, input_fields: Iterable[str] | None = None) -> Graph:
        """Check the columns and connect them. ``input_fields`` are the fields of the rows, None if not
        known yet.

        Raises PipelineError that names the column and the cure: no or too many columns, one name twice, a
        column named like an input field, a weight that is none, a condition on a group column, an unknown
        parameter, a cycle.
        """
        columns = tuple(specs)
        fields = None if input_fields is None else frozenset(input_fields)
        index = _index(columns)
        for spec in columns:
            _check_column(spec, index, fields)
        parents = tuple(_parents(spec, index) for spec in columns)
        children = _children(parents)
        order = _order(columns, parents, children)
        required = {name for spec in columns for name in spec.required()}
        optional = {name for spec in columns for name in spec.optional}
        return cls(
            specs=columns,
            index=MappingProxyType(index),
            parents=parents,
            children=children,
            order=order,
            input_fields=frozenset(required - index.keys()),
            optional_fields=frozenset(optional - required - index.keys()),
            path_length=_path_lengths(children, order),
            reach=_reach(children, order),
        )


def _index(columns: Sequence[ColumnSpec]) -> dict[str, int]:
    if not columns:
        raise PipelineError("the pipeline has no columns: decorate at least one function with @pipeline.column")
    if len(columns) > MAX_COLUMNS:
        raise PipelineError(
            f"the pipeline has {len(columns)} columns, {MAX_COLUMNS} are the most, and column "
            f"{columns[MAX_COLUMNS].name!r} is the first too many: let one column return several values, or "
            "split the pipeline"
        )
    index: dict[str, int] = {}
    for position, spec in enumerate(columns):
        if index.setdefault(spec.name, position) != position:
            raise PipelineError(f"column {spec.name!r} is defined twice: give one of the two another name with name=")
    return index


def _check_column(spec: ColumnSpec, index: Mapping[str, int], fields: frozenset[str] | None) -> None:
    if not (is_number(spec.weight) and isfinite(spec.weight) and spec.weight > 0):
        raise PipelineError(
            f"column {spec.name!r}: weight must be a finite number above zero, not {shown(spec.weight)}"
        )
    if spec.scope is Scope.GROUP and spec.when_needs:
        raise PipelineError(
            f"column {spec.name!r}: when= decides per row, and a group column runs once for all rows of a "
            "group; put the condition into the function, or into a column before it"
        )
    if fields is None:
        return
    if spec.name in fields:
        raise PipelineError(
            f"column {spec.name!r} has the name of an input field: rename the column with name=, or drop the field"
        )
    for name in spec.required():
        if name not in index and name not in fields:
            raise PipelineError(_unknown(spec, name, [*index, *sorted(fields)]))


def _unknown(spec: ColumnSpec, name: str, known: Sequence[str]) -> str:
    others = [other for other in known if other != spec.name]
    where = f"parameter {name!r}" if name in spec.needs else f"parameter {name!r} of when="
    close = get_close_matches(name, others, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(others) or 'none'}"
    return f"column {spec.name!r}: {where} is neither a column nor an input field; {hint}"


def _parents(spec: ColumnSpec, index: Mapping[str, int]) -> tuple[int, ...]:
    names = dict.fromkeys(spec.required() + spec.optional)
    return tuple(index[name] for name in names if name in index)


def _children(parents: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    children: list[list[int]] = [[] for _ in parents]
    for column, above in enumerate(parents):
        for parent in above:
            children[parent].append(column)
    return tuple(tuple(below) for below in children)


def _order(
    columns: Sequence[ColumnSpec], parents: Sequence[Sequence[int]], children: Sequence[Sequence[int]]
) -> tuple[int, ...]:
    missing = [len(above) for above in parents]
    free = [column for column, count in enumerate(missing) if not count]
    heapify(free)
    order: list[int] = []
    while free:
        column = heappop(free)
        order.append(column)
        for child in children[column]:
            missing[child] -= 1
            if not missing[child]:
                heappush(free, child)
    if len(order) < len(columns):
        raise PipelineError(_cycle(columns, parents, set(range(len(columns))) - set(order)))
    return tuple(order)


def _cycle(columns: Sequence[ColumnSpec], parents: Sequence[Sequence[int]], stuck: set[int]) -> str:
    """Name one cycle. Every stuck column needs a stuck one, so following the needs must come round."""
    path = [min(stuck)]
    while path[-1] not in path[:-1]:
        path.append(next(parent for parent in parents[path[-1]] if parent in stuck))
    names = [columns[column].name for column in path[path.index(path[-1]) :]]
    if len(names) == 2:
        return f"column {names[0]!r} needs itself ({names[0]} -> {names[0]}): rename the parameter or the column"
    return (
        f"column {names[0]!r} needs itself in the end: {' -> '.join(names)} (each needs the next); "
        "break the cycle by dropping one of these parameters"
    )


def _path_lengths(children: Sequence[Sequence[int]], order: Sequence[int]) -> tuple[int, ...]:
    lengths = [1] * len(children)
    for column in reversed(order):
        lengths[column] += max((lengths[child] for child in children[column]), default=0)
    return tuple(lengths)


def _reach(children: Sequence[Sequence[int]], order: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    bits = [0] * len(children)
    for column in reversed(order):
        for child in children[column]:
            bits[column] |= bits[child] | 1 << child
    return tuple(tuple(other for other in order if reached >> other & 1) for reached in bits)
