"""The writer thread: group commit, one fate per job, and what happens to those who wait.

Nothing here asserts on time. Where the thread must be caught at a moment, a job holds it there.
"""

from __future__ import annotations

import sqlite3
import threading
from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest

from headgate.errors import StoreError
from headgate.storage.job_thread import GROUP
from headgate.storage.signals import Signal
from headgate.storage.sqlite_file import WritableFile
from headgate.storage.sqlite_writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TABLES = """CREATE TABLE parent (id INTEGER PRIMARY KEY);
    CREATE TABLE child (id INTEGER PRIMARY KEY,
    parent INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)"""


def new_writer(path: Path) -> Writer:
    return Writer(WritableFile(path, synchronous="NORMAL", busy_timeout_s=5.0, max_bytes=None))


def insert(number: int, parent: int | None = None) -> Callable[[sqlite3.Connection], int]:
    def work(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO child VALUES (?, ?)", (number, parent))
        return number

    return work


def until(event: threading.Event) -> Callable[[sqlite3.Connection], None]:
    """A job that holds the thread until the event comes."""

    def work(_: sqlite3.Connection) -> None:
        event.wait(10.0)

    return work


def make_tables(connection: sqlite3.Connection) -> None:
    for statement in TABLES.split(";"):
        connection.execute(statement)


def committed(path: Path) -> set[int]:
    connection = sqlite3.connect(path)
    try:
        return {number for (number,) in connection.execute("SELECT id FROM child")}
    finally:
        connection.close()


class Gathering:
    """Holds the thread inside a job until everything that is to form the next group has been handed in."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.running = threading.Event()
        self.go_on = threading.Event()

    def hold(self, connection: sqlite3.Connection) -> None:
        self.running.set()
        self.go_on.wait(10.0)
        connection.set_trace_callback(self.statements.append)

    async def of(self, writer: Writer, jobs: list[Callable[[sqlite3.Connection], int]]) -> list[int | Exception]:
        """Run the jobs as one group; return their results or errors."""
        outcomes: dict[int, int | Exception] = {}

        async def one(place: int) -> None:
            try:
                outcomes[place] = await writer.run(jobs[place])
            except Exception as error:
                outcomes[place] = error

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(writer.run, self.hold)
            await anyio.to_thread.run_sync(self.running.wait)
            for place in range(len(jobs)):
                tasks.start_soon(one, place)
            await anyio.wait_all_tasks_blocked()
            self.go_on.set()
        return [outcomes[place] for place in range(len(jobs))]

    def count(self, word: str) -> int:
        return sum(statement.startswith(word) for statement in self.statements)


async def test_commits_that_gather_share_one_transaction(tmp_path: Path) -> None:
    writer, gathering = new_writer(tmp_path / "s.db"), Gathering()
    await writer.run(make_tables)
    assert await gathering.of(writer, [insert(number) for number in range(50)]) == list(range(50))
    assert gathering.count("COMMIT") == 2  # of the holding job and of the group
    assert gathering.count("INSERT") == 50
    await writer.aclose()


async def test_t32_one_batch_one_fate(tmp_path: Path) -> None:
    """T32: an exception in a batch of 50 turned all 50 into None. Here one job's error is its own."""
    writer, gathering = new_writer(tmp_path / "s.db"), Gathering()
    await writer.run(make_tables)

    def half_done(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO child VALUES (900, NULL)")
        raise LookupError("in the middle")

    outcomes = await gathering.of(writer, [insert(1), half_done, insert(1), insert(2)])
    # trio starts tasks in any order, so either of the two inserts of 1 may be the refused one.
    assert {type(outcome) for outcome in outcomes} == {int, LookupError, StoreError}
    assert committed(tmp_path / "s.db") == {1, 2}
    assert gathering.count("COMMIT") == 2
    await writer.aclose()


async def test_t51_success_before_durable(tmp_path: Path) -> None:
    """T51: the producer was told "done", then the write failed. While COMMIT runs, nobody has been told anything."""
    writer, at_commit, go_on = new_writer(tmp_path / "s.db"), threading.Event(), threading.Event()
    await writer.run(make_tables)
    told: list[int] = []
    armed = False

    def stop_at_commit(statement: str) -> None:
        if armed and statement == "COMMIT":
            at_commit.set()
            go_on.wait(10.0)

    async def one(number: int) -> None:
        told.append(await writer.run(insert(number)))

    await writer.run(lambda connection: connection.set_trace_callback(stop_at_commit))
    armed = True
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one, 1)
        await anyio.to_thread.run_sync(at_commit.wait)
        await anyio.wait_all_tasks_blocked()
        assert told == []
        go_on.set()
    assert told == [1]
    await writer.aclose()


async def test_t51_a_commit_that_fails_at_the_very_end(tmp_path: Path) -> None:
    """T51: COMMIT itself fails, after the job went well. Only the job that is to blame is refused."""
    writer, gathering = new_writer(tmp_path / "s.db"), Gathering()
    await writer.run(make_tables)
    outcomes = await gathering.of(writer, [insert(1), insert(2, parent=77), insert(3)])
    assert outcomes[0] == 1
    assert isinstance(outcomes[1], StoreError)
    assert outcomes[2] == 3
    assert committed(tmp_path / "s.db") == {1, 3}
    await writer.aclose()


async def test_cancelling_who_waits_does_not_cancel_the_commit(tmp_path: Path) -> None:
    writer, gathering = new_writer(tmp_path / "s.db"), Gathering()
    await writer.run(make_tables)
    go_on = threading.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.run, until(go_on))
        with anyio.CancelScope() as scope:
            tasks.start_soon(anyio.sleep, 0)
            async with anyio.create_task_group() as inner:
                inner.start_soon(writer.run, insert(1))
                inner.start_soon(writer.run, insert(2))
                await anyio.wait_all_tasks_blocked()
                scope.cancel()
        go_on.set()
    assert await gathering.of(writer, [insert(3)]) == [3]
    assert committed(tmp_path / "s.db") == {1, 2, 3}
    await writer.aclose()


async def test_closing_finishes_what_was_handed_in(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    writer, held = new_writer(tmp_path / "s.db"), threading.Event()
    await writer.run(make_tables)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.run, until(held))
        for number in range(20):
            tasks.start_soon(writer.run, insert(number))
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(writer.aclose)
        tasks.start_soon(writer.aclose)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(StoreError, match="closed"):
            await writer.run(insert(99))
        held.set()
    assert committed(tmp_path / "s.db") == set(range(20))
    mine = set(threading.enumerate()) - before
    assert [thread.name for thread in mine if "headgate-store" in thread.name] == []
    await writer.aclose()


async def test_cancelled_closing_still_closes(tmp_path: Path) -> None:
    writer, held = new_writer(tmp_path / "s.db"), threading.Event()
    await writer.run(make_tables)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.run, until(held))
        tasks.start_soon(writer.run, insert(1))
        await anyio.wait_all_tasks_blocked()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await writer.aclose()
        held.set()
    await writer.aclose()
    assert committed(tmp_path / "s.db") == {1}


async def test_beyond_one_group_jobs_are_done_in_the_order_they_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nobody is woken but by the end of his own job: with a thousand who wait, waking them all costs more than
    the commits."""
    writer, held = new_writer(tmp_path / "s.db"), threading.Event()
    await writer.run(make_tables)
    came: list[int] = []
    done: list[int] = []

    def note(number: int, _: sqlite3.Connection) -> None:
        done.append(number)

    async def twice(number: int) -> None:
        for each in (number, number + 5000):
            came.append(each)
            await writer.run(partial(note, each))

    woken = 0
    wake = Signal.set

    def count(signal: Signal) -> None:
        nonlocal woken
        woken += 1
        wake(signal)

    monkeypatch.setattr(Signal, "set", count)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.run, until(held))
        await anyio.wait_all_tasks_blocked()
        for number in range(GROUP + 900):
            tasks.start_soon(twice, number)
        await anyio.wait_all_tasks_blocked()
        assert writer.waiting == GROUP + 900
        held.set()
    assert done == came
    assert woken == len(done) + 1, "each once, and the job that held them"
    await writer.aclose()


async def test_who_is_cancelled_in_line_takes_his_job_along(tmp_path: Path) -> None:
    """What waits beyond one group belongs to its task, so that nothing grows without bound."""
    writer, held = new_writer(tmp_path / "s.db"), threading.Event()
    await writer.run(make_tables)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.run, until(held))
        await anyio.wait_all_tasks_blocked()
        for _ in range(2):
            async with anyio.create_task_group() as inner:
                for number in range(GROUP):
                    inner.start_soon(writer.run, insert(number))
                await anyio.wait_all_tasks_blocked()
                inner.cancel_scope.cancel()
            assert writer.waiting == GROUP
        held.set()
    assert await writer.run(lambda connection: connection.execute("SELECT count(*) FROM child").fetchone()) == (GROUP,)
    await writer.aclose()


async def test_closing_does_what_stands_in_line(tmp_path: Path) -> None:
    writer, held = new_writer(tmp_path / "s.db"), threading.Event()
    await writer.run(make_tables)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.run, until(held))
        await anyio.wait_all_tasks_blocked()
        for number in range(GROUP + 20):
            tasks.start_soon(writer.run, insert(number))
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(writer.aclose)
        await anyio.wait_all_tasks_blocked()
        held.set()
    assert committed(tmp_path / "s.db") == set(range(GROUP + 20))


async def test_a_transaction_is_bounded_in_bytes(tmp_path: Path) -> None:
    writer, gathering = new_writer(tmp_path / "s.db"), Gathering()
    await writer.run(make_tables)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.run, gathering.hold)
        await anyio.to_thread.run_sync(gathering.running.wait)
        for number in range(6):
            work, size = insert(number), 10 * 1024 * 1024 if number < 3 else 0
            tasks.start_soon(partial(writer.run, work, prepare=partial(int, size)))
        await anyio.wait_all_tasks_blocked()
        gathering.go_on.set()
    assert committed(tmp_path / "s.db") == set(range(6))
    assert gathering.count("COMMIT") == 4  # of the holding job, and of three groups of ten MiB each
    await writer.aclose()


def test_it_outlives_the_loop_it_was_used_from(tmp_path: Path) -> None:
    """A loop that ended with a commit under way is nobody to tell, and no reason to stop."""
    writer, held = new_writer(tmp_path / "s.db"), threading.Event()

    async def leave_early() -> None:
        await writer.run(make_tables)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(writer.run, until(held))
            tasks.start_soon(writer.run, insert(1))
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()

    async def come_back() -> int:
        number = await writer.run(insert(2))
        await writer.aclose()
        return number

    for first, second in (("asyncio", "trio"), ("trio", "asyncio")):
        anyio.run(leave_early, backend=first)
        held.set()
        assert anyio.run(come_back, backend=second) == 2
        assert committed(tmp_path / "s.db") == {1, 2}
        (tmp_path / "s.db").unlink()
        writer, held = new_writer(tmp_path / "s.db"), threading.Event()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_fault_of_ours_is_told_to_all_who_wait(tmp_path: Path) -> None:
    """Whatever ends the thread, nobody waits for ever."""

    class Unforeseen(BaseException):
        pass

    def fail(_: sqlite3.Connection) -> int:
        raise Unforeseen

    writer = new_writer(tmp_path / "s.db")
    outcomes = await Gathering().of(writer, [fail, fail, fail])
    assert [str(outcome).endswith("its writer thread failed") for outcome in outcomes] == [True] * 3
    with pytest.raises(StoreError):
        await writer.run(insert(1))
    await writer.aclose()
