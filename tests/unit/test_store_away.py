"""A store that is away for a moment, at any call: the run goes on when it is back, and ends with its error if it stays
away. In virtual time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

import headgate
from headgate.errors import StoreError, StoreUnavailable
from headgate.events import StoreRetried
from headgate.testing import run_virtual
from tests.unit.asked import asking

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from headgate.events import Event
    from headgate.storage import Batch, RunHandle, RunInfo, StoredRow


class Absent(headgate.MemoryStore):
    """Away for so many calls of one name, in each run that is opened from then on."""

    def __init__(self) -> None:
        super().__init__()
        self.call = ""
        self.times = 0

    async def open_run(self, run: str, fingerprints: Mapping[str, str], **how: Collection[str]) -> Handle:  # type: ignore[override]
        return Handle(await super().open_run(run, fingerprints, **how), self)

    def reach(self, call: str) -> None:
        if call == self.call and self.times:
            self.times -= 1
            raise StoreUnavailable(f"{call}: nobody at home")


class Handle:
    def __init__(self, handle: RunHandle, store: Absent) -> None:
        self._handle = handle
        self._store = store

    @property
    def info(self) -> RunInfo:
        return self._handle.info

    @property
    def learned(self) -> bytes | None:
        return self._handle.learned

    async def commit(self, batch: Batch) -> None:
        self._store.reach("commit")
        await self._handle.commit(batch)

    async def load(self, first: int, last: int) -> list[StoredRow]:
        self._store.reach("load")
        return await self._handle.load(first, last)

    async def find(self, row_ids: Sequence[str]) -> dict[str, int]:
        self._store.reach("find")
        return await self._handle.find(row_ids)

    async def finish(self, status: str) -> None:
        self._store.reach("finish")
        await self._handle.finish(status)

    async def aclose(self) -> None:
        await self._handle.aclose()


def resumed(store: Absent, call: str, times: int, told: list[Event] | None = None) -> headgate.RunReport:
    """The second of two lives of a run, in which the store is away; it has more rows than the first."""

    async def main() -> headgate.RunReport:
        await headgate.arun(asking(), 5, store=store)
        store.call, store.times = call, times
        return await headgate.arun(asking(), 10, store=store, events=None if told is None else told.append)

    return run_virtual(main)


@pytest.mark.parametrize("call", ["load", "find", "commit", "finish"])
def test_t55_a_store_that_is_away_for_a_moment_ends_no_run(call: str) -> None:
    """Elsewhere "database is locked" was a final error. Here it was one while rows of a resumed run were looked up, and
    at the end of a run, whose report was gone though all of it had been done."""
    told: list[Event] = []
    report = resumed(Absent(), call, 4, told)
    assert (report.status, report.done, report.restored) == ("completed", 10, 5)
    assert sum(isinstance(event, StoreRetried) for event in told) == 4
    assert resumed(Absent(), call, 4).done == 10, "with nobody who listens"


@pytest.mark.parametrize("call", ["load", "find", "commit", "finish"])
def test_a_store_that_stays_away_ends_the_run_with_its_error(call: str) -> None:
    store = Absent()
    with pytest.raises(StoreUnavailable, match=f"{call}: nobody at home"):
        resumed(store, call, 10_000)
    assert store.times > 9_900
    store.times = 0
    assert resumed(store, call, 0).done == 10, "what it had is there"


def test_a_run_that_waits_for_a_store_can_be_stopped() -> None:
    async def main() -> None:
        store = Absent()
        await headgate.arun(asking(), 5, store=store)
        store.call, store.times = "load", 10_000
        async with headgate.Engine(store=store, seed=1) as engine:
            run = await engine.start(asking(), 10)
            await anyio.sleep(2.0)
            run.stop()
            report = await run.wait()
        assert report.status == "stopped"
        assert anyio.current_time() < 30.0

    run_virtual(main)


def test_an_error_that_no_waiting_cures_is_raised_at_once() -> None:
    class Broken(Absent):
        def reach(self, call: str) -> None:
            if call == self.call:
                self.times += 1
                raise StoreError("the disk is gone")

    store = Broken()
    with pytest.raises(StoreError, match="the disk is gone"):
        resumed(store, "load", 0)
    assert store.times == 1
