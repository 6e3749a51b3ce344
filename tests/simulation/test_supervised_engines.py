"""Whole engines under a supervisor, in virtual time: what earlier lives finished is kept, and decisions are obeyed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import headgate
from headgate.errors import ConfigError, PipelineError, StoreFull, StoreUnsupported
from headgate.restart import Action, Answer, CallableSource, Cycle, TaskId, Verdict, read_record
from headgate.storage import Batch, MemoryStore
from headgate.testing import run_virtual
from tests.simulation.shared_memory import SharedMemory, SharedMemoryRun

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

ROWS = [{"n": n} for n in range(20)]
RESTART = {"first_pause": 0.0, "longest_pause": 0.0}


class World:
    """A pipeline whose store is full again and again, after ``room`` outcomes each time."""

    def __init__(self, room: int = 1000, lives: int = 1000) -> None:
        self.calls: Counter[int] = Counter()
        self.room = room
        self.lives = lives
        self.store = MemoryStore()
        self.slow: set[int] = set()
        self.pipeline = headgate.Pipeline("tickets")

        @self.pipeline.column()
        async def double(n: int) -> int:
            self.calls[n] += 1
            await anyio.sleep(1e6 if n in self.slow else 0.1)
            return 2 * n

        @self.pipeline.column()
        async def more(double: int) -> int:
            return double + 1

    def full_store(self) -> MemoryStore:
        world = self
        original = self.store.open_run

        async def open_run(*arguments: Any, **named: Any) -> Any:
            handle = await original(*arguments, **named)
            commit, left, world.lives = handle.commit, [world.room if world.lives > 0 else 10**9], world.lives - 1

            async def bounded(batch: Batch) -> None:
                if left[0] <= 0 and batch.cells:
                    error = StoreFull("no room")
                    error.retryable = False
                    raise error
                await commit(batch)
                left[0] -= len(batch.cells)

            handle.commit = bounded  # type: ignore[method-assign]
            return handle

        self.store.open_run = open_run  # type: ignore[method-assign]
        return self.store


def play(body: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await body()

    run_virtual(main)


def test_lives_go_on_while_there_is_progress_and_nothing_is_done_twice_that_was_kept() -> None:
    async def body() -> None:
        world = World(room=3, lives=9)
        ended = await headgate.asupervise(
            world.pipeline, ROWS, store=world.full_store(), restart={**RESTART, "budget": 0}, local_workers=2
        )
        assert (ended.status, ended.exit_code) == ("completed", 0)
        assert ended.supervised.lives > 3
        assert ended.report is not None
        assert ended.report.done == 20
        assert [row["more"] for row in ended.report.results()] == [2 * n + 1 for n in range(20)]
        assert all(decision.progress for decision in ended.record.decisions)
        assert {decision.cause.kind for decision in ended.record.decisions if decision.cause} == {"StoreFull"}
        assert world.calls.total() <= 20 + 4 * ended.supervised.lives, "only what was in flight is done again"

    play(body)


def test_a_store_that_takes_nothing_exhausts_the_budget() -> None:
    """T51: what was not committed is no progress, however much was worked."""

    async def body() -> None:
        world = World(room=0)
        ended = await headgate.asupervise(
            world.pipeline, ROWS, store=world.full_store(), restart={**RESTART, "budget": 2, "rules": False}
        )
        assert (ended.status, ended.exit_code, ended.supervised.lives) == ("budget_exhausted", 6, 3)
        assert ended.decision is not None
        assert "budget_exhausted" in str(ended)

    play(body)


def test_what_an_earlier_life_gained_does_not_count_for_later_ones() -> None:
    async def body() -> None:
        world = World(room=3)

        async def source(_: Cycle) -> Answer:
            world.room = 0
            return Answer(Verdict.RESTART)

        ended = await headgate.asupervise(
            world.pipeline, ROWS, store=world.full_store(), sources=[CallableSource(source)],
            restart={**RESTART, "budget": 2, "rules": False},
        )  # fmt: skip
        assert (ended.status, ended.supervised.lives) == ("budget_exhausted", 4)
        assert [bool(decision.progress) for decision in ended.record.decisions] == [True, False, False, False]

    play(body)


def test_the_deadline_is_that_of_all_lives() -> None:
    async def body() -> None:
        world = World()
        world.slow = {7}
        ended = await headgate.asupervise(
            world.pipeline, ROWS, store=world.store, restart={**RESTART, "rules": False}, stall_timeout=60.0,
            deadline=100.0, grace=1.0,
        )  # fmt: skip
        assert (ended.status, ended.supervised.lives) == ("held", 2)
        assert 100.0 <= anyio.current_time() < 110.0

    play(body)


def test_the_rules_stop_what_goes_round() -> None:
    async def body() -> None:
        world = World(room=0)
        ended = await headgate.asupervise(world.pipeline, ROWS, store=world.full_store(), restart=RESTART)
        assert (ended.status, ended.exit_code, ended.supervised.lives) == ("told_to_stop", 7, 3)

    play(body)


def test_a_stalled_run_is_a_bad_end_and_poison_is_set_aside(tmp_path: Path) -> None:
    """A task that never ends stalls each life, until a source says which it is."""
    asked: list[Cycle] = []

    def names_it(cycle: Cycle) -> Answer:
        asked.append(cycle)
        return Answer(Verdict.QUARANTINE, (TaskId(7, "double"), TaskId(1, "no_such_column")))

    async def source(cycle: Cycle) -> Answer:
        return names_it(cycle)

    async def body() -> None:
        world = World()
        world.slow = {7}
        ended = await headgate.asupervise(
            world.pipeline, ROWS, store=world.store, restart=RESTART, sources=[CallableSource(source)],
            stall_timeout=60.0, grace=1.0, out=tmp_path / "out.jsonl",
        )  # fmt: skip
        assert (ended.status, ended.exit_code, ended.supervised.lives) == ("completed_with_failures", 3, 2)
        assert ended.report is not None
        assert ended.report.failure_counts == {("double", "set_aside"): 1}
        assert (asked[0].failure.cause.kind, asked[0].progress) == ("stalled", 38)

    def direct() -> None:
        run_virtual(lambda: body())

    # Writing results uses a thread, which virtual time does not know; it only has to be waited for.
    direct()
    assert (tmp_path / "out.jsonl").read_text().count("\n") == 19


def test_a_task_that_stalls_each_life_is_named_by_the_engine_itself() -> None:
    """No source but the rules: it was at work at the end of three lives. Its whole group goes, if it works on one."""

    async def body() -> None:
        world = World()
        world.slow = {7}

        @world.pipeline.column(scope="group")
        async def sums(double: list[int]) -> list[int]:
            await anyio.sleep(1e6 if 2 * 15 in double else 0.1)
            return double

        ended = await headgate.asupervise(
            world.pipeline, ROWS, store=world.store, restart={**RESTART, "budget": 20}, stall_timeout=60.0, grace=1.0,
            group_size=4,
        )  # fmt: skip
        assert (ended.status, ended.exit_code, ended.supervised.lives) == ("completed_with_failures", 3, 4)
        assert {(task.row, task.column) for task in ended.record.quarantined} == {(7, "double"), (12, "sums")}
        assert ended.report is not None
        assert ended.report.failure_counts == {("double", "set_aside"): 1, ("sums", "set_aside"): 4}
        assert ended.report.done == 15

    play(body)


def test_failures_that_fail_again_are_no_progress() -> None:
    """With ``retry_failed`` each life tries them again: if that counted, a crash loop would have no end."""

    async def body() -> None:
        world = World()
        failing = headgate.Pipeline("tickets")

        @failing.column()
        async def double(n: int) -> int:
            await anyio.sleep(1e6 if n == 19 else 0.1)
            raise ValueError(n)

        ended = await headgate.asupervise(
            failing, ROWS, store=world.store, restart={**RESTART, "budget": 3, "rules": False}, stall_timeout=60.0,
            grace=1.0, retry_failed=True,
        )  # fmt: skip
        assert (ended.status, ended.supervised.lives) == ("budget_exhausted", 5)
        assert [one.progress for one in ended.record.decisions] == [19, 0, 0, 0, 0]

    play(body)


def test_held_rows_are_resumed_by_another_life_until_the_deadline() -> None:
    async def body() -> None:
        pipeline = headgate.Pipeline("tickets")

        @pipeline.column(model="a/b")
        async def ask(n: int) -> int:
            raise ConnectionRefusedError(n)

        ended = await headgate.asupervise(
            pipeline, ROWS, store=MemoryStore(), limits={"a/b": {"concurrency": 4}}, patience=5.0, deadline=100.0,
            restart={"first_pause": 10.0, "longest_pause": 10.0, "budget": 100, "rules": False},
        )  # fmt: skip
        assert (ended.status, ended.exit_code) == ("held", 4)
        assert 3 <= ended.supervised.lives <= 10
        assert ended.decision is None
        assert 100.0 <= anyio.current_time() < 130.0

    play(body)


def test_what_its_user_stops_is_not_begun_again() -> None:
    async def body() -> None:
        world, stoppable = World(), list[Any]()
        world.slow = {3}
        async with anyio.create_task_group() as tasks:

            async def stop() -> None:
                await anyio.sleep(5.0)
                assert not stoppable[0].done
                stoppable[0].stop()

            tasks.start_soon(stop)
            ended = await headgate.asupervise(
                world.pipeline, ROWS, store=world.store, restart=RESTART, grace=1.0, started=stoppable.append
            )
            assert (ended.status, ended.exit_code, ended.decision) == ("stopped", 130, None)
            assert stoppable[0].done
        world.slow = set()
        again = await headgate.asupervise(world.pipeline, lambda: iter(ROWS), store=world.store, restart=RESTART)
        assert again.status == "completed"
        assert set(world.calls.values()) == {1, 2}
        assert world.calls[3] == 2

    play(body)


def test_a_wait_between_lives_can_be_stopped() -> None:
    async def body() -> None:
        world, stoppable = World(room=0), list[Any]()
        async with anyio.create_task_group() as tasks:

            async def stop() -> None:
                await anyio.sleep(50.0)
                stoppable[0].stop()

            tasks.start_soon(stop)
            ended = await headgate.asupervise(
                world.pipeline, ROWS, store=world.full_store(), started=stoppable.append,
                restart={"first_pause": 200.0, "longest_pause": 200.0},
            )  # fmt: skip
            assert (ended.status, ended.exit_code) == ("stopped", 130)
            assert anyio.current_time() < 60.0

    play(body)


def generator() -> Iterator[dict[str, int]]:
    yield from ROWS


class NoRegisters(MemoryStore):
    def __getattribute__(self, name: str) -> Any:
        if name == "read_register":
            raise AttributeError(name)
        return super().__getattribute__(name)


def test_what_cannot_be_supervised_is_said() -> None:
    async def body() -> None:
        world = World()
        wrong: tuple[tuple[Any, dict[str, Any], type[Exception]], ...] = (
            (generator(), {"store": world.store}, ConfigError),
            (ROWS, {}, ConfigError),
            (ROWS, {"store": NoRegisters()}, StoreUnsupported),
            (ROWS, {"store": world.store, "restart": {"budgett": 1}}, ConfigError),
            ([{"m": 1}], {"store": world.store}, PipelineError),
        )
        for rows, options, error in wrong:
            with pytest.raises(error):
                await headgate.asupervise(world.pipeline, rows, **options)
        assert not world.calls

    play(body)


def test_code_that_is_not_async_has_a_face_too(tmp_path: Path) -> None:
    world = World()
    ended = headgate.supervise(world.pipeline, ROWS, store=tmp_path / "tickets.db", restart=RESTART)
    assert ended.status == "completed"
    assert "supervised: completed after 1 lives" in str(ended)


class BreaksOnce(SharedMemory):
    """A store that hands out row groups, and at some commit is full for good, for whoever happens to write."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._commits_left = at

    async def join_run(self, *arguments: Any, **named: Any) -> SharedMemoryRun:
        handle = await super().join_run(*arguments, **named)
        commit = handle.commit

        async def breaking(batch: Batch) -> None:
            self._commits_left -= 1
            if self._commits_left == 0:
                error = StoreFull("no room")
                error.retryable = False
                raise error
            await commit(batch)

        handle.commit = breaking  # type: ignore[method-assign]
        return handle


@pytest.mark.parametrize("at", [1, 60])
def test_two_supervisors_share_one_run_and_what_is_decided_about_it(at: int) -> None:
    """One of their lives breaks, whichever it is: it is begun again, the other never notices, and nothing is lost."""
    pipeline, calls = headgate.Pipeline("tickets"), Counter[int]()

    @pipeline.column(model="acme/m")
    async def double(row: int) -> int:
        calls[row] += 1
        await anyio.sleep(0.1)
        return 2 * row

    ended: list[headgate.SupervisedRun] = []

    async def body() -> None:
        store, limits = BreaksOnce(at), {"acme/m": {"concurrency": 8}}

        async def supervise() -> None:
            ended.append(
                await headgate.asupervise(
                    pipeline, 800, store=store, restart=RESTART, limits=limits, share=True, max_open_rows=128
                )
            )

        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(supervise)
        assert store.read_info("tickets").status == "completed"
        record = await read_record(store, "tickets")
        assert record is not None
        assert (record.finished, [one.action for one in record.decisions]) == ("completed", [Action.RESTART])

    play(body)
    assert [one.status for one in ended] == ["completed"] * 2
    assert sorted(one.supervised.lives for one in ended) == [1, 2]
    assert all(one.report is not None and one.report.accepted for one in ended), "both had a part in it"
    assert calls.keys() == set(range(800))
    assert calls.total() <= 800 + 4 * 8, "what was in flight, or not on record, in the life that broke"
