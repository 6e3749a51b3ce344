"""What every store promises about reading and about its own life, case by case."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from ...errors import StoreError, UnknownRun
from ...storage.ports import Batch
from .records import done, failed, held, row, rows
from .stage import RUN, Stage, StoreMaker, staged

__all__ = ["ReadingContract"]

_NAMES = (
    *("a", "A", "a b", "a/b", "a/../b", "..", ".", "", " ", "-", "%2F", "t\u00e4glich", "ta\u0308glich", "\U0001f4be"),
    *("x" * 300, "x" * 299 + "y", "CON", "a\0b", "a'b\"c;--", "\\", "*?"),
)


class ReadingContract(StoreMaker):
    """Tests of what is read, and of opening and closing."""

    @staged
    async def test_reading_changes_nothing(self, stage: Stage) -> None:
        """T43: results could be read once, and each way of claiming them lost some."""
        handle = await stage.begin(Batch(rows=rows(0, 1).rows, cells=(done(0, "a"),)))
        for _ in range(3):
            assert await stage.rows() == await handle.load(0, 9)
            assert await stage.payloads() == {(0, "a"): b"1"}
        await handle.commit(Batch(cells=(done(1, "a"),)))
        assert len(await stage.payloads()) == 2

    @staged
    async def test_rows_come_in_order_whatever_the_batch(self, stage: Stage) -> None:
        """Positions, not the order of writing; no row twice, none left out."""
        order = [position * 7 % 23 for position in range(23)]
        handle = await stage.open()
        for position in order:
            await handle.commit(Batch(rows=(row(position),), cells=(done(position, "a", b"%d" % position),)))
        for batch in (1, 4, 22, 23, 24):
            found = await stage.rows(batch=batch)
            assert [stored.record.row for stored in found] == list(range(23))
            assert [stored.cells[0].payload for stored in found] == [b"%d" % position for position in range(23)]
        assert [stored.record.row for stored in await handle.load(5, 9)] == [5, 6, 7, 8]
        assert await handle.load(9, 9) == []
        assert await handle.load(23, 99) == []

    @staged
    async def test_reading_goes_on_while_others_write(self, stage: Stage) -> None:
        """A reader sees whole batches, and what was there before it began."""
        handle = await stage.begin(rows(*range(12)))
        reading = stage.other.read_rows(RUN, batch=2)
        seen = [next(reading)]
        for position in range(12):
            await handle.commit(Batch(cells=(done(position, "a"), done(position, "b"))))
        seen.extend(reading)
        assert [stored.record.row for stored in seen] == list(range(12))
        assert {len(stored.cells) for stored in seen} <= {0, 2}

    @staged
    async def test_rows_are_found_by_their_ids(self, stage: Stage) -> None:
        """Those that are unknown are left out."""
        handle = await stage.begin(rows(0, 2, 1))
        assert await handle.find(["id2", "id7", "id0", "id2"]) == {"id2": 2, "id0": 0}
        assert await handle.find([]) == {}

    @staged
    async def test_a_run_that_nobody_opened_is_unknown(self, stage: Stage) -> None:
        """Said at once, not when the first row is asked for; and asking makes nothing."""
        await stage.begin(rows(0))
        other = stage.other
        for _ in range(2):
            readers = (other.read_rows, other.read_info, other.read_spent, other.count_outcomes, other.read_learned)
            for read in readers:
                with pytest.raises(UnknownRun):
                    read("nobody's")

    @staged
    async def test_runs_are_listed_until_they_are_swept(self, stage: Stage) -> None:
        """By name, whether they go on, were cut off or have ended."""
        assert await stage.runs() == ()
        for name in ("b", "a", "c"):
            handle = await stage.begin(rows(0), run=name)
            if name != "c":
                await handle.finish("completed" if name == "a" else "held")
        assert await stage.runs() == ("a", "b", "c")
        await stage.other.sweep(keep_s=0.0)
        assert await stage.runs() == ("b", "c")
        await stage.open(run="a")
        assert await stage.runs() == ("a", "b", "c")

    @staged
    async def test_a_run_can_be_read_as_if_columns_were_renewed(self, stage: Stage) -> None:
        """D7: what a resume would find is known before it is opened; reading it so changes nothing."""
        first, second = {"a": "1", "b": "1"}, {"a": "2", "b": "1"}
        handle = await stage.store.open_run(RUN, first)
        await handle.commit(Batch(rows=rows(0).rows, cells=(done(0, "a", b"1"), done(0, "b", b"2"))))
        await handle.commit(Batch(rows=rows(1).rows, held=(held(1, "a"), held(1, "b"))))
        for _ in range(2):
            new = await stage.rows(renewed={"a": "2", "b": "1", "c": "3"})
            assert [(cell.column, cell.payload) for one in new for cell in one.cells] == [("b", b"2")]
            assert [record.column for one in new for record in one.held] == ["b"]
        before = await stage.rows()
        again = await stage.store.open_run(RUN, second, renewed=("a",))
        await again.commit(Batch(cells=(done(0, "a", b"3"),)))
        assert {name: list(marks) for name, marks in (await stage.info()).aside.items()} == {"a": ["1"]}
        back = await stage.rows(renewed=first)
        assert [one.cells for one in back] == [one.cells for one in before]
        assert [one.cells for one in await stage.rows(renewed={"a": "3"})] == [before[0].cells[1:], ()]
        assert [one.cells[0].payload for one in (await stage.rows())[:1]] == [b"3"]

    @staged
    async def test_what_a_run_has_gained_is_counted(self, stage: Stage) -> None:
        """T51: by outcomes on record, and by nothing else. Renewing a column is no loss, trying again is no gain."""
        handle = await stage.store.open_run(RUN, {"a": "1", "b": "1"})
        assert await stage.outcomes() == 0
        await handle.commit(Batch(rows=rows(0, 1).rows, held=(held(1, "a"),), learned=b"1"))
        assert await stage.outcomes() == 0
        batch = Batch(cells=(done(0, "a"), failed(0, "b")))
        for _ in range(2):
            await handle.commit(batch)
            assert await stage.outcomes() == 2
        again = await stage.store.open_run(RUN, {"a": "2", "b": "1"}, renewed=("a",))
        assert await stage.outcomes() == 2
        await again.commit(Batch(cells=(done(0, "a", b"2"),)))
        assert await stage.outcomes() == 3
        await again.commit(Batch(reopened=((0, "b"),)))
        assert await stage.outcomes() == 2
        await again.commit(Batch(cells=(failed(0, "b"),)))
        assert await stage.outcomes() == 3

    @staged
    async def test_an_empty_place_has_no_runs(self, stage: Stage) -> None:
        """Before anything was written a store can be asked all the same."""
        with pytest.raises(UnknownRun):
            stage.store.read_info(RUN)
        await stage.store.probe()
        await stage.store.probe()
        with pytest.raises(UnknownRun):
            stage.other.read_rows(RUN)

    @staged
    async def test_every_name_is_a_run_of_its_own(self, stage: Stage) -> None:
        """T54: what was told apart by something else than its name was swapped. Case, accents and dots count."""
        for number, name in enumerate(_NAMES):
            await stage.begin(Batch(rows=(row(number),), cells=(done(number, "a"),)), run=name)
        for number, name in enumerate(_NAMES):
            assert await stage.payloads(name) == {(number, "a"): b"1"}
            assert (await stage.info(name)).run == name
        assert await stage.runs() == tuple(sorted(_NAMES))

    @staged
    async def test_a_handle_says_how_the_run_was_when_it_was_opened(self, stage: Stage) -> None:
        """What comes later does not change it."""
        handle = await stage.open()
        before = handle.info
        await handle.commit(rows(0))
        await stage.open(columns={"c": "1"})
        assert handle.info == before
        assert before.rows == 0

    @staged
    async def test_after_closing_every_call_says_so(self, stage: Stage) -> None:
        """No call hangs, and none does anything."""
        handle, other = await stage.begin(rows(0)), await stage.open("another run")
        await handle.aclose()
        await handle.aclose()
        for call in (handle.commit(rows(1)), handle.load(0, 1), handle.find([]), handle.finish("completed")):
            with pytest.raises(StoreError):
                await call
        await other.commit(rows(0))
        await stage.store.aclose()
        await stage.store.aclose()
        for late in (stage.store.open_run(RUN, {}), stage.store.probe(), stage.store.sweep(keep_s=0.0)):
            with pytest.raises(StoreError):
                await late
        assert (await stage.info()).rows == 1

    @staged
    async def test_closing_finishes_what_was_handed_in(self, stage: Stage) -> None:
        """D1: a commit that was begun is acknowledged or refused, never left without an answer."""
        handle = await stage.begin(rows(*range(20)))
        acknowledged: list[int] = []

        async def commit(place: int) -> None:
            try:
                await handle.commit(Batch(cells=(done(place, "a"),)))
            except StoreError:
                return
            acknowledged.append(place)

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for place in range(20):
                    tasks.start_soon(commit, place)
                await checkpoint()
                await stage.store.aclose()
        if self.durable:
            stage.store = self.open_store(stage.place)
            there = {cell.row for stored in stage.store.read_rows(RUN) for cell in stored.cells}
            await stage.store.aclose()
            assert there >= set(acknowledged)
