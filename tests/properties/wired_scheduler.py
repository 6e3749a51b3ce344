"""The scheduler's machines wired as the engine wires them, without anything else of it: no values, slots or time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headgate.scheduler.dispatcher import Dispatcher
from headgate.scheduler.frontier import Frontier
from headgate.scheduler.graph import ColumnSpec, Graph, Scope
from headgate.scheduler.tasks import CellState, Progress, Task

if TYPE_CHECKING:
    from tests.properties.reference_scheduler import Column

__all__ = ["Fast"]


def graph_of(columns: list[Column]) -> Graph:
    """The same pipeline as the scheduler gets it: a condition needs what its column would need."""
    specs: list[ColumnSpec] = []
    for number, column in enumerate(columns):
        names = tuple(f"c{parent}" for parent in column.parents)
        needs, when_needs = ((), names) if column.conditional else (names, ())
        scope = Scope.GROUP if column.group else Scope.CELL
        specs.append(ColumnSpec(f"c{number}", needs, scope=scope, when_needs=when_needs, weight=float(column.weight)))
    return Graph.build(specs)


@dataclass
class Fast:
    """The machines under test, wired as the engine wires them. ``verdict`` is what a condition says of a cell."""

    columns: list[Column]
    group_size: int
    finish_siblings: bool
    verdicts: list[str]
    running: list[Task] = field(default_factory=list[Task])
    held: list[Task] = field(default_factory=list[Task])
    cancelled: list[Task] = field(default_factory=list[Task])

    def __post_init__(self) -> None:
        graph = graph_of(self.columns)
        self.frontier = Frontier(graph, finish_siblings=self.finish_siblings)
        self.dispatcher = Dispatcher()
        for number, column in enumerate(self.columns):
            self.dispatcher.add_flow(number, column.lane, weight=float(column.weight), rank=graph.path_length[number])

    def follow(self, progress: Progress) -> None:
        """What the frontier concluded, and what conditions make of it."""
        todo = deque((progress,))
        while todo:
            step = todo.popleft()
            for task in step.cancel:
                self._cancel(task)
            for task in map(Task._make, step.ready):
                if self.frontier.task_state(task) != CellState.READY:
                    continue
                match self.verdict(task):
                    case "no":
                        todo.append(self.frontier.skip(task))
                    case "breaks":
                        todo.append(self.frontier.fail(task, "bug"))
                    case _:
                        self.push(task)
            for row in step.finished_rows:
                self.frontier.forget_row(row)

    def _cancel(self, task: Task) -> None:
        """Wherever it is. A cell that a broken condition beside it closed at once never came to be anywhere."""
        if self.dispatcher.discard(task):
            self.cancelled.append(task)
        for place in (self.running, self.held):
            if task in place:
                place.remove(task)
                self.cancelled.append(task)

    def verdict(self, task: Task) -> str:
        if not self.columns[task.column].conditional:
            return "yes"
        return self.verdicts[(3 * task.column + task.unit) % len(self.verdicts)]

    def push(self, task: Task, *, again: bool = False) -> None:
        order = task.unit * self.group_size if self.columns[task.column].group else task.unit
        self.dispatcher.push(task, order, again=again)

    def next(self, lane: str) -> Task | None:
        task = self.dispatcher.pop(lane)
        if task is not None:
            self.running.append(task)
        return task
