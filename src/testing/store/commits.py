"""What every store promises about commits, case by case: all or nothing, the first outcome, fencing, refusals."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest

from ...errors import ConflictingResult, FencedOut, FingerprintMismatch, PayloadTooLarge, StoreError
from ...storage.ports import RUNNING, Batch, CellRecord, CellStatus, RowRecord, RunHandle, SpentRecord, StoredRow
from ...values import Usage
from .records import MAX_PAYLOAD, done, failed, held, row, rows
from .stage import COLUMNS, RUN, Stage, StoreMaker, staged

__all__ = ["CommitContract"]

_SKIPPED = CellRecord(1, "b", CellStatus.SKIPPED, None, "when")


class CommitContract(StoreMaker):
    """Tests of what is written."""

    @staged
    async def test_what_was_acknowledged_is_there_for_everybody(self, stage: Stage) -> None:
        """D1, T42, T51: rows kept in one worker's memory were missing elsewhere; "done" was said before it was."""
        for number in range(20):
            run = f"document {number}"
            handle = await stage.open(run, store=(stage.store, stage.other)[number % 2])
            await handle.commit(Batch(rows=(row(0),), cells=(done(0, "a", b"%d" % number),)))
            for store in (stage.store, stage.other):
                assert [stored.cells[0].payload for stored in store.read_rows(run)] == [b"%d" % number]

    @staged
    async def test_it_is_there_after_a_crash_and_after_closing(self, stage: Stage) -> None:
        """D1, D2, T52: a crash cost up to thousands of paid answers; here not one that was acknowledged."""
        handle = await stage.begin(rows(0, 1, 2))
        cells = (done(0, "a", usage=Usage(2, 3)), failed(0, "b", "na\u00efve \0"), _SKIPPED)
        spent = (SpentRecord(2, "a", 1, "bug", Usage(1)),)
        await handle.commit(Batch(cells=cells, held=(held(2, "a"),), spent=spent))
        stage.crash()
        for _ in range(2):
            first, second, third = await stage.rows()
            assert (*first.cells, *second.cells, *third.cells) == cells
            assert third.held == (held(2, "a"),)
            assert await stage.spent() == {"a": Usage(3, 3), "b": Usage(7)}
            await stage.reopen()

    @staged
    async def test_none_empty_and_failure_are_three_things(self, stage: Stage) -> None:
        """T46: an empty result could not be told from none."""
        handle = await stage.begin(rows(0, 1, 2))
        cells = (done(0, "a", b"null"), done(0, "b", b'""'), failed(1, "a"), _SKIPPED)
        await handle.commit(Batch(cells=cells))
        await stage.reopen()
        expected = {(0, "a"): b"null", (0, "b"): b'""', (1, "a"): None, (1, "b"): None}
        assert await stage.payloads() == expected
        assert [[cell.status.value for cell in stored.cells] for stored in await stage.rows()] == [
            ["done", "done"],
            ["failed", "skipped"],
            [],
        ]

    @staged
    async def test_the_first_outcome_wins(self, stage: Stage) -> None:
        """D3: the same again is nothing, another one is refused, and with it the whole batch."""
        handle = await stage.begin(Batch(rows=rows(0, 1).rows, cells=(done(0, "a"), failed(1, "a"))))
        before = await stage.rows()
        await handle.commit(Batch(rows=rows(0, 1).rows, cells=(done(0, "a"), failed(1, "a"))))
        for other in (done(0, "a", b"2"), done(0, "a", b"null"), failed(0, "a"), done(1, "a")):
            everything = Batch(rows=(row(2),), cells=(done(1, "b"), other), held=(held(0, "b"),), learned=b"{}")
            with pytest.raises(ConflictingResult):
                await handle.commit(everything)
        with pytest.raises(ConflictingResult):
            await handle.commit(Batch(cells=(done(0, "b", b"1"), done(0, "b", b"2"))))
        assert await stage.rows() == before
        assert (await stage.open()).learned is None

    @staged
    async def test_a_later_attempt_with_the_same_outcome_is_the_same(self, stage: Stage) -> None:
        """D3: what counts is the outcome; how often it was tried, and when, is what the first one said."""
        handle = await stage.begin(Batch(rows=rows(0).rows, cells=(done(0, "a", usage=Usage(5)),)))
        await handle.commit(Batch(cells=(CellRecord(0, "a", CellStatus.DONE, b"1", attempts=9, usage=Usage(50)),)))
        assert (await stage.rows())[0].cells == (done(0, "a", usage=Usage(5)),)
        assert await stage.spent() == {"a": Usage(5)}

    @staged
    async def test_an_old_epoch_cannot_write(self, stage: Stage) -> None:
        """D4, T44: the newest by time won, and that was a late write of a process that had been replaced."""
        old = await stage.begin(rows(0))
        new = await stage.open(store=stage.other)
        assert new.info.epoch > old.info.epoch
        late = Batch(rows=(row(1),), cells=(done(0, "a", b'"late"'),), held=(held(0, "b"),), learned=b'"late"')
        for batch in (late, Batch(cells=late.cells), Batch()):
            with pytest.raises(FencedOut):
                await old.commit(batch)
        with pytest.raises(FencedOut):
            await old.finish("completed")
        await new.commit(Batch(cells=(done(0, "a", b'"new"'),)))
        assert await stage.payloads() == {(0, "a"): b'"new"'}
        assert (await stage.info()).status == RUNNING
        assert (await stage.open()).learned is None

    @staged
    async def test_an_opening_that_is_refused_fences_nobody(self, stage: Stage) -> None:
        """D4: the columns that have changed are named, and the one who works goes on."""
        handle = await stage.begin(rows(0))
        with pytest.raises(FingerprintMismatch, match="'b'"):
            await stage.open(columns={"a": "1", "b": "2", "new": "1"}, store=stage.other)
        await handle.commit(Batch(cells=(done(0, "a"),)))
        assert (await stage.info()).fingerprints == COLUMNS

    @staged
    async def test_columns_are_added_and_kept(self, stage: Stage) -> None:
        """An opening with other columns: those that are new come last, none goes away."""
        await stage.begin(rows(0))
        handle = await stage.open(columns={"new": "n1"})
        assert list(handle.info.fingerprints) == ["a", "b", "new"]
        await handle.commit(Batch(cells=(done(0, "new"), done(0, "a"))))
        assert [cell.column for cell in (await handle.load(0, 1))[0].cells] == ["a", "new"]

    @staged
    async def test_tokens_of_every_attempt_are_on_record_once(self, stage: Stage) -> None:
        """D5: a batch that comes twice counts once, the same number in another epoch is another attempt."""
        attempts = Batch(spent=(SpentRecord(0, "a", 1, "bug", Usage(10, 1)), SpentRecord(0, "a", 2, "bug", Usage(1))))
        for _ in range(2):
            handle = await stage.begin(rows(0))
            await handle.commit(attempts)
            await handle.commit(attempts)
        assert await stage.spent() == {"a": Usage(22, 2)}

    @staged
    async def test_held_cells_and_their_times_live_until_the_outcome(self, stage: Stage) -> None:
        """D6: kept over a restart to the last digit; a late hold does not reopen a cell that has ended."""
        handle = await stage.begin(rows(0, 1))
        await handle.commit(Batch(held=(held(0, "a", 1.0), held(0, "b", 1e9 + 1 / 3), held(1, "b"))))
        await handle.commit(Batch(held=(held(0, "a", 1763e6 + 0.1),)))
        stage.crash()
        handle = await stage.open()
        before = [stored.held for stored in await handle.load(0, 9)]
        assert before == [(held(0, "a", 1763e6 + 0.1), held(0, "b", 1e9 + 1 / 3)), (held(1, "b"),)]
        await handle.commit(Batch(cells=(done(0, "a"),), unheld=((1, "b"), (1, "a"))))
        await handle.commit(Batch(held=(held(0, "a"),)))
        assert [stored.held for stored in await stage.rows()] == [(held(0, "b", 1e9 + 1 / 3),), ()]

    @staged
    async def test_only_what_an_earlier_epoch_ended_without_a_value_is_reopened(self, stage: Stage) -> None:
        """D3: so a repeated batch changes nothing. What was spent stays on record."""
        again = Batch(reopened=((0, "a"), (0, "b"), (0, "unknown"), (7, "a")))
        cells = (done(0, "a"), failed(0, "b"))
        handle = await stage.begin(rows(0))
        await handle.commit(Batch(cells=cells))
        await handle.commit(again)
        assert [stored.cells for stored in await stage.rows()] == [cells]
        handle = await stage.open()
        whole = replace(again, cells=(failed(0, "b", "another"),))
        for _ in range(2):
            await handle.commit(whole)
            assert [stored.cells for stored in await stage.rows()] == [(done(0, "a"), failed(0, "b", "another"))]
            assert (await stage.spent())["b"] == Usage(14)

    @staged
    async def test_repeated_extension(self, stage: Stage) -> None:
        """D8, T53: extending 100 rows to 110 and then to 150 gave 130."""
        for upto in (100, 110, 150):
            handle = await stage.begin(rows(*range(upto)))
            await handle.finish("completed")
            await stage.reopen()
            assert (await stage.info()).rows == upto
        assert [stored.record for stored in await stage.rows()] == list(rows(*range(150)).rows)

    @staged
    async def test_another_row_at_its_place_is_refused(self, stage: Stage) -> None:
        """What a row is, is its id and its content; the same again is nothing."""
        handle = await stage.begin(rows(0, 1))
        twice = RowRecord(5, "id0", row(0).digest, row(0).data)
        for wrong in (row(1, b'{"x":1}'), RowRecord(1, "other", row(1).digest, row(1).data), twice):
            with pytest.raises(FingerprintMismatch):
                await handle.commit(Batch(rows=(row(2), wrong)))
        with pytest.raises(FingerprintMismatch):
            await handle.commit(Batch(rows=(row(3), RowRecord(4, "id3", b"", b"{}"))))
        await handle.commit(rows(1, 0))
        assert [stored.record for stored in await stage.rows()] == [row(0), row(1)]

    @staged
    async def test_what_the_run_does_not_have_is_refused(self, stage: Stage) -> None:
        """D9: a cell of an unknown row or column, and with it the whole batch; then the run goes on."""
        handle = await stage.begin(rows(0))
        for cell in (done(7, "a"), done(0, "unknown")):
            for batch in (Batch(cells=(done(0, "b"), cell)), Batch(held=(held(cell.row, cell.column),))):
                with pytest.raises(StoreError) as caught:
                    await handle.commit(batch)
                assert not caught.value.retryable
        await handle.commit(Batch(rows=(row(7),), cells=(done(7, "a"),), unheld=((9, "a"), (0, "unknown"))))
        assert await stage.payloads() == {(7, "a"): b"1"}

    @staged
    async def test_large_values_come_back_and_too_large_ones_are_refused(self, stage: Stage) -> None:
        """D9: up to the limit to the byte; beyond it nothing of the batch is written."""
        handle = await stage.begin(rows(*range(6)))
        sizes = (MAX_PAYLOAD, 65_535, 65_536, 65_537, 3)
        values = {(place, "a"): b'"' + b"x" * (size - 2) + b'"' for place, size in enumerate(sizes)}
        cells = tuple(done(place, column, value) for (place, column), value in values.items())
        await handle.commit(Batch(cells=cells))
        await handle.commit(Batch(cells=cells))
        with pytest.raises(ConflictingResult):
            await handle.commit(Batch(cells=(done(0, "a", values[0, "a"].replace(b"x", b"y")),)))
        large = b'"' + b"x" * MAX_PAYLOAD + b'"'
        for batch in (
            Batch(cells=(done(5, "b"), done(5, "a", large))),
            Batch(rows=(row(6), row(7, large))),
            Batch(cells=(done(5, "b"),), held=(held(5, "a"),), learned=large),
        ):
            with pytest.raises(PayloadTooLarge):
                await handle.commit(batch)
        stage.crash()
        assert await stage.payloads() == values
        assert {(cell.row, cell.column): cell.payload for r in await _loaded(stage) for cell in r.cells} == values

    @staged
    async def test_commits_at_the_same_time_have_their_own_fates(self, stage: Stage) -> None:
        """D2, D3: one that is refused takes nothing along, whoever shares its transaction."""
        handle = await stage.begin(Batch(rows=rows(*range(30)).rows, cells=(failed(0, "a"),)))
        other = await stage.open("another run", store=stage.other)
        await other.commit(rows(*range(30)))
        refused: list[int] = []

        async def commit(to: RunHandle, place: int) -> None:
            try:
                await to.commit(Batch(cells=(done(place, "b"), done(place - place % 10, "a"))))
            except ConflictingResult:
                refused.append(place)

        async with anyio.create_task_group() as tasks:
            for place in range(30):
                tasks.start_soon(commit, handle, place)
                tasks.start_soon(commit, other, place)
        assert sorted(refused) == list(range(10))
        late = {(place, "b"): b"1" for place in range(10, 30)} | {(10, "a"): b"1", (20, "a"): b"1"}
        assert await stage.payloads() == {(0, "a"): None, **late}
        assert len(await stage.payloads("another run")) == 33

    @staged
    async def test_a_commit_whose_caller_is_cancelled_is_there_as_a_whole_or_not_at_all(self, stage: Stage) -> None:
        """D2: whoever was cancelled may commit the same again."""
        handle = await stage.begin(rows(*range(8)))
        for place in range(8):
            batch = Batch(cells=(done(place, "a"), done(place, "b")), spent=(SpentRecord(place, "a", 1, "", Usage(1)),))
            with anyio.move_on_after(0.0005 * place):
                await handle.commit(batch)
            await handle.commit(batch)
        assert await stage.payloads() == {(place, column): b"1" for place in range(8) for column in "ab"}
        assert (await stage.spent())["a"] == Usage(8)

    @staged
    async def test_what_was_learned_counts_for_the_run_first_and_for_others_after(self, stage: Stage) -> None:
        """An opening is told what its run learned last, else what any run did; a reader, what the run itself did."""
        one, two = await stage.open("one"), await stage.open("two")
        assert one.learned is None
        for handle, learned in ((one, b"1"), (two, b"2"), (one, b"11")):
            await handle.commit(Batch(learned=learned))
            await handle.commit(Batch())
        assert [(await stage.open(run)).learned for run in ("two", "three", "one")] == [b"2", b"11", b"11"]
        assert [await stage.learned(run) for run in ("one", "two", "three")] == [b"11", b"2", None]

    @staged
    async def test_text_that_is_no_unicode_does_not_sink_a_batch(self, stage: Stage) -> None:
        """What a provider said goes into messages, whatever it was."""
        handle = await stage.begin(rows(0))
        await handle.commit(Batch(cells=(failed(0, "a", "half \ud83d of a pair, \0, \x1b"),)))
        assert (await stage.rows())[0].cells[0].message.endswith("of a pair, \0, \x1b")

    @staged
    async def test_the_end_of_a_run_is_on_record_until_it_is_opened_again(self, stage: Stage) -> None:
        """A run is running from its opening to its end."""
        handle = await stage.begin(rows(0))
        assert ((await stage.info()).status, (await stage.info()).finished_at) == (RUNNING, None)
        await handle.finish("held")
        stage.crash()
        info = await stage.info()
        assert info.status == "held"
        assert info.finished_at is not None
        assert info.created_at <= info.finished_at
        assert (info.run, info.epoch, info.rows, info.durability) == (RUN, handle.info.epoch, 1, stage.store.durability)
        again = await stage.open()
        for now in (again.info, await stage.info()):
            assert (now.status, now.finished_at, now.created_at) == (RUNNING, None, info.created_at)


async def _loaded(stage: Stage) -> list[StoredRow]:
    """What a handle that was opened just now loads."""
    return await (await stage.open()).load(0, 1000)
