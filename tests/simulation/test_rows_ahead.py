"""How far rows are let in while one model has more to do than it can and another one too little, in virtual time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
import pytest

import headgate
from headgate.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable

SLOTS = 8
HORIZON = 2 * 2 * SLOTS
FAST_S, SLOW_S = 0.1, 1.0


class Refused(Exception):
    """As a provider says it."""

    def __init__(self) -> None:
        self.status_code = 429
        self.headers = {"retry-after": "60"}


@dataclass
class Two:
    """A fast model and a slow one, each for the rows that its condition names. When each call ended."""

    needs_fast: Callable[[int], bool] | None
    needs_slow: Callable[[int], bool] | None
    slow_refuses: bool = False
    fast_ends: list[float] = field(default_factory=list[float])
    slow_ends: list[float] = field(default_factory=list[float])
    open_rows_max: int = 0

    async def run(self, rows: int, **options: object) -> headgate.RunReport:
        pipeline = headgate.Pipeline("two")
        pipeline.column(self._fast, name="fast", model="acme/fast", when=self.needs_fast)
        pipeline.column(self._slow, name="slow", model="acme/slow", when=self.needs_slow)
        async with headgate.Engine(limits={"*": {"concurrency": SLOTS}}, seed=1) as engine:
            run = await engine.start(pipeline, rows, **options)  # type: ignore[arg-type]
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch, run)
                await run.wait()
                tasks.cancel_scope.cancel()
            return await run.wait()

    async def _fast(self, row: int) -> int:
        await anyio.sleep(FAST_S)
        self.fast_ends.append(anyio.current_time())
        return row

    async def _slow(self, row: int) -> int:
        if self.slow_refuses:
            raise Refused
        await anyio.sleep(SLOW_S)
        self.slow_ends.append(anyio.current_time())
        return row

    async def _watch(self, run: headgate.Run) -> None:
        while True:
            self.open_rows_max = max(self.open_rows_max, run.core.frontier.counts().open_rows)
            await anyio.sleep(FAST_S / 3)


@pytest.mark.parametrize("first", [0, 100, 399], ids=["first", "early", "in the middle"])
def test_t26_rows_that_wait_for_a_slow_model_keep_no_others_out(first: int) -> None:
    """Elsewhere one model in endless trouble kept the others from their rows. A slow one does no better: forty rows in
    a row that need it filled the window, and the fast model was idle for half of the time.
    """

    def slow(row: int) -> bool:
        return first <= row < first + 40

    two = Two(lambda row: not slow(row), slow)
    report = run_virtual(two.run, 800)
    assert report.done == 800
    assert len(two.fast_ends) == 760
    bound_s = 760 * FAST_S / SLOTS
    assert max(two.fast_ends) <= 1.05 * bound_s
    assert max(two.slow_ends) <= max(bound_s, 40 * SLOW_S / SLOTS + first * FAST_S / SLOTS) + SLOW_S


def test_rows_do_not_run_ahead_of_a_model_that_every_row_needs() -> None:
    """S6: it sets the pace of all rows; more open ones would cost memory and gain nothing."""
    two = Two(None, None)
    report = run_virtual(two.run, 400)
    assert report.done == 400
    assert two.open_rows_max <= HORIZON
    assert max(two.slow_ends) <= 400 * SLOW_S / SLOTS + 2 * FAST_S


def test_the_search_for_rows_that_an_idle_model_could_do_is_bounded() -> None:
    """S6: there may be none at all."""
    two = Two(lambda row: row >= 0, lambda row: row < 0)
    report = run_virtual(two.run, 2_000)
    assert report.done == 2_000
    assert two.open_rows_max <= 17 * HORIZON
    assert max(two.fast_ends) <= 1.01 * 2_000 * FAST_S / SLOTS


def test_t26_a_model_in_cooldown_for_ever_that_some_rows_need() -> None:
    """However many rows wait for it, the healthy one does all of its cells at its full rate."""

    def refused(row: int) -> bool:
        return row % 2 == 0

    two = Two(lambda row: not refused(row), refused, slow_refuses=True)
    report = run_virtual(lambda: two.run(4_000, patience=300.0))
    assert (report.done, report.held) == (2_000, 2_000)
    assert max(two.fast_ends) <= 1.02 * 2_000 * FAST_S / SLOTS
