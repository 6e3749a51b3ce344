"""What no schedule can beat, and what a played one wasted: computed from the durations alone."""

from __future__ import annotations

from heapq import heapify, heapreplace
from itertools import accumulate
from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .stage import Column, Flow, Played, Span

__all__ = ["idle_share", "in_order", "in_use", "makespan_bound", "percentile", "rows_bound"]


def makespan_bound(flows: Sequence[Flow], slots: Mapping[str, int], group_rows: int = 1) -> float:
    """Seconds that any schedule needs. Three bounds, of which the largest holds:

    - The critical path of each row: the longest chain of columns that need each other cannot be shortened by slots.
    - Work over slots, for each model: the sum of its tasks' durations takes that long even if no slot is ever idle.
    - The same with its ends: before a model's first task ends what that task needs, and after its last one what needs
      it; so the shortest way to the model and the shortest way from it come on top of its work.
    """
    longest, ready_at, work, before, after = 0.0, 0.0, dict[str, float](), dict[str, float](), dict[str, float]()
    for flow in flows:
        units = _units(flow, group_rows)
        for column, first in units:
            work[column.model] = work.get(column.model, 0.0) + column.seconds(first)
        for row in range(flow.rows):
            head, tail = _ways(flow.columns, row, group_rows)
            for column in _needed(flow.columns, row):
                ready_at = flow.starts_at + head[column.name]
                whole = ready_at + column.seconds(_first(column, row, group_rows)) + tail[column.name]
                longest = max(longest, whole)
                before[column.model] = min(before.get(column.model, ready_at), ready_at)
                after[column.model] = min(after.get(column.model, tail[column.name]), tail[column.name])
    by_model = (before[model] + seconds / slots[model] + after[model] for model, seconds in work.items())
    return max(longest, *by_model)


def rows_bound(flow: Flow, slots: int, counts: Iterable[int]) -> list[float]:
    """When so many rows can be complete at the earliest, on one model's ``slots``.

    Whichever rows they are, all their cells must have been done: the ``k`` rows with the least work take their work
    over the slots, and the quickest row takes at least its longest chain. A depth-first schedule comes near both.
    """
    work = sorted(sum(column.seconds(row) for column in _needed(flow.columns, row)) for row in range(flow.rows))
    chains = sorted(_longest_chain(flow.columns, row) for row in range(flow.rows))
    sums = list(accumulate(work))
    return [max(sums[count - 1] / slots, chains[count - 1]) for count in counts]


def in_order(tasks: Iterable[tuple[float, float]], slots: int) -> list[float]:
    """When each of ``tasks`` (arrival and duration in seconds) begins if ``slots`` serve them strictly one by one.

    In order of arrival this is first come, first served. With the short ones first it is the least that they can wait.
    """
    free_at = [0.0] * slots
    heapify(free_at)
    begins: list[float] = []
    for arrival, seconds in tasks:
        begins.append(max(arrival, free_at[0]))
        heapreplace(free_at, begins[-1] + seconds)
    return begins


def idle_share(played: Played, flows: Sequence[Flow], slots: Mapping[str, int], model: str) -> float:
    """The share of slot seconds of ``model`` in which a slot was idle although a task that could have run was not.

    A task could run from the end of the last task that it needs, and the first ones of a row from the start of its
    flow: rows that were not let in yet count. So a window of open rows that is too small shows here as well. Work over
    slot seconds until the last start, when all that was left was running.
    """
    mine = [span for span in played.spans if _column(flows, span).model == model]
    changes: list[tuple[float, int, int]] = []  # time, change of what runs, change of what could run and does not
    ended = {(span.flow, span.column, row): span.ended for span in played.spans for row in span.rows}
    for span in mine:
        needs = _column(flows, span).after
        waits = [ended.get((span.flow, name, row), 0.0) for name in needs for row in span.rows]
        since = max(waits, default=flows[span.flow].starts_at)
        changes += [(since, 0, 1), (span.began, 1, -1), (span.ended, -1, 0)]
    changes.sort()
    wasted = running = waiting = 0
    lost = last = 0.0
    for at, run, wait in changes:
        wasted = min(slots[model] - running, waiting)
        lost += max(0, wasted) * (at - last)
        running, waiting, last = running + run, waiting + wait, at
    whole = slots[model] * max(span.began for span in mine)
    return lost / whole if whole else 0.0


def in_use(spans: Iterable[Span], each_s: float) -> tuple[list[float], list[float]]:
    """How many tasks ran at once: the mean of every ``each_s`` seconds, and when those began."""
    busy: dict[int, float] = {}
    for span in spans:
        for number in range(int(span.began / each_s), int(span.ended / each_s) + 1):
            overlap = min(span.ended, (number + 1) * each_s) - max(span.began, number * each_s)
            busy[number] = busy.get(number, 0.0) + max(0.0, overlap)
    numbers = range(max(busy, default=0) + 1)
    return [number * each_s for number in numbers], [busy.get(number, 0.0) / each_s for number in numbers]


def percentile(values: Iterable[float], share: float) -> float:
    """The least value that ``share`` of all are not above."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


def _units(flow: Flow, group_rows: int) -> list[tuple[Column, int]]:
    """Every task of a flow: its column and its (first) row."""
    return [
        (column, row)
        for row in range(flow.rows)
        for column in _needed(flow.columns, row)
        if not column.group or row % group_rows == 0
    ]


def _needed(columns: Sequence[Column], row: int) -> list[Column]:
    return [column for column in columns if column.when is None or column.when(row)]


def _first(column: Column, row: int, group_rows: int) -> int:
    return row - row % group_rows if column.group else row


def _ways(columns: Sequence[Column], row: int, group_rows: int) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of the longest chain before each column of ``row``, and of the longest after it. Parents come first."""
    head: dict[str, float] = {}
    tail = dict.fromkeys((column.name for column in columns), 0.0)
    by_name = {column.name: column for column in columns}

    def own(column: Column) -> float:
        return column.seconds(_first(column, row, group_rows))

    for column in columns:
        head[column.name] = max((head[name] + own(by_name[name]) for name in column.after), default=0.0)
    for column in reversed(columns):
        for name in column.after:
            tail[name] = max(tail[name], tail[column.name] + own(column))
    return head, tail


def _longest_chain(columns: Sequence[Column], row: int) -> float:
    head, _ = _ways(columns, row, 1)
    return max(head[column.name] + column.seconds(row) for column in _needed(columns, row))


def _column(flows: Sequence[Flow], span: Span) -> Column:
    return next(column for column in flows[span.flow].columns if column.name == span.column)
