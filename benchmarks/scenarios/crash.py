"""``kill -9`` at random instants, and again: what was said to be done stays, and what is paid for twice was in flight.

A program with the whole engine in it runs 8 requests at once on each of the durable stores, which wait for the disk.
It is killed at a random time, begun again on the same store, killed again, and in the end left alone. Each request is
noted outside of the process before it is sent. A cell is in flight from its request until its result is committed.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from headgate.storage import CellStatus

from ..crash_child import COLUMNS, SLOTS
from ..measure import Case, Effort, Sample, Scenario, at_least, at_most
from ..stores import durable, open_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from headgate.storage import RunStore

    from ..measure import Plan
    from ..stores import Kind

__all__ = ["SCENARIO"]

ROOT: Final = Path(__file__).resolve().parents[2]
LONGEST_LIFE_S: Final = 0.4


def cases(plan: Plan) -> Iterator[Case]:
    """A kill or two of SQLite, or several of each store."""
    kills, rows = plan.effort.pick(1, 2, 7), plan.effort.pick(40, 150, 450)
    for kind in durable() if plan.effort is Effort.FULL else islice(durable(), 1):
        yield Case(f"{kind.name}, {kills} kills", partial(_crashes, kind, kills, rows, plan.seed), runs=1)


def _crashes(kind: Kind, kills: int, rows: int, seed: int) -> Iterable[Sample]:
    rng = random.Random(seed)
    said: set[int] = set()
    lost = in_flight = 0
    with tempfile.TemporaryDirectory() as folder, kind.at_a_new_place() as address:
        store, requests = open_store(address), Path(folder) / "requests"
        killed = 0
        for _ in range(kills):
            dead, done = _life(address, requests, rows, rng.uniform(0.05, LONGEST_LIFE_S))
            said |= done
            killed += dead
            cells = _stored(store)
            lost += len(said - _whole(cells))
            in_flight += len(_account(requests).keys() - cells)
        asked_of_said = {cell: count for cell, count in _account(requests).items() if cell[1] in said}
        dead, done = _life(address, requests, rows, None)
        assert not dead, "the last life was to go on to the end"
        account = _account(requests)
        again = sum(account[cell] - count for cell, count in asked_of_said.items())
        repeated = account.total() - len(account)
        yield Sample("rows done", "", len(_whole(_stored(store))), at_least(rows))
        yield Sample("kills in mid-run", "", killed)
        yield Sample("acknowledged results lost", "", lost + len(said - done), at_most(0))
        yield Sample("acknowledged results asked for again", "", again, at_most(0))
        yield Sample("requests repeated", "", repeated)
        yield Sample("requests repeated that were not in flight", "", max(0, repeated - in_flight), at_most(0))
        yield Sample(f"repeated a kill, with {SLOTS} slots", "requests", repeated / max(1, killed))


def _life(address: str, requests: Path, rows: int, seconds: float | None) -> tuple[bool, set[int]]:
    """Run the program and kill it so many seconds after its first word. Whether it was killed; the rows it was done
    with.
    """
    command = [sys.executable, "-m", "benchmarks.crash_child", address, str(requests), str(rows)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        first = child.stdout.readline()
        if seconds is not None and first:
            time.sleep(seconds)
            child.kill()
        lines = [first, *child.stdout]
        killed = child.wait() != 0
    # The last word may have been cut off.
    return killed, {int(line.split()[1]) for line in lines if line.startswith("done ") and line.endswith("\n")}


def _stored(store: RunStore) -> set[tuple[str, int]]:
    """The cells that are done in the store."""
    return {
        (cell.column, row.record.row)
        for row in store.read_rows("crash")
        for cell in row.cells
        if cell.status is CellStatus.DONE
    }


def _whole(cells: set[tuple[str, int]]) -> set[int]:
    """The rows of which every cell is there."""
    counts = Counter(row for _, row in cells)
    return {row for row, count in counts.items() if count == len(COLUMNS)}


def _account(requests: Path) -> Counter[tuple[str, int]]:
    pairs = (line.split() for line in requests.read_text(encoding="utf-8").splitlines())
    return Counter((column, int(row)) for column, row in pairs)


SCENARIO = Scenario(
    "crash", "Killed at random instants and run again: what is lost, and what is paid for twice.", cases
)
