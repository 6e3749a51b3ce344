"""The frontier against a reference that recomputes everything from the rules after every event.

The reference knows no counts and no order: a dict of cells, and rules applied until nothing changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headgate.scheduler.frontier import CellState, Frontier, Progress, Task
from headgate.scheduler.graph import ColumnSpec, Graph, Scope
from headgate.scheduler.row_group import OpenRow

TERMINAL = (CellState.DONE, CellState.FAILED, CellState.SKIPPED)
Cell = tuple[int, int]
MOST_ROWS = 9


@st.composite
def column_specs(draw: st.DrawFn) -> list[ColumnSpec]:
    """Random acyclic pipelines of cell and group columns, defined in any order."""
    count = draw(st.integers(1, 6))
    specs: list[ColumnSpec] = []
    for number in range(count):
        above = draw(st.lists(st.sampled_from(range(number)), unique=True, max_size=3)) if number else []
        names = [f"c{parent}" for parent in above]
        scope = draw(st.sampled_from(Scope))
        split = draw(st.integers(0, len(names))) if scope is Scope.CELL else len(names)
        needs = ("field", *names[:split]) if draw(st.booleans()) else tuple(names[:split])
        specs.append(ColumnSpec(f"c{number}", needs, scope=scope, when_needs=tuple(names[split:])))
    return draw(st.permutations(specs))


@dataclass
class Reference:
    """Obviously right, and slow."""

    specs: list[ColumnSpec]
    finish_siblings: bool
    group_of: dict[int, int] = field(default_factory=dict[int, int])
    cells: dict[Cell, CellState] = field(default_factory=dict[Cell, CellState])
    sealed: set[int] = field(default_factory=set[int])
    held: set[Task] = field(default_factory=set[Task])

    def parents(self, column: int) -> list[int]:
        spec = self.specs[column]
        return [i for i, other in enumerate(self.specs) if other.name in (*spec.needs, *spec.when_needs)]

    def ancestors(self, column: int) -> set[int]:
        found = set(self.parents(column))
        return found.union(*(self.ancestors(parent) for parent in found))

    def is_group(self, column: int) -> bool:
        return self.specs[column].scope is Scope.GROUP

    def open(self, row: int, column: int) -> bool:
        return self.cells[row, column] not in TERMINAL

    def unlocked(self, row: int, column: int) -> bool:
        return all(self.cells[row, parent] is CellState.DONE for parent in self.parents(column))

    def rows_in(self, group: int) -> list[int]:
        return [row for row, home in self.group_of.items() if home == group]

    def tasks(self) -> set[Task]:
        """Everything that is ready, running or held."""
        found: set[Task] = set()
        for row, column in self.cells:
            if not self.is_group(column):
                if self.open(row, column) and self.unlocked(row, column):
                    found.add(Task(column, row))
            elif self.group_of[row] in self.sealed:
                rows = self.rows_in(self.group_of[row])
                decided = all(not self.open(r, column) or self.unlocked(r, column) for r in rows)
                if decided and any(self.open(r, column) for r in rows):
                    found.add(Task(column, self.group_of[row]))
        return found

    def rows_of(self, task: Task) -> list[int]:
        if self.is_group(task.column):
            return [row for row in self.rows_in(task.unit) if self.open(row, task.column)]
        return [task.unit]

    def propagate(self) -> None:
        changed = True
        while changed:
            changed = False
            for row, column in self.cells:
                states = [self.cells[row, other] for other in range(len(self.specs))]
                above = [states[parent] for parent in self.parents(column)]
                dead = CellState.FAILED in states and not self.finish_siblings
                lost = CellState.FAILED in above or CellState.SKIPPED in above
                if self.open(row, column) and (dead or lost):
                    self.cells[row, column] = CellState.SKIPPED
                    changed = True

    def state(self, row: int, column: int) -> CellState:
        if not self.open(row, column):
            return self.cells[row, column]
        task = Task(column, self.group_of[row] if self.is_group(column) else row)
        if task not in self.tasks():
            return CellState.WAITING
        return CellState.HELD if task in self.held else CellState.READY

    def finished_rows(self) -> set[int]:
        columns = range(len(self.specs))
        return {row for row in self.group_of if not any(self.open(row, column) for column in columns)}

    def finished_groups(self) -> set[int]:
        finished = self.finished_rows()
        used = self.sealed & set(self.group_of.values())
        return {group for group in used if finished.issuperset(self.rows_in(group))}


class FrontierMachine(RuleBasedStateMachine):
    """S1 each cell ends exactly once and the ledger adds up; S3 nothing is ready before what it needs."""

    @initialize(specs=column_specs(), finish_siblings=st.booleans(), in_short=st.booleans())
    def start(self, specs: list[ColumnSpec], finish_siblings: bool, in_short: bool) -> None:
        note(f"{specs}")
        self.reference = Reference(specs, finish_siblings)
        self.frontier = Frontier(Graph.build(specs), finish_siblings=finish_siblings)
        self.in_short = in_short  # as it is told and asked of almost every row and cell
        self.next_row = 0
        self.gone: set[int] = set()
        self.reasons: dict[Cell, str] = {}
        self.look_back()

    def look_back(self) -> None:
        """Remember how things stand before the next event."""
        self.cells_before = dict(self.reference.cells)
        self.tasks_before = self.reference.tasks()
        self.rows_before = self.reference.finished_rows()
        self.groups_before = self.reference.finished_groups()

    def compare(self, progress: Progress, reported: Task | None = None) -> None:
        """What the frontier says has changed is what has changed in the reference, each thing once."""
        reference = self.reference
        reference.propagate()
        tasks = reference.tasks()
        changed = {cell: state for cell, state in reference.cells.items() if self.cells_before.get(cell) != state}
        closed = {(row, column): state for row, column, state, _ in progress.closed}
        assert closed == {cell: state for cell, state in changed.items() if state in TERMINAL}
        assert len(closed) == len(progress.closed), "a cell was closed twice"
        for exact, expected in (
            (progress.ready, tasks - self.tasks_before),
            (progress.cancel, self.tasks_before - tasks - {reported}),
            (progress.finished_rows, reference.finished_rows() - self.rows_before),
            (progress.finished_groups, reference.finished_groups() - self.groups_before),
        ):
            assert set(exact) == expected
            assert len(exact) == len(expected), "something was said twice"
        reference.held &= tasks
        self.reasons |= {(row, column): reason for row, column, _, reason in progress.closed}
        self.look_back()

    def some_task(self, data: st.DataObject) -> Task:
        return data.draw(st.sampled_from(sorted(self.reference.tasks())), label="task")

    @precondition(lambda self: self.next_row < MOST_ROWS)
    @rule(group=st.integers(0, 2))
    def add_row(self, group: int) -> None:
        self.add({}, group)

    @precondition(lambda self: self.next_row < MOST_ROWS)
    @rule(data=st.data(), group=st.integers(0, 2))
    def add_row_of_an_earlier_run(self, data: st.DataObject, group: int) -> None:
        columns = st.integers(0, len(self.reference.specs) - 1)
        drawn = data.draw(st.dictionaries(columns, st.sampled_from(TERMINAL)), label="done")
        self.add(
            {
                column: state
                for column, state in drawn.items()
                if state is not CellState.DONE
                or all(drawn.get(above) is CellState.DONE for above in self.reference.ancestors(column))
            },
            group,
        )

    def add(self, done: dict[int, CellState], group: int) -> None:
        while group in self.reference.sealed:
            group += 3
        row = self.next_row
        self.next_row += 1
        self.reference.group_of[row] = group
        for column in range(len(self.reference.specs)):
            self.reference.cells[row, column] = done.get(column, CellState.WAITING)
        self.cells_before |= {(row, column): state for column, state in done.items()}
        self.compare(self.said_of_row(row, group, done))

    def said_of_row(self, row: int, group: int, done: dict[int, CellState]) -> Progress:
        if done or self.frontier.starts is None or not self.in_short:
            return self.frontier.add_row(row, group, done or None)
        self.frontier.begin(row, group, OpenRow(row))
        said = Progress()
        said.ready.extend((column, row) for column in self.frontier.starts)
        return said

    def said_of_end(self, task: Task) -> Progress:
        leaf = self.in_short and self.frontier.leaves[task.column]
        finished = self.frontier.finish_leaf(task) if leaf else None
        if finished is None:
            return self.frontier.finish(task)
        said = Progress()
        said.closed.append((task.unit, task.column, CellState.DONE, ""))
        said.finished_rows.extend([task.unit] * finished)
        return said

    @rule(data=st.data())
    def seal(self, data: st.DataObject) -> None:
        groups = sorted(set(self.reference.group_of.values()) - self.reference.sealed)
        if groups:
            group = data.draw(st.sampled_from(groups), label="group")
            self.reference.sealed.add(group)
            self.compare(self.frontier.seal_group(group))

    @precondition(lambda self: self.tasks_before)
    @rule(data=st.data(), state=st.sampled_from((CellState.DONE, *TERMINAL)))
    def report(self, data: st.DataObject, state: CellState) -> None:
        task = self.some_task(data)
        for row in self.reference.rows_of(task):
            self.reference.cells[row, task.column] = state
        match state:
            case CellState.DONE:
                self.compare(self.said_of_end(task), task)
            case CellState.FAILED:
                self.compare(self.frontier.fail(task, "poisoned"), task)
            case _:
                self.compare(self.frontier.skip(task), task)

    @precondition(lambda self: any(self.reference.is_group(task.column) for task in self.tasks_before))
    @rule(data=st.data())
    def report_group_row_by_row(self, data: st.DataObject) -> None:
        tasks = sorted(task for task in self.tasks_before if self.reference.is_group(task.column))
        task = data.draw(st.sampled_from(tasks), label="task")
        rows = self.reference.rows_of(task)
        assert self.frontier.live_rows(task) == rows
        outcomes = data.draw(st.dictionaries(st.sampled_from(rows), st.sampled_from(TERMINAL)), label="outcomes")
        for row in rows:
            self.reference.cells[row, task.column] = outcomes.get(row, CellState.DONE)
        reasons = dict.fromkeys(outcomes, "poisoned")
        self.compare(self.frontier.finish_group(task, outcomes, reasons), task)

    @precondition(lambda self: self.tasks_before)
    @rule(data=st.data())
    def hold_or_resume(self, data: st.DataObject) -> None:
        task = self.some_task(data)
        held = task in self.reference.held
        assert self.frontier.hold(task) != held
        assert not self.frontier.hold(task)
        if held:
            assert self.frontier.resume(task)
            assert not self.frontier.resume(task)
        self.reference.held ^= {task}

    @precondition(lambda self: self.reference.cells)
    @rule(data=st.data())
    def report_too_late(self, data: st.DataObject) -> None:
        """A request that could not be cancelled in time, for a row that may be forgotten already."""
        cells = sorted(cell for cell, state in self.reference.cells.items() if state in TERMINAL)
        late = [Task(column, row) for row, column in cells if not self.reference.is_group(column)]
        for group in self.reference.sealed:
            for column, spec in enumerate(self.reference.specs):
                ended = not any(self.reference.open(row, column) for row in self.reference.rows_in(group))
                if spec.scope is Scope.GROUP and ended:
                    late.append(Task(column, group))
        if not late:
            return
        task = data.draw(st.sampled_from(late), label="late")
        assert not self.frontier.hold(task)
        assert not self.frontier.resume(task)
        for late_report in (self.said_of_end, self.frontier.skip):
            self.compare(late_report(task), None)
        self.compare(self.frontier.fail(task, "late"), None)

    @precondition(lambda self: self.rows_before - self.gone)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(sorted(self.rows_before - self.gone)), label="row")
        self.frontier.forget_row(row)
        self.gone.add(row)

    @invariant()
    def states_agree(self) -> None:
        columns = range(len(self.reference.specs))
        for row in self.reference.group_of.keys() - self.gone:
            states = {column: self.reference.state(row, column) for column in columns}
            assert {column: self.frontier.state(row, column) for column in columns} == states
            unfinished = [(column, state) for column, state in states.items() if state not in TERMINAL]
            assert self.frontier.unfinished(row) == unfinished

    @invariant()
    def counts_agree(self) -> None:
        reference, frontier = self.reference, self.frontier
        frontier.check()
        tasks, states = reference.tasks(), list(reference.cells.values())
        ready = tasks - reference.held
        busy = {task.unit for task in ready if not reference.is_group(task.column)}
        open_rows = len(reference.group_of) - len(reference.finished_rows())
        counts = frontier.counts()
        assert counts.rows == len(reference.group_of)
        assert counts.open_rows == open_rows
        assert (counts.ready_tasks, counts.held_tasks) == (len(ready), len(tasks & reference.held))
        assert counts.idle_rows == open_rows - len(busy)
        assert frontier.load == len(busy) + sum(reference.is_group(task.column) for task in ready)
        assert counts.done == states.count(CellState.DONE)
        assert counts.failed == states.count(CellState.FAILED)
        assert counts.skipped == states.count(CellState.SKIPPED)

    @invariant()
    def reasons_are_true(self) -> None:
        for (row, column), reason in self.reasons.items():
            state = self.reference.cells[row, column]
            if reason == "row failed":
                columns = range(len(self.reference.specs))
                assert CellState.FAILED in [self.reference.cells[row, other] for other in columns]
                assert not self.reference.finish_siblings
            elif reason.startswith("upstream "):
                _, name, what = reason.split()
                (above,) = (i for i, spec in enumerate(self.reference.specs) if spec.name == name)
                assert above in self.reference.ancestors(column)
                assert self.reference.cells[row, above] is CellState[what.upper()]
            else:
                expected = {
                    CellState.DONE: ("",),
                    CellState.FAILED: ("poisoned",),
                    CellState.SKIPPED: ("when", "poisoned"),
                }
                assert reason in expected[state]

    def teardown(self) -> None:
        """When every task ends, so does every cell: nothing waits for ever."""
        if not hasattr(self, "frontier"):
            return
        for group in sorted(set(self.reference.group_of.values()) - self.reference.sealed):
            self.reference.sealed.add(group)
            self.compare(self.frontier.seal_group(group))
        while tasks := sorted(self.reference.tasks()):
            for row in self.reference.rows_of(tasks[0]):
                self.reference.cells[row, tasks[0].column] = CellState.DONE
            self.compare(self.frontier.finish(tasks[0]), tasks[0])
        assert self.frontier.counts().open_rows == 0
        counts = self.frontier.counts()
        assert counts.done + counts.failed + counts.skipped == counts.rows * len(self.reference.specs)


TestFrontier = FrontierMachine.TestCase
