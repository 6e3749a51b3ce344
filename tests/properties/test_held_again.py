"""What was held when a run ended comes back after a restart: not too early, and not all in one moment (V4, D6)."""

from __future__ import annotations

from math import inf
from random import Random

import anyio
from hypothesis import given
from hypothesis import strategies as st

import headgate
from headgate.engine.restore import LONGEST_WAIT_S, restore_row
from headgate.salvage import FailureKind, Salvage, SalvagePolicy
from headgate.salvage.backoff import ceiling_s
from headgate.storage import Batch, HeldRecord, MemoryStore, RowRecord, StoredRow
from headgate.storage.codec import encode, stored_form
from headgate.testing import run_virtual

POLICY = SalvagePolicy()
WALL = 1.7e9


def width_s(tries: int) -> float:
    """The time over which tasks that failed so often are spread."""
    return ceiling_s(max(1, tries), base_s=POLICY.base_s, cap_s=POLICY.cap_s)


def history(tries: int) -> dict[str, object]:
    return {"counts": {str(FailureKind.RATE_LIMITED): tries}}


def held_for_s(not_before: float, wall_now: float) -> float:
    """How long a cell waits that was held until then, by the clock of the process that comes up."""
    record = RowRecord(0, "0", b"digest", b"{}")
    held = HeldRecord(0, "a", "rate_limited", not_before, 1, encode(history(1)))
    restored = restore_row(record, StoredRow(record, (), (held,)), (), {"a": 0}, wall_now)
    return restored.held[0].wait_s


def released_at(waits: list[tuple[float, int]], now: float, seed: int) -> dict[int, float]:
    """When tasks are let go that wait so long and failed so often, on a lane where nothing else is in the way."""
    salvage: Salvage[int] = Salvage(rng=Random(seed))
    for task, (wait_s, tries) in enumerate(waits):
        salvage.restore(task, "lane", history(tries), now + wait_s, now)
    released: dict[int, float] = {}
    while len(released) < len(waits):
        at = salvage.next_tick(now)
        assert now <= at < inf
        now, before = at, len(released)
        for task in salvage.due(now, fresh_work=False):
            released[task] = now
            salvage.succeeded(task, "lane", now)
        assert len(released) > before, "nothing comes, though it is time"
        salvage.check()
    return released


@given(
    waits=st.lists(st.tuples(st.floats(-1e5, 3e3), st.integers(0, 40)), min_size=1, max_size=60),
    now=st.floats(0, 1e6),
    seed=st.integers(0, 99),
)
def test_v4_held_tasks_come_back_not_before_their_time_and_spread(
    waits: list[tuple[float, int]], now: float, seed: int
) -> None:
    """V4: each after its own time, by at most one backoff of as many failures as it has had."""
    released = released_at(waits, now, seed)
    for task, (wait_s, tries) in enumerate(waits):
        earliest = max(now, now + wait_s)
        assert earliest <= released[task] <= earliest + width_s(tries) + 1e-6
    assert released == released_at(waits, now, seed), "the same seed, the same decisions"


@given(tries=st.integers(0, 12), wait_s=st.sampled_from([-1e6, -1.0, 0.0, 300.0]), seed=st.integers(0, 99))
def test_a_restart_is_no_stampede(tries: int, wait_s: float, seed: int) -> None:
    """However many are overdue, or were held until the same moment: in no tenth of the width do very many come."""
    many = 200
    times = sorted(released_at([(wait_s, tries)] * many, 50.0, seed).values())
    tenth_s = width_s(tries) / 10
    most = max(sum(at <= other < at + tenth_s for other in times) for at in times)
    assert most <= many / 4
    assert times[-1] - times[0] >= 0.8 * width_s(tries)


@given(until=st.floats(-1e9, 1e9), jump=st.floats(-1e9, 1e9))
def test_a_clock_that_jumped_costs_no_row_and_no_age(until: float, jump: float) -> None:
    """A not-before time counts for what it says, within bounds: wherever the wall clock stands."""
    wait_s = held_for_s(WALL + until, WALL + jump)
    assert 0.0 <= wait_s <= LONGEST_WAIT_S
    if 0 <= until - jump <= LONGEST_WAIT_S:
        assert abs(wait_s - (until - jump)) < 1e-3


def test_held_rows_of_a_resumed_run_are_asked_for_one_after_the_other() -> None:
    """D6, V4: with the engine: 60 cells that a rate limit held until one moment, after a restart long since."""
    rows, asked = 60, list[float]()

    async def main() -> headgate.RunReport:
        store = MemoryStore(clock=lambda: WALL)
        pipeline = headgate.Pipeline("tickets")

        @pipeline.column(model="acme/m")
        async def answer(row: int) -> int:
            asked.append(anyio.current_time())
            return row

        async with headgate.Engine(store=store, seed=1) as engine:
            run = await engine.start(pipeline, 0)
            await run.wait()
        handle = await store.open_run("tickets", {})
        records = [RowRecord(row, str(row), *reversed(stored_form({"row": row}))) for row in range(rows)]
        held = [HeldRecord(row, "answer", "rate_limited", 0.0, 1, encode(history(5))) for row in range(rows)]
        await handle.commit(Batch(rows=tuple(records), held=tuple(held)))
        async with headgate.Engine(limits={"*": {"concurrency": 100}}, store=store, seed=1) as engine:
            run = await engine.start(pipeline, rows)
            return await run.wait()

    assert run_virtual(main).done == rows
    assert len(asked) == rows
    most = max(sum(at <= other < at + 1.0 for other in asked) for at in asked)
    assert most <= rows / 4, "at most a few in any second, of the 16 over which five failures spread them"
