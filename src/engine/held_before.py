"""Cells that were held when the earlier run ended wait on, instead of being ready at once (V4, D6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..scheduler.tasks import Task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..salvage.salvage import Salvage
    from ..scheduler.frontier import Frontier
    from ..scheduler.tasks import Ready
    from .restore import HeldCell
    from .values import ColumnPlan

__all__ = ["HeldBefore"]


class HeldBefore:
    """Holds them again: a cell when its row comes in, a group's task when its group is whole."""

    __slots__ = ("_frontier", "_groups", "_plans", "_salvage")

    def __init__(self, plans: Sequence[ColumnPlan], frontier: Frontier, salvage: Salvage[Task]) -> None:
        self._plans = plans
        self._frontier = frontier
        self._salvage = salvage
        self._groups: dict[Task, tuple[HeldCell, float]] = {}

    def take_from(self, ready: list[Ready], held: Mapping[int, HeldCell], group: int, now: float) -> None:
        """Of a row of ``group`` the cells ``held`` wait on; those that are ``ready`` are taken out there."""
        for column, before in held.items():
            if self._plans[column].group:
                self._groups[Task(column, group)] = (before, now + before.wait_s)
        others: list[Ready] = []
        for task in ready:
            cell = held.get(task[0])
            if cell is None or self._plans[task[0]].group:
                others.append(task)
            else:
                self._hold(Task(*task), cell, now + cell.wait_s, now)
        ready[:] = others

    def group(self, task: Task, now: float) -> bool:
        """Whether ``task``, which has become ready, waits on instead."""
        before = self._groups.pop(task, None)
        if before is None:
            return False
        self._hold(task, *before, now)
        return True

    def _hold(self, task: Task, cell: HeldCell, until: float, now: float) -> None:
        self._frontier.hold(task)
        self._salvage.restore(task, self._plans[task.column].lane, cell.history, until, now)
