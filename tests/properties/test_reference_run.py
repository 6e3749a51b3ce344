"""A whole run does what the plain scheduler does: intake, feeder, dispatch and flight around the core, with slots.

Random pipelines run for real, in virtual time. Whatever comes into the core of the run (rows, ends of tasks), the
scheduler of ``reference_scheduler.py`` is told as well, in the same order, and it is asked for each task that leaves
its line. In every quiet moment it is looked whether all that may run does run, and nothing else: S4 (no slot idles),
S6, T22 (a bid a lane, and only where no slot is free), and that rows came as far as the window lets them. How many
tasks and rows one step takes is drawn, too: what is left to a later one must not get lost.
"""

from __future__ import annotations

import random
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from math import ceil
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st

import headgate
from headgate.engine import intake, steps
from headgate.engine.core import RunCore
from headgate.scheduler.dispatcher import Dispatcher
from headgate.scheduler.tasks import CellState, Task
from headgate.testing.clock import run_virtual
from tests.properties.reference_scheduler import Column, Reference, Step
from tests.properties.test_reference_scheduler import pipelines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

SOURCES = ("at once", "as wanted", "pauses")


class Refused(Exception):
    """What a client raises for a request that will never be accepted."""

    status_code = 400


@dataclass(frozen=True)
class Case:
    """``slots`` by lane; lane "n" is local work if it has none there. ``seed`` says which tasks end, and how."""

    columns: list[Column]
    slots: dict[str, int]
    group_size: int
    rows: int
    most_open: int
    workers: int
    source: str
    starts: tuple[int, int]
    pulls: tuple[int, int]
    finish_siblings: bool
    verdicts: list[str]
    seed: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    slots = {"m": draw(st.integers(1, 4)), "n": draw(st.sampled_from((0, 1, 3)))}
    columns = [
        column if slots[column.lane] else replace(column, lane=f"local:c{number}")
        for number, column in enumerate(draw(pipelines()))
    ]
    return Case(
        columns=columns,
        slots=slots,
        group_size=draw(st.sampled_from((1, 3, 4))),
        rows=draw(st.integers(0, 24)),
        most_open=draw(st.sampled_from((4, 9, 100))),
        workers=draw(st.sampled_from((1, 2, 5, 100))),
        source=draw(st.sampled_from(SOURCES)),
        starts=draw(st.sampled_from(((32, 2), (2, 1), (1, 1)))),
        pulls=draw(st.sampled_from(((32, 2), (2, 1), (1, 0)))),
        finish_siblings=draw(st.booleans()),
        verdicts=draw(st.lists(st.sampled_from(("yes", "yes", "no", "breaks")), min_size=1, max_size=7)),
        seed=draw(st.integers(0, 10**6)),
    )


@dataclass
class Beside:
    """The plain scheduler beside the one of a run. ``bodies`` are the tasks whose bodies are at work."""

    case: Case
    bodies: dict[Task, anyio.Event] = field(default_factory=dict[Task, anyio.Event])
    ends: dict[Task, str] = field(default_factory=dict[Task, str])
    come: int = 0

    def __post_init__(self) -> None:
        self.plain = Reference(self.case.columns, self.case.group_size, self.case.finish_siblings)
        self.closed: dict[tuple[int, int], CellState] = {}

    def verdict(self, task: Task) -> str:
        if not self.case.columns[task.column].conditional:
            return "yes"
        return self.case.verdicts[(3 * task.column + task.unit) % len(self.case.verdicts)]

    def follow(self, event: Step) -> None:
        todo = [event]
        for step in todo:
            self.plain.forget(step.unwanted)
            for task in step.ready:
                if task not in self.plain.tasks():
                    continue
                verdict = self.verdict(task)
                if verdict == "yes":
                    self.plain.put(task)
                else:
                    end = CellState.SKIPPED if verdict == "no" else CellState.FAILED
                    todo.append(self.plain.end(task, {task.unit: end}))
        self.closed.update(self.plain.state)

    def ended(self, task: Task, outcomes: dict[int, CellState]) -> None:
        if task in self.plain.running:  # otherwise nobody wants it any more
            self.plain.running.remove(task)
            self.follow(self.plain.end(task, outcomes))

    def listen(self, patches: ExitStack) -> None:
        """Hear of what comes into the core, and of every task that leaves its line."""
        add_row, seal, succeeded, failed = RunCore.add_row, RunCore.seal, RunCore.succeeded, RunCore.failed
        pop = Dispatcher.pop

        def row_came(core: RunCore, row: Any, *rest: Any) -> None:
            self.come += 1
            group = core.groups.number + (not core.owed)
            self.follow(self.plain.add_row(row.record.row, group))
            add_row(core, row, *rest)

        def sealed(core: RunCore) -> None:
            seal(core)
            number = core.groups.number
            if number in self.plain.unsealed:
                self.follow(self.plain.seal(number))

        def done(core: RunCore, task: Task, results: Any, *rest: Any) -> None:
            succeeded(core, task, results, *rest)
            states = {r.row: CellState.FAILED if r.failure else CellState.DONE for r in results}
            self.ended(task, states)

        def lost(core: RunCore, task: Task, *rest: Any, **more: Any) -> None:
            failed(core, task, *rest, **more)
            self.ended(task, dict.fromkeys(self.plain.rows_of(task), CellState.FAILED))

        def popped(dispatcher: Dispatcher, lane: str) -> Task | None:
            task = pop(dispatcher, lane)
            assert task == self.plain.next(lane.removeprefix("t/")), "another task's turn"
            return task

        for owner, name, new in (
            (RunCore, "add_row", row_came),
            (RunCore, "seal", sealed),
            (RunCore, "succeeded", done),
            (RunCore, "failed", lost),
            (Dispatcher, "pop", popped),
        ):
            patches.enter_context(patch.object(owner, name, new))

    # What is so in any quiet moment.

    def check(self, run: headgate.Run) -> None:
        case, plain, core = self.case, self.plain, run.core
        core.check()
        bids = set(plain.running) - self.bodies.keys()
        assert self.bodies.keys() <= set(plain.running), "nobody wants it any more"
        lanes = {column.lane for column in case.columns}
        local = [task for task in self.bodies if self.lane(task).startswith("local:")]
        held = len(self.bodies) - len(local)
        assert len(local) <= case.workers
        assert held <= case.workers + len(lanes)
        for lane in lanes:
            mine = [task for task in self.bodies if self.lane(task) == lane]
            standing = [task for task in bids if self.lane(task) == lane]
            waiting = plain.in_lane(lane)
            if lane.startswith("local:"):
                assert not standing
                assert not waiting or len(local) == case.workers
                continue
            slots = case.slots[lane]
            assert len(mine) <= slots
            assert len(standing) <= 1, "one bid a lane"
            assert not standing or len(mine) == slots, "a bid that nobody grants"
            assert not waiting or len(mine) == slots or held >= case.workers, "a slot idles"
            assert not waiting or standing or held >= case.workers, "the next release would go to nobody"
        assert len(core.rows) <= case.most_open
        if core.tally.accepted < case.rows and not (case.source == "pauses" and self.come % 5 == 0):
            self.rows_came(core)

    def rows_came(self, core: RunCore) -> None:
        """As far as the horizon lets them: up to nine tenths of it, and whole groups only."""
        case = self.case
        models = {column.lane for column in case.columns if not column.lane.startswith("local:")}
        capacity = sum(min(case.workers, case.slots[lane]) for lane in models)
        capacity += case.workers * any(column.lane.startswith("local:") for column in case.columns)
        horizon = max(1, ceil(min(2 * max(capacity, 0.5), case.most_open)))
        group = case.group_size if any(column.group for column in case.columns) else 1
        owed = core.owed if group > 1 else 0
        fits = owed or len(core.rows) + group <= case.most_open
        assert self.plain.load() > 0.9 * horizon or not fits, "rows would have had room"

    def lane(self, task: Task) -> str:
        return self.case.columns[task.column].lane

    # The run.

    def pipeline(self) -> headgate.Pipeline:
        pipeline = headgate.Pipeline("p")
        for number, column in enumerate(self.case.columns):
            needs = [f"c{parent}" for parent in column.parents]
            local = column.lane.startswith("local:")
            pipeline.column(
                made(
                    f"async def c{number}({', '.join(['row', *([] if column.conditional else needs)])})",
                    self.body(number),
                ),
                model=None if local else f"t/{column.lane}",
                scope="group" if column.group else "cell",
                weight=float(column.weight),
                output=list[Any] if column.group else Any,
                when=made(f"def when({', '.join(['row', *needs])})", self.condition(number))
                if column.conditional
                else None,
            )
        return pipeline

    def body(self, number: int) -> Callable[[Any], Any]:
        async def body(row: Any) -> object:
            rows: list[int] = row if self.case.columns[number].group else [row]
            task = Task(number, rows[0] // self.case.group_size if self.case.columns[number].group else row)
            assert rows == self.plain.rows_of(task)
            self.bodies[task] = anyio.Event()
            try:
                await self.bodies[task].wait()
            finally:
                del self.bodies[task]
            end = self.ends.pop(task)
            if end == "fails":
                raise Refused
            if not self.case.columns[number].group:
                return rows[0]
            return [Refused() if end == "mixed" and one % 2 else one for one in rows]

        return body

    def condition(self, number: int) -> Callable[[int], bool]:
        def holds(row: int) -> bool:
            verdict = self.verdict(Task(number, row))
            if verdict == "breaks":
                raise ValueError(row)
            return verdict == "yes"

        return holds

    def source(self) -> list[dict[str, object]] | AsyncIterator[dict[str, object]]:
        rows: list[dict[str, object]] = [{"row": row} for row in range(self.case.rows)]

        async def stream() -> AsyncIterator[dict[str, object]]:
            for row in rows:
                if self.case.source == "pauses" and self.come % 5 == 0:
                    await anyio.sleep(3)
                yield row

        return rows if self.case.source == "at once" else stream()


def made(signature: str, what: Callable[[Any], Any]) -> Callable[..., object]:
    """A function of that signature which hands its row to ``what``."""
    scope: dict[str, Any] = {"what": what}
    wait = "await " if signature.startswith("async") else ""
    exec(f"{signature}: return {wait}what(row)", scope)
    function: Callable[..., object] = scope[signature.removeprefix("async ").removeprefix("def ").partition("(")[0]]
    return function


async def play(case: Case) -> None:
    beside, rng = Beside(case), random.Random(case.seed)
    limits = {f"t/{lane}": {"concurrency": slots} for lane, slots in case.slots.items() if slots}
    with ExitStack() as patches:
        beside.listen(patches)
        patches.enter_context(patch.object(steps, "STARTS_PER_STEP", case.starts[0]))
        patches.enter_context(patch.object(steps, "STARTS_PER_JOB", case.starts[1]))
        patches.enter_context(patch.object(intake, "ROWS_PER_PULL", case.pulls[0]))
        patches.enter_context(patch.object(intake, "ROWS_PER_JOB", case.pulls[1]))
        async with headgate.Engine(limits=limits, seed=1) as engine:
            run = await engine.start(
                beside.pipeline(),
                beside.source(),
                group_size=case.group_size,
                finish_siblings=case.finish_siblings,
                max_open_rows=case.most_open,
                min_open_rows=1,
                max_workers=case.workers,
                local_workers=case.workers,
            )
            for _ in range(2_000):
                await anyio.sleep(0.001)  # time goes on when nothing else does
                if run.done:
                    break
                beside.check(run)
                if not beside.bodies:
                    await anyio.sleep(10)
                for task in rng.sample(sorted(beside.bodies), min(len(beside.bodies), rng.randint(1, 4))):
                    beside.ends[task] = rng.choice(("done", "done", "done", "fails", "mixed"))
                    beside.bodies[task].set()
            report = await run.wait()
    assert report.accepted == case.rows
    assert not beside.plain.tasks()
    failed = {row for (row, _), state in beside.closed.items() if state is CellState.FAILED}
    assert report.failed == len(failed)


@given(cases())
@settings(max_examples=settings().max_examples * 2)
def test_a_run_does_what_the_plain_scheduler_does(case: Case) -> None:
    """S3, S4, S6, S8: with all that stands between the core and the slots."""
    run_virtual(lambda: play(case))
