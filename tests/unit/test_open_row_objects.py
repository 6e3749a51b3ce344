"""How many objects an open row is made of: a full pass of garbage collection looks at each, in one turn of the loop."""

from __future__ import annotations

import gc
import sys

import anyio

import headgate
from headgate.testing.clock import run_virtual

FEW, MANY = 64, 640
# The row with all that is kept of it, and its record in the store. From Python 3.14 on also the dicts with names and
# numbers only, of which a row has three: before, a collection stops looking at such a dict.
OBJECTS = 2 if sys.version_info < (3, 14) else 5


def test_t25_an_open_row_that_waits_for_its_turn_is_two_objects_to_garbage_collection() -> None:
    """Rows may be open by the hundred thousand. What waits in queues is numbers, and what two packages keep of a row
    lies in one object: five objects a row once were 0.3 s in one turn.
    """
    pipeline = headgate.Pipeline("many")

    @pipeline.column(model="openai/gpt-x")
    async def body(row: int) -> int:
        await anyio.sleep(1000.0)
        return row

    async def tracked(rows: int) -> tuple[int, int]:
        async with headgate.Engine(limits={"*": headgate.Limits(concurrency=1)}, seed=1) as engine:
            run = await engine.start(pipeline, rows, max_open_rows=rows, min_open_rows=rows, max_workers=1)
            await anyio.sleep(10.0)
            opened = len(run.core.rows)
            gc.collect()  # stops tracking what holds only numbers, where it does so
            found = len(gc.get_objects())
            run.stop(grace=0.0)
            await run.wait()
        return opened, found

    run_virtual(lambda: tracked(FEW))  # what is made once, and kept
    (few, before), (many, after) = run_virtual(lambda: tracked(FEW)), run_virtual(lambda: tracked(MANY))
    assert many > few + 0.8 * (MANY - FEW)
    assert (after - before) / (many - few) < OBJECTS + 0.5  # their groups, too, are objects
