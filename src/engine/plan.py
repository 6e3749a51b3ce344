"""From a pipeline's columns to what the engine looks up for each task."""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING

from ..errors import ConfigError
from ..scheduler.graph import Graph, Scope
from ..scheduler.tasks import Task
from .conditions import INPUT
from .values import ColumnPlan

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from .pipeline import Column, Pipeline

__all__ = ["LOCAL", "lanes_on_the_way", "lanes_to_do_without", "plan_columns", "set_aside_tasks"]

LOCAL = "local:"
"""What the lane of a column without a model begins with."""


def plan_columns(pipeline: Pipeline, graph: Graph) -> tuple[ColumnPlan, ...]:
    """One plan per column, in the order of the graph's indexes."""
    return tuple(_plan(index, column, graph) for index, column in enumerate(pipeline.columns))


def set_aside_tasks(cells: Collection[tuple[int, str]], plans: Sequence[ColumnPlan]) -> frozenset[Task]:
    """The tasks of ``cells``, each a row and a column, also where the column works on groups of rows.

    Raises ConfigError for a column that there is not, and for what is no cell.
    """
    by_name = {plan.name: plan for plan in plans}
    tasks: set[Task] = set()
    for cell in cells:
        row, column = _cell(cell)
        plan = by_name.get(column)
        if plan is None:
            raise ConfigError(f"set_aside: there is no column {column!r} (columns: {', '.join(by_name)})")
        tasks.add(Task(plan.index, row))
    return frozenset(tasks)


def _cell(cell: tuple[int, str]) -> tuple[int, str]:
    """A row that is none would set nothing aside, and nobody would notice."""
    try:
        row, column = cell
        position = index(row)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"set_aside: a cell is a row, from 0 on, and the name of a column, not {cell!r}") from error
    if position < 0:
        raise ConfigError(f"set_aside: rows are counted from 0, so there is no row {position}")
    return position, column


def lanes_on_the_way(plans: Sequence[ColumnPlan]) -> tuple[frozenset[str], ...]:
    """For each column, the lanes that a new row has to pass until that column is done, its own included."""
    ways: dict[int, frozenset[str]] = {}

    def way(index: int) -> frozenset[str]:
        if index not in ways:
            plan = plans[index]
            before = {column for _, column in (*plan.arguments, *plan.when_arguments) if column != INPUT}
            ways[index] = frozenset({plan.lane}).union(*(way(column) for column in before))
        return ways[index]

    return tuple(way(plan.index) for plan in plans)


def lanes_to_do_without(plans: Sequence[ColumnPlan]) -> frozenset[str]:
    """Lanes that a row may pass by: each of their columns has a condition, or needs a column that has one."""
    conditional: set[int] = set()
    known = -1
    while known < len(conditional):  # once more as long as it grows: a column may be defined before what it needs
        known = len(conditional)
        for plan in plans:
            before = {column for _, column in (*plan.arguments, *plan.when_arguments) if column != INPUT}
            if plan.column.when_fn is not None or before & conditional:
                conditional.add(plan.index)
    always = {plan.lane for plan in plans if plan.index not in conditional}
    return frozenset(plan.lane for plan in plans) - always


def _plan(index: int, column: Column, graph: Graph) -> ColumnPlan:
    spec = column.spec
    resource = spec.resource

    def sources(names: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
        return tuple((name, graph.index.get(name, INPUT)) for name in names)

    return ColumnPlan(
        index=index,
        name=spec.name,
        lane=f"{LOCAL}{spec.name}" if resource is None else str(resource),
        resource=resource,
        group=spec.scope is Scope.GROUP,
        arguments=sources(column.parameters),
        when_arguments=sources(column.when_parameters),
        optional=frozenset(spec.optional),
        column=column,
    )
