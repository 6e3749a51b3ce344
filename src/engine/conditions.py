"""Arguments for column bodies and their conditions, from the fields and values of a row."""

from __future__ import annotations

import traceback
from inspect import isawaitable, iscoroutine
from typing import TYPE_CHECKING

from ..salvage.classify import Failure, message_of
from ..salvage.kinds import FailureKind
from ..values import writable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .values import ColumnPlan, OpenRow

__all__ = ["INPUT", "arguments_of", "arguments_of_all", "condition_holds"]

INPUT = -1
"""The place of a parameter that an input field provides, instead of a column's index."""


def arguments_of(sources: Iterable[tuple[str, int]], optional: frozenset[str], row: OpenRow) -> dict[str, object]:
    """Keyword arguments of a body over ``row``. An optional parameter that the row lacks is left to its default."""
    fields, values = row.fields, row.values
    arguments: dict[str, object] = {}
    for name, column in sources:
        if column != INPUT:
            arguments[name] = values[column]
        elif name not in optional or name in fields:
            arguments[name] = fields[name]
    return arguments


def arguments_of_all(
    sources: Iterable[tuple[str, int]], optional: frozenset[str], rows: Sequence[OpenRow]
) -> dict[str, object]:
    """The same of a group body: a list each, in the order of ``rows``; None for one that lacks what others have."""
    arguments: dict[str, object] = {}
    for name, column in sources:
        if column != INPUT:
            arguments[name] = [row.values[column] for row in rows]
        elif name not in optional:
            arguments[name] = [row.fields[name] for row in rows]
        elif any(name in row.fields for row in rows):
            arguments[name] = [row.fields.get(name) for row in rows]
    return arguments


def condition_holds(plan: ColumnPlan, row: OpenRow) -> bool | Failure:
    """What the column's ``when`` says of ``row``; a Failure of kind bug when it raised."""
    condition = plan.column.when_fn
    assert condition is not None
    try:
        answer = condition(**arguments_of(plan.when_arguments, plan.optional, row))
        holds = bool(answer)
    except Exception as error:
        return Failure(
            FailureKind.BUG,
            f"when= raised {type(error).__name__}: {message_of(error)}",
            error_type=type(error).__name__,
            traceback=writable("".join(traceback.format_exception(error))),
        )
    if answer is not holds and isawaitable(answer):
        if iscoroutine(answer):
            answer.close()
        return Failure(FailureKind.BUG, f"when= gave a {type(answer).__name__}: it has to answer at once")
    return holds
