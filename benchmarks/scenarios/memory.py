"""What a long run keeps: rows streamed in and out, up to a million, in a process of their own.

What the processes do is in ``benchmarks/memory_child.py``, which imports little: a quick look starts seven of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..measure import Case, Effort, Plan, Sample, Scenario, at_most
from ..memory_child import MIB, WAYS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["SCENARIO"]

ROOT = Path(__file__).resolve().parents[2]
GOAL_MIB = 150.0
GOAL_ROWS = 1_000_000


def cases(plan: Plan) -> Iterator[Case]:
    """Each way in memory, and the first of them on disk as well, and at several sizes up to a million rows.

    What is measured is CPU time and memory, so several children may run at once. All begin with the first case.
    """
    usual = plan.effort.pick(50, 2_000, 50_000)
    wanted = [(usual, way, False) for way in WAYS] + [(usual, WAYS[0], True)]
    if plan.effort is Effort.FULL:  # the longest first
        wanted = [(GOAL_ROWS, WAYS[0], False), *wanted, (usual // 10, WAYS[0], False), (usual // 10, WAYS[0], True)]
    named = {f"{rows} rows, {way}{', SQLite' * durable}": (way, rows, durable) for rows, way, durable in wanted}
    asked = {name: one for name, one in named.items() if plan.wants(name)}
    with ThreadPoolExecutor(plan.jobs) as children:
        found = {name: children.submit(_child, *one) for name, one in asked.items()}
        for name, (_, rows, _) in asked.items():
            yield Case(name, partial(_samples, rows, found[name]), runs=1)


def _child(way: str, rows: int, durable: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store.db") if durable else ""
        command = [sys.executable, "-m", "benchmarks.memory_child", way, str(rows), store]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return found


def _samples(rows: int, child: Future[dict[str, float]]) -> Iterable[Sample]:
    found = child.result()
    yield Sample("CPU per row", "us", found["cpu_s"] / rows * 1e6, noisy=True)
    yield Sample("rows missing", "", rows - found["seen"], at_most(0))
    if "peak" in found:
        goal = at_most(GOAL_MIB) if rows == GOAL_ROWS else None
        yield Sample("memory before the first request", "MiB", found["first"] / MIB, goal)
        yield Sample("memory at most", "MiB", found["peak"] / MIB, goal)


SCENARIO = Scenario("memory", "Resident memory and CPU time while rows are streamed in and out.", cases)
