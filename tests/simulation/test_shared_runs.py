"""Runs that engines share, in virtual time: what each says of its part, and that the part is in hand all the time."""

from __future__ import annotations

import os
import signal
from collections import Counter
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

import headgate
from headgate.engine.fingerprints import fingerprints
from headgate.engine.interrupts import interruptible
from headgate.errors import ConfigError, HeadgateError, InputError, StoreError, StoreUnavailable
from headgate.events import CellEnded, GroupEnded, RowOpened, RunEnded, RunStopping, TaskStarted
from headgate.storage.codec import decode
from headgate.testing import run_virtual
from headgate.testing.told import Told
from tests.simulation.shared_memory import SharedMemory, SharedMemoryRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from headgate.events import Event
    from headgate.storage import Claim
    from headgate.storage.memory import MemoryRun

COLUMNS = ("a", "b", "c")
RUN = "run"


def pipeline(fails: Callable[[int], bool] = lambda _: False, *, takes_s: float = 1.0) -> headgate.Pipeline:
    """A column, a group column, and one more behind it."""
    made = headgate.Pipeline(RUN)

    @made.column(model="acme/m")
    async def a(row: int) -> int:
        await anyio.sleep(takes_s)
        if fails(row):
            raise ValueError(row)
        return row

    @made.column(scope="group")
    async def b(a: list[int]) -> list[int]:
        return a

    @made.column
    async def c(b: int) -> int:
        return b

    return made


def engine(store: SharedMemory, *, events: Callable[[Event], object] | None = None) -> headgate.Engine:
    return headgate.Engine(limits={"acme/m": {"concurrency": 16}}, store=store, seed=1, events=events)


def expect(report: headgate.RunReport, status: str, done: int) -> None:
    assert (report.status.value, report.done) == (status, done), report


@settings(max_examples=12)
@given(
    rows=st.integers(1, 300),
    group_size=st.integers(1, 40),
    failing=st.sets(st.integers(0, 299), max_size=5),
    later=st.floats(0.0, 20.0),
)
def test_v6_every_cell_and_row_group_of_a_shared_run_ends_once_over_all_engines(
    rows: int, group_size: int, failing: set[int], later: float
) -> None:
    """V6: in each engine, and over both of them nothing twice."""
    told = [Told(()), Told(())]

    async def main() -> None:
        store = SharedMemory()
        made = pipeline(failing.__contains__)

        async def share(which: int) -> None:
            await anyio.sleep(which * later)
            async with engine(store, events=told[which]) as one:
                report = await one.share(made, rows, group_size=group_size)
            told[which].check(COLUMNS, report)

        async with anyio.create_task_group() as tasks:
            for which in range(2):
                tasks.start_soon(share, which)
        failed = not failing.isdisjoint(range(rows))
        assert store.read_info(RUN).status == ("completed_with_failures" if failed else "completed")

    run_virtual(main)
    both = [event for one in told for event in one.events]
    cells = Counter((event.row, event.column) for event in both if isinstance(event, CellEnded))
    assert cells == Counter((row, name) for row in range(rows) for name in COLUMNS)
    groups = Counter((event.group, event.column) for event in both if isinstance(event, GroupEnded))
    assert set(groups.values()) <= {1}
    assert {event.outcome for event in both if isinstance(event, GroupEnded)} <= {"done"}
    # The number of a row group is the same in all that is said of it, and no two groups have the same.
    opened = Counter(event.group for event in both if isinstance(event, RowOpened))
    assert sum(opened.values()) == rows
    assert max(opened.values()) <= group_size
    begun = {event.group for event in both if isinstance(event, TaskStarted) and event.column == "b"}
    assert begun == {group for group, _ in groups} <= opened.keys()


class TensOfRows(SharedMemory):
    """Somebody has joined before and said how many rows are handed out together."""

    async def join_run(self, *arguments: object, **named: object) -> SharedMemoryRun:
        return await super().join_run(*arguments, **{**named, "group_rows": 10})  # type: ignore[arg-type]


def test_row_groups_that_do_not_fit_into_what_is_handed_out_have_numbers_of_their_own() -> None:
    told = Told(())

    async def main() -> None:
        async with engine(TensOfRows(), events=told) as one:
            told_of = await one.share(pipeline(), 25, group_size=4)
        told.check(COLUMNS, told_of)

    run_virtual(main)
    opened = Counter(event.group for event in told.events if isinstance(event, RowOpened))
    assert opened == {0: 4, 1: 4, 2: 2, 3: 4, 4: 4, 5: 2, 6: 4, 7: 1}


@pytest.mark.parametrize("at_s", [0.5, 1.5])
def test_a_shared_run_that_is_stopped_says_so_once(at_s: float) -> None:
    told = Told(())

    async def main() -> None:
        async with engine(SharedMemory(), events=told) as one, anyio.create_task_group() as tasks:

            async def share() -> None:
                report = await one.share(pipeline(takes_s=2.0), 300)
                assert report.status.value == "stopped"
                assert "run='run'" in report.resume_hint
                told.check(COLUMNS, report)

            tasks.start_soon(share)
            await anyio.sleep(at_s)
            assert one.controls.stop(grace=0.0) == (RUN,)

    run_virtual(main)
    assert [event.status for event in told.events if isinstance(event, RunStopping)] == ["stopped"]


@pytest.mark.parametrize("given", [0, 64, 100, 128, 290])
def test_an_engine_with_fewer_rows_leaves_the_others_to_those_who_have_them(given: int) -> None:
    """It completed their groups too, so that nobody ever did them. It waits for nobody else with the rest."""

    async def main() -> None:
        store = SharedMemory()
        rows = [{"row": row} for row in range(300)]
        async with engine(store) as one:
            await (await store.join_run(RUN, fingerprints(pipeline().columns), group_rows=64)).extend(300)
            expect(await one.share(pipeline(), rows[:given]), "completed", given)
            assert store.read_info(RUN).status == "running"
            report = await one.share(pipeline(), rows)
        assert (report.done - report.restored, report.status.value) == (300 - given, "completed")
        assert sum(len(row.cells) for row in store.read_rows(RUN)) == 300 * len(COLUMNS)
        assert store.read_info(RUN).status == "completed"

    run_virtual(main)


class SlowToOpen(SharedMemory):
    """Opening a run takes time, so something else may begin meanwhile."""

    async def open_run(self, *arguments: object, **named: object) -> MemoryRun:
        await checkpoint()
        return await super().open_run(*arguments, **named)  # type: ignore[arg-type]


@pytest.mark.parametrize("ways", [("share", "share"), ("share", "start"), ("start", "share"), ("start", "start")])
def test_of_two_that_begin_under_one_name_at_the_same_time_one_is_refused(ways: tuple[str, str]) -> None:
    """Else the second one would take the place of the first, which nobody could look at or stop any more."""

    async def main() -> None:
        ended: list[str] = []
        async with engine(SlowToOpen()) as one, anyio.create_task_group() as tasks:

            async def begin(way: str) -> None:
                try:
                    if way == "share":
                        report = await one.share(pipeline(), 300)
                    else:
                        report = await (await one.start(pipeline(), 300)).wait()
                    ended.append(report.status.value)
                except ConfigError as error:
                    ended.append("refused" if "is going on in this engine" in str(error) else str(error))

            with pytest.raises(ConfigError, match="give a list or a number"):
                await one.share(pipeline(), iter([1]))  # a beginning that fails leaves the name free
            for way in ways:
                tasks.start_soon(begin, way)
            await anyio.sleep(1.5)
            assert ended == ["refused"]
            assert one.controls.stop(grace=0.0) == (RUN,)
            await anyio.sleep(0.1)
            assert ended == ["refused", "stopped"]

    run_virtual(main)


class OthersHaveTheRest(SharedMemory):
    """All groups but the first belong to somebody who never ends them."""

    async def join_run(self, *arguments: object, **named: object) -> SharedMemoryRun:
        run = await super().join_run(*arguments, **named)  # type: ignore[arg-type]
        await run.extend(300)
        for group in run.board.groups[1:]:
            group.token, group.ends_at = 1, 1e9
        return run


def test_a_shared_run_without_a_row_group_at_work_is_in_hand_all_the_same() -> None:
    """It waits for what others do: it is looked at, is not drained, and is stopped at once."""
    told = Told(())

    async def main() -> None:
        async with engine(OthersHaveTheRest(), events=told) as one, anyio.create_task_group() as tasks:
            ended: list[float] = []

            async def share() -> None:
                report = await one.share(pipeline(), 300)
                expect(report, "stopped", 64)
                ended.append(anyio.current_time())

            tasks.start_soon(share)
            await anyio.sleep(1_000.25)
            (seen,) = cast("list[Mapping[str, object]]", one.controls.look()["runs"])
            assert (seen["run"], seen["done"], seen["open_rows"]) == (RUN, 64, 0)
            assert (seen["stopping"], seen["seconds"]) == (False, pytest.approx(1_000.25))
            with pytest.raises(ConfigError, match="cannot be drained"):
                one.controls.drain()
            with pytest.raises(ConfigError, match="going on"):
                await one.start(pipeline(), 1)
            assert one.controls.stop() == (RUN,)
            (seen,) = cast("list[Mapping[str, object]]", one.controls.look()["runs"])
            assert seen["stopping"] is True
            await anyio.sleep(0.001)
            assert ended == [pytest.approx(1_000.25)]
            with pytest.raises(ConfigError, match="no run goes on"):
                one.controls.stop()

    run_virtual(main)
    assert [event.status for event in told.events if isinstance(event, RunStopping)] == ["stopped"]


def test_the_first_ctrl_c_ends_a_shared_run_that_waits_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    monkeypatch.setattr(os, "_exit", left.append)

    async def main() -> None:
        async def face(**options: object) -> headgate.RunReport:
            async with engine(OthersHaveTheRest()) as one:
                return await one.share(pipeline(), 300, **options)  # type: ignore[arg-type]

        async def press() -> None:
            await anyio.sleep(100.0)
            os.kill(os.getpid(), signal.SIGINT)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(press)
            report, interrupted = await interruptible(face, {})
            expect(report, "stopped", 64)
            assert interrupted
        assert anyio.current_time() == pytest.approx(100.0, abs=1.0)

    run_virtual(main)
    assert left == []


def test_an_engine_that_is_left_ends_the_shared_run_that_waits_for_others() -> None:
    async def main() -> None:
        reports: list[headgate.RunReport] = []

        async def share(one: headgate.Engine) -> None:
            reports.append(await one.share(pipeline(), 300))

        async with anyio.create_task_group() as tasks, engine(OthersHaveTheRest()) as one:
            tasks.start_soon(share, one)
            await anyio.sleep(50.0)
        expect(reports[0], "stopped", 64)
        assert anyio.current_time() == pytest.approx(50.0)

    run_virtual(main)


class SlowToJoin(SharedMemory):
    """Joining takes ten seconds."""

    async def join_run(self, *arguments: object, **named: object) -> SharedMemoryRun:
        await anyio.sleep(10.0)
        return await super().join_run(*arguments, **named)  # type: ignore[arg-type]


class OthersHaveAll(SharedMemory):
    """All groups belong to somebody who never ends them."""

    async def join_run(self, *arguments: object, **named: object) -> SharedMemoryRun:
        run = await super().join_run(*arguments, **named)  # type: ignore[arg-type]
        await run.extend(300)
        for group in run.board.groups:
            group.token, group.ends_at = 1, 1e9
        return run


@pytest.mark.parametrize("store", [SlowToJoin, OthersHaveAll])
def test_ctrl_c_before_the_first_row_group_closes_what_is_open_and_says_so(
    store: type[SharedMemory], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It left at once, without a word, and left everything open."""

    def leave(code: int) -> None:
        raise AssertionError(code)

    monkeypatch.setattr(os, "_exit", leave)

    async def main() -> None:
        closed: list[bool] = []

        async def face(**options: object) -> headgate.RunReport:
            try:
                async with engine(store()) as one:
                    return await one.share(pipeline(), 300, **options)  # type: ignore[arg-type]
            finally:
                closed.append(True)

        async def press() -> None:
            await anyio.sleep(5.0)
            os.kill(os.getpid(), signal.SIGINT)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(press)
            with pytest.raises(SystemExit, match="130"):
                await interruptible(face, {})
        assert closed == [True]
        assert anyio.current_time() == pytest.approx(5.0, abs=1.0)

    run_virtual(main)
    shown = capsys.readouterr()
    assert "interrupted before anything began; " in shown.err
    assert shown.out == ""


@pytest.mark.parametrize("way", ["share", "start"])
def test_an_engine_that_is_left_while_a_run_begins_waits_for_it_and_does_nothing_of_it(way: str) -> None:
    """Nobody would have stopped it, and its lanes were gone."""

    class Slow(SlowToJoin):
        async def open_run(self, *arguments: object, **named: object) -> MemoryRun:
            await anyio.sleep(10.0 if way == "start" else 0.0)
            return await super().open_run(*arguments, **named)  # type: ignore[arg-type]

    async def main() -> None:
        ended: list[str] = []
        asked: list[int] = []
        made = headgate.Pipeline(RUN)

        @made.column(model="acme/m")
        async def a(row: int) -> int:
            asked.append(row)
            return row

        async def begin(one: headgate.Engine) -> None:
            with pytest.raises(HeadgateError) as refused:
                await (one.share(made, 300) if way == "share" else one.start(made, 300))
            ended.append(str(refused.value))

        async with anyio.create_task_group() as tasks:
            async with engine(Slow()) as one:
                tasks.start_soon(begin, one)
                await anyio.sleep(5.0)
            assert ended == ["the engine was left before the run could begin: nothing of it was done"]
            assert anyio.current_time() == pytest.approx(10.0)
            await begin(one)
            assert "until it is left" in ended[1]
        assert asked == []

    run_virtual(main)


@pytest.mark.parametrize("store", [SharedMemory, OthersHaveTheRest])
def test_the_deadline_is_that_of_the_whole_part(store: type[SharedMemory]) -> None:
    """It is not counted anew for each row group."""

    async def main() -> None:
        told = Told(())
        async with engine(store(), events=told) as one:
            report = await one.share(pipeline(), 3_000, deadline=9.5, grace=0.0)
        assert report.status.value == "held"
        assert 0 < report.done < 3_000
        assert anyio.current_time() == pytest.approx(9.5)
        assert [event.status for event in told.events if isinstance(event, RunStopping)] == ["held"]
        assert isinstance(told.events[-1], RunEnded)

    run_virtual(main)


def test_a_row_group_that_stalls_does_not_stop_the_run() -> None:
    told = Told(())
    made = headgate.Pipeline(RUN)

    @made.column(model="acme/m")
    async def a(row: int) -> int:
        await (anyio.sleep_forever() if row == 0 else anyio.sleep(1.0))
        return row

    async def main() -> None:
        async with engine(SharedMemory(), events=told) as one:
            report = await one.share(made, 640, stall_timeout=20.0)
        expect(report, "stalled", 639)

    run_virtual(main)
    assert not any(isinstance(event, RunStopping) for event in told.events)


def test_a_run_that_is_over_says_nothing_of_a_stop() -> None:
    events: list[Event] = []

    async def main() -> None:
        async with engine(SharedMemory(), events=events.append) as one:
            run = await one.start(pipeline(), 4)
            await run.wait()
            run.stop()

    run_virtual(main)
    assert isinstance(events[-1], RunEnded)


def test_an_engine_that_dies_before_it_says_the_end_leaves_that_to_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All groups are complete by then, a failed cell among them, and the next engine finds nothing to do."""

    async def main() -> None:
        store, scope = SharedMemory(), anyio.CancelScope()

        async def dies(self: SharedMemoryRun, status: str) -> None:
            scope.cancel()
            await checkpoint()

        with monkeypatch.context() as killed, scope:
            killed.setattr(SharedMemoryRun, "finish", dies)
            async with engine(store) as one:
                await one.share(pipeline({3}.__contains__), 100)
        assert scope.cancelled_caught
        assert store.read_info(RUN).status == "running"
        async with engine(store) as one:
            expect(await one.share(pipeline({3}.__contains__), 100), "completed", 0)
        assert store.read_info(RUN).status == "completed_with_failures"

    run_virtual(main)


class OutOfOrder(SharedMemory):
    """A store that hands out no row groups any more."""

    async def join_run(self, *args: Any, **options: Any) -> SharedMemoryRun:
        class Run(SharedMemoryRun):
            async def claim(self, most: int, lease_s: float) -> list[Claim]:
                try:
                    raise OSError("the disk has gone")
                except OSError as error:
                    raise StoreError("no groups today") from error

        joined = await super().join_run(*args, **options)
        return Run(joined.board)


def test_what_breaks_a_shared_run_comes_with_its_cause() -> None:
    """The error was raised, and what had led to it was taken away."""

    async def main() -> None:
        async with engine(OutOfOrder()) as working:
            await working.share(pipeline(), 10)

    with pytest.raises(StoreError, match="no groups today") as caught:
        run_virtual(main)
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("lease_s", [0, -1.0, float("nan"), float("inf"), 10**400, "60"])
def test_a_lease_of_row_groups_that_cannot_be_meant(lease_s: Any) -> None:
    async def main() -> None:
        async with engine(SharedMemory()) as working:
            with pytest.raises(ConfigError, match="lease_s must be seconds, more than zero"):
                await working.share(pipeline(), 10, lease_s=lease_s)

    run_virtual(main)


@pytest.mark.parametrize("call", ["extend", "claim", "progress", "complete", "finish"])
def test_t55_a_store_that_is_away_for_a_moment_ends_no_shared_run(call: str) -> None:
    """It did while the run was given its rows, and at its end."""
    away = 3

    class Absent(SharedMemory):
        async def join_run(self, *args: Any, **options: Any) -> SharedMemoryRun:
            joined = await super().join_run(*args, **options)
            answers = getattr(joined, call)

            async def perhaps(*args: Any) -> Any:
                nonlocal away
                if away:
                    away -= 1
                    raise StoreUnavailable("nobody at home")
                return await answers(*args)

            setattr(joined, call, perhaps)
            return joined

    async def main() -> headgate.RunReport:
        async with engine(Absent()) as working:
            return await working.share(pipeline(), 100)

    expect(run_virtual(main), "completed", 100)
    assert away == 0


class Listing:
    """Rows of a library that are indexed and are no sequence; a part of them is something else again."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[dict[str, int]]:
        return map(self.__getitem__, range(self.count))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return {"row": list(range(self.count))[index]}
        return {"row": index}


class ByName(Listing):
    """As a table of columns is."""

    def __getitem__(self, index: Any) -> Any:
        raise KeyError(index)


def test_rows_that_are_indexed_and_no_list_are_shared_by_their_places() -> None:
    """Each row group was given all rows, as if they began at its own."""
    store = SharedMemory()

    async def main() -> headgate.RunReport:
        async with engine(store) as working:
            return await working.share(pipeline(), Listing(200))

    expect(run_virtual(main), "completed", 200)
    rows = {row.record.row: decode(row.cells[0].payload or b"") for row in store.read_rows(RUN)}
    assert rows == {row: row for row in range(200)}


def test_rows_that_cannot_be_taken_by_their_places_are_refused() -> None:
    async def main() -> None:
        async with engine(SharedMemory()) as working:
            with pytest.raises(InputError, match=r"rows 0 to 63 cannot be taken from a ByName .* give a list"):
                await working.share(pipeline(), ByName(200))

    run_virtual(main)
