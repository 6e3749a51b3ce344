"""The start of a run is spread over turns of the loop, as everything else is (T25): counted, not timed."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest

import headgate
from headgate.engine import fingerprints, function_text
from headgate.engine.dispatch import STARTS_PER_STEP
from headgate.engine.fingerprints import COLUMNS_PER_TURN
from headgate.engine.flight import Flight
from headgate.engine.intake import ROWS_PER_PULL
from headgate.engine.jobs import Job
from headgate.engine.turnstile import Ticket, Turnstile
from headgate.engine.workers import JOBS_PER_TURN, Worker, Workers
from headgate.testing.clock import run_virtual
from tests.unit.watched_turns import Turns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

LIMITS = {"*": headgate.Limits(concurrency=64)}


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    return Turns(monkeypatch)


def columns(number: int, body: Callable[..., Awaitable[int]]) -> headgate.Pipeline:
    """Independent columns of four models."""
    pipeline = headgate.Pipeline("start")
    for index in range(number):
        pipeline.column(body, name=f"c{index}", model=f"openai/gpt-{index % 4}")
    return pipeline


async def at_once(row: int) -> int:
    return row


def test_t25_the_functions_of_many_columns_are_read(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    """What 64 columns do was read in one turn once, each time with a look at the whole file: 120 ms."""
    read = [0]
    text = function_text.function_text

    def counted(function: Callable[..., object]) -> str:
        read[0] += 1
        return text(function)

    monkeypatch.setattr(fingerprints, "function_text", counted)
    report = turns.watch(lambda: headgate.arun(columns(40, at_once), 3, limits=LIMITS, seed=1), lambda: read[0])
    assert report.done == 3
    assert read[0] == 40
    assert turns.most == COLUMNS_PER_TURN


def test_a_long_file_is_not_looked_through_for_each_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes of the syntax tree that are looked at for one function more: those around it, however long the rest."""
    seen = [0]
    nodes = ast.iter_child_nodes

    def counted(node: ast.AST) -> object:
        seen[0] += 1
        return nodes(node)

    monkeypatch.setattr(ast, "iter_child_nodes", counted)
    path = tmp_path / "long.py"
    bodies = "\n".join(f"    x = [row, {line}]" for line in range(100))
    path.write_text("\n".join(f"def f{number}(row):\n{bodies}\n    return x" for number in range(20)))
    names: dict[str, Callable[..., object]] = {}
    exec(compile(path.read_text(), path, "exec"), names)
    function_text.function_text(names["f7"])
    one = seen[0]
    assert function_text.function_text(names["f8"]).startswith("FunctionDef(name='f8'")
    assert seen[0] - one < 2_000  # of 10,000


@pytest.mark.parametrize("width", [1, 4, 64])
def test_t25_workers_begin(turns: Turns, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """Bodies that end at once: each end makes room for another, with a new worker. 64 began in a turn, with 32 ends."""
    work = [0]
    serve: Callable[[Workers[Job], Worker[Job]], Awaitable[None]] = Workers[Job]._work  # pyright: ignore[reportPrivateUsage]
    finish = Flight._finish  # pyright: ignore[reportPrivateUsage]

    async def begun(self: Workers[Job], worker: Worker[Job]) -> None:
        work[0] += 1
        await serve(self, worker)

    def ended(self: Flight, *arguments: object) -> None:
        work[0] += 1
        finish(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Workers, "_work", begun)
    monkeypatch.setattr(Flight, "_finish", ended)
    rows = 3_200 // width
    report = turns.watch(lambda: headgate.arun(columns(width, at_once), rows, limits=LIMITS, seed=1), lambda: work[0])
    assert report.done == rows
    assert turns.most <= 2 * JOBS_PER_TURN


@pytest.mark.parametrize("width", [1, 4, 64])
def test_t25_tasks_start_and_rows_come_in(turns: Turns, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """While the loop's own step does not get through, the end of a job starts one task and takes in one row at most,
    where that has but one cell. It was two of each: 96 in a turn.
    """
    started = [0]
    start = Flight.start

    def counted(self: Flight, *arguments: object) -> None:
        started[0] += 1
        start(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Flight, "start", counted)
    rows = 3_200 // width
    report = turns.watch(
        lambda: headgate.arun(columns(width, at_once), rows, limits=LIMITS, seed=1), lambda: started[0]
    )
    assert report.done == rows
    assert STARTS_PER_STEP <= turns.most <= STARTS_PER_STEP + JOBS_PER_TURN
    come = Turns(monkeypatch)
    come.run(columns(width, at_once), rows, lambda run: run.core.tally.accepted)
    assert come.most <= ROWS_PER_PULL + JOBS_PER_TURN * (width == 1)
    assert (come.most > ROWS_PER_PULL) == (width == 1), "or rows of one cell would not keep up"


def test_ends_and_beginnings_go_by_turns() -> None:
    """Neither keeps the other waiting until it is through."""
    order: list[str] = []

    async def ends(turnstile: Turnstile) -> None:
        ticket = Ticket()
        if not turnstile.enter(ticket):
            await turnstile.wait(ticket)
        order.append("end")

    async def main() -> None:
        turnstile = Turnstile(4, 2)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(turnstile.run)
            for _ in range(20):
                tasks.start_soon(ends, turnstile)
                turnstile.begin(lambda: order.append("begin"))
            while len(order) < 40:
                before = len(order)
                await anyio.lowlevel.checkpoint()
                assert len(order) - before <= 8
            tasks.cancel_scope.cancel()

    run_virtual(main)
    for kind in ("end", "begin"):
        assert order.index(kind) <= 8
        assert order[:28].count(kind) >= 12
