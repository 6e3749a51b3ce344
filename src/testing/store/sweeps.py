"""What every store promises about sweeping, case by case: what ended long ago goes, nothing else."""

from __future__ import annotations

import anyio
import pytest

from ...errors import ConfigError, FencedOut, ResultExpired
from ...storage.ports import RUNNING, Batch
from .records import done, failed, held, row, rows
from .stage import RUN, Stage, StoreMaker, staged

__all__ = ["SweepContract"]

_LARGE = b'"' + b"x" * 100_000 + b'"'
_HOUR_S = 3600.0


class SweepContract(StoreMaker):
    """Tests of retention."""

    @staged
    async def test_what_ended_long_enough_ago_goes(self, stage: Stage) -> None:
        """The results can be read until then, and are expired after: not unknown, and not empty."""
        handle = await stage.begin(Batch(rows=rows(0, 1).rows, cells=(done(0, "a", _LARGE), failed(0, "b"))))
        await handle.finish("completed")
        assert (await stage.other.sweep(keep_s=_HOUR_S)).runs == ()
        assert await stage.payloads() == {(0, "a"): _LARGE, (0, "b"): None}
        assert (await stage.other.sweep(keep_s=0.0)).runs == (RUN,)
        assert (await stage.other.sweep(keep_s=0.0)).runs == ()
        await stage.reopen()
        for store in (stage.store, stage.other):
            readers = (store.read_rows, store.read_info, store.read_spent, store.count_outcomes, store.read_learned)
            for read in readers:
                with pytest.raises(ResultExpired):
                    read(RUN)

    @staged
    async def test_a_run_on_which_somebody_relies_is_spared(self, stage: Stage) -> None:
        """Whatever its age, as long as it is named; the others go."""
        for run in ("told", "to be told"):
            handle = await stage.begin(Batch(rows=rows(0).rows, cells=(done(0, "a", _LARGE),)), run=run)
            await handle.finish("completed")
        assert (await stage.other.sweep(keep_s=0.0, spare={"to be told", "unknown"})).runs == ("told",)
        assert await stage.payloads("to be told") == {(0, "a"): _LARGE}
        assert (await stage.store.sweep(keep_s=0.0)).runs == ("to be told",)

    @staged
    async def test_who_reads_while_a_run_is_swept_gets_all_of_it_or_is_told(self, stage: Stage) -> None:
        """An export is never shorter than the run without saying so."""
        handle = await stage.begin(rows(*range(5)))
        await handle.finish("completed")
        reader = stage.other.read_rows(RUN, batch=2)
        read = [next(reader).record.row]
        assert (await stage.store.sweep(keep_s=0.0)).runs == (RUN,)
        try:
            read.extend(stored.record.row for stored in reader)
        except ResultExpired:
            return
        assert read == list(range(5))

    @staged
    async def test_no_sweep_keeps_less_than_others_rely_on(self, stage: Stage) -> None:
        """A sweep that keeps results for less time than the store was told is refused, and drops nothing."""
        store = stage.retaining(_HOUR_S)
        if store is None:
            return
        handle = await stage.open(store=store)
        await handle.commit(rows(0))
        await handle.finish("completed")
        with pytest.raises(ConfigError, match="retention_s"):
            await store.sweep(keep_s=_HOUR_S - 1)
        assert store.read_info(RUN).rows == 1
        assert (await store.sweep(keep_s=_HOUR_S)).runs == ()
        assert store.read_info(RUN).rows == 1

    @staged
    async def test_t48_what_is_not_over_stays(self, stage: Stage) -> None:
        """T48: age counted from the beginning, and long jobs were evicted while they ran."""
        for status in ("held", "stopped", "stalled", "budget_exhausted"):
            handle = await stage.begin(Batch(rows=rows(0).rows, cells=(done(0, "a"),)), run=status)
            await handle.finish(status)
        running = await stage.begin(Batch(rows=rows(0, 1).rows, cells=(done(0, "a", _LARGE),), held=(held(1, "a"),)))
        before = await stage.rows()
        assert (await stage.store.sweep(keep_s=0.0)).runs == ()
        await running.finish("completed")
        again = await stage.open()
        assert (await stage.other.sweep(keep_s=0.0)).runs == ()
        assert await stage.rows() == before
        await again.commit(Batch(cells=(done(1, "a"),)))
        assert [len(await stage.payloads(run)) for run in ("held", "stopped", "stalled", RUN)] == [1, 1, 1, 2]
        assert set((await stage.other.sweep(keep_s=0.0, statuses={"held", "stopped"})).runs) == {"held", "stopped"}

    @staged
    async def test_a_run_that_was_swept_begins_anew_and_its_old_handles_are_fenced_out(self, stage: Stage) -> None:
        """D4: however late a handle of before comes, it writes nothing into the new run."""
        old = await stage.begin(Batch(rows=rows(0, 1).rows, cells=(done(0, "a", _LARGE),), learned=b'"known"'))
        await old.finish("completed")
        await stage.other.sweep(keep_s=0.0)
        for late in (old.commit(Batch(cells=(done(1, "a"),))), old.finish("completed")):
            with pytest.raises(FencedOut):
                await late
        for read in (old.load(0, 9), old.find(["id0"])):
            with pytest.raises(ResultExpired):
                await read
        new = await stage.open(columns={"z": "9"})
        assert new.info.epoch > old.info.epoch
        assert (new.info.fingerprints, new.info.rows, new.info.status) == ({"z": "9"}, 0, RUNNING)
        assert new.learned == b'"known"'
        with pytest.raises(FencedOut):
            await old.commit(rows(3))
        other = row(0, b'{"other":1}')
        await new.commit(Batch(rows=(other,), cells=(done(0, "z"),)))
        stage.crash()
        assert [(stored.record, stored.cells) for stored in await stage.rows()] == [(other, (done(0, "z"),))]

    @staged
    async def test_others_write_and_read_while_somebody_sweeps(self, stage: Stage) -> None:
        """Nothing that a run refers to is touched, and no commit is refused."""
        for number in range(6):
            handle = await stage.begin(rows(0, 1), run=f"over {number}")
            await handle.finish("completed")
        handle = await stage.begin(rows(*range(20)))
        swept: list[str] = []

        async def sweep() -> None:
            for store in (stage.other, stage.store) * 3:
                swept.extend((await store.sweep(keep_s=0.0)).runs)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sweep)
            for position in range(20):
                await handle.commit(Batch(cells=(done(position, "a", _LARGE), done(position, "b"))))
                assert len((await handle.load(0, position + 1))[position].cells) == 2
        assert sorted(swept) == [f"over {number}" for number in range(6)]
        assert await stage.payloads() == {(n, c): v for n in range(20) for c, v in (("a", _LARGE), ("b", b"1"))}

    @staged
    async def test_two_who_sweep_at_once_drop_each_run_once(self, stage: Stage) -> None:
        """What one has dropped the other passes over."""
        for number in range(8):
            await (await stage.begin(rows(0), run=str(number))).finish("completed_with_failures")
        swept: list[str] = []

        async def sweep(which: int) -> None:
            swept.extend((await (stage.store, stage.other)[which].sweep(keep_s=0.0)).runs)

        async with anyio.create_task_group() as tasks:
            for which in range(2):
                tasks.start_soon(sweep, which)
        assert sorted(swept) == [str(number) for number in range(8)]
