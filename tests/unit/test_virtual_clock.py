"""Virtual time on both loops: exact, ordered, repeatable, and a lost wake-up is an error."""

from __future__ import annotations

import random
import threading
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import anyio
import anyio.lowlevel
import pytest
from anyio import from_thread, to_thread

import headgate
from headgate.storage.job_thread import Job, JobThread, StoreThread
from headgate.testing import clock
from headgate.testing.clock import DeadlockError, LivelockError, VirtualLoop, run_virtual

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
    from pathlib import Path

    Through = Callable[[Callable[[], Coroutine[Any, Any, object]]], Awaitable[None]]

Backend = Literal["asyncio", "trio"]


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> Backend:
    chosen: Backend = request.param
    return chosen


def test_time_starts_at_zero_and_a_sleep_ends_exactly_on_time(backend: Backend) -> None:
    async def growing_gaps(seed: int) -> list[tuple[float, float]]:
        seen: list[tuple[float, float]] = [(0.0, anyio.current_time())]
        rng = random.Random(seed)
        for gap in (rng.random() * 10**power for power in range(-6, 7)):
            due = anyio.current_time() + gap
            await anyio.sleep_until(due)
            seen.append((due, anyio.current_time()))
        return seen

    for seed in range(20):
        for due, woke in run_virtual(growing_gaps, seed, backend=backend):
            assert woke == due


def test_sleepers_wake_in_the_order_of_their_times(backend: Backend) -> None:
    async def race() -> list[tuple[float, float]]:
        woken: list[tuple[float, float]] = []

        async def sleeper(seconds: float) -> None:
            await anyio.sleep(seconds)
            woken.append((seconds, anyio.current_time()))

        async with anyio.create_task_group() as group:
            for seconds in (3.0, 1.0, 2.0, 0.5):
                group.start_soon(sleeper, seconds)
        return woken

    assert run_virtual(race, backend=backend) == [(0.5, 0.5), (1.0, 1.0), (2.0, 2.0), (3.0, 3.0)]


def test_timeouts_and_idle_waits_run_on_virtual_time(backend: Backend) -> None:
    async def program() -> float:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 100)
            await anyio.wait_all_tasks_blocked()
            assert anyio.current_time() == 0
            with anyio.move_on_after(5) as scope:
                await anyio.Event().wait()
            assert scope.cancelled_caught
            assert anyio.current_time() == 5
        return anyio.current_time()

    assert run_virtual(program, backend=backend) == 100


def test_arguments_results_and_errors_pass_through(backend: Backend) -> None:
    async def divide(a: int, b: int) -> float:
        await anyio.sleep(1)
        return a / b

    assert run_virtual(divide, 6, 3, backend=backend) == 2
    with pytest.raises(ZeroDivisionError):
        run_virtual(divide, 6, 0, backend=backend)


def test_a_lost_wake_up_is_an_error_that_names_the_waiter_and_runs_its_cleanup(backend: Backend) -> None:
    cleaned: list[float] = []

    async def forgotten_waiter() -> None:
        try:
            await anyio.Event().wait()
        finally:
            cleaned.append(1)

    async def program() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(forgotten_waiter)
            group.start_soon(anyio.sleep, 60)

    with pytest.raises(DeadlockError, match="forgotten_waiter"):
        run_virtual(program, backend=backend)
    assert cleaned == [1]


def test_a_lost_wake_up_behind_a_shield_is_an_error_too(backend: Backend) -> None:
    async def program() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.Event().wait()

    async def group_of_shielded() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(program)
            group.start_soon(program)

    async def with_timers_at_infinity() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep_forever()

    for stuck in (program, group_of_shielded, with_timers_at_infinity):
        with pytest.raises(DeadlockError):
            run_virtual(stuck, backend=backend)


def test_a_thread_can_wake_a_loop_that_has_no_timer(backend: Backend) -> None:
    started = threading.Event()

    def work() -> int:
        started.wait(10)
        from_thread.run_sync(lambda: None)
        return 7

    async def program() -> int:
        async with anyio.create_task_group() as group:
            group.start_soon(partial(to_thread.run_sync, started.set))
            return await to_thread.run_sync(work)
        raise AssertionError

    assert run_virtual(program, backend=backend) == 7


def _cancelled_order() -> list[int]:
    """Park many tasks in one cancel scope, cancel it, and say in which order they learn of it."""

    async def program() -> list[int]:
        order: list[int] = []

        async def parked(number: int) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                order.append(number)

        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(parked, number)
            await anyio.sleep(1)
            group.cancel_scope.cancel()
        return order

    return run_virtual(program)


def _deadlocked_order() -> list[int]:
    """Park many tasks for ever, and say in which order the deadlock ends them."""
    order: list[int] = []

    async def parked(number: int) -> None:
        try:
            await anyio.Event().wait()
        finally:
            order.append(number)

    async def program() -> None:
        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(parked, number)

    with pytest.raises(DeadlockError):
        run_virtual(program)
    return order


@pytest.mark.parametrize("end_of_tasks", [_cancelled_order, _deadlocked_order])
def test_tasks_that_are_cancelled_together_end_in_the_same_order_each_time(
    end_of_tasks: Callable[[], list[int]],
) -> None:
    """S8: a run of the simulation can be repeated, cancellations included."""
    rng = random.Random(1)
    orders: list[list[int]] = []
    junk: list[bytearray] = []
    for _ in range(4):
        orders.append(end_of_tasks())
        junk.extend(bytearray(rng.randrange(16, 2048)) for _ in range(500))
    assert len(orders[0]) == 50
    assert all(order == orders[0] for order in orders)


def test_the_loop_serves_anyio_run_as_a_loop_factory() -> None:
    async def hour() -> float:
        await anyio.sleep(3600)
        return anyio.current_time()

    assert anyio.run(hour, backend_options={"loop_factory": VirtualLoop}) == 3600


def test_tasks_that_keep_each_other_busy_are_an_error(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer for a moment that has passed, set again and again, would hang the test for ever."""
    monkeypatch.setattr(clock, "TURNS_MAX", 500)

    async def wait_for_the_past() -> None:
        await anyio.sleep(3)
        while anyio.current_time() < 4:
            await anyio.lowlevel.checkpoint()

    with pytest.raises(LivelockError, match="at 3 s"):
        run_virtual(wait_for_the_past, backend=backend)


def test_much_work_at_one_instant_is_no_livelock(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "TURNS_MAX", 500)

    async def work() -> float:
        for _ in range(4):
            for _ in range(200):
                await anyio.lowlevel.checkpoint()
            await anyio.sleep(1)
        return anyio.current_time()

    assert run_virtual(work, backend=backend) == 4


def test_a_thread_is_waited_for_though_one_of_an_earlier_loop_ends_meanwhile() -> None:
    """As many threads as when the loop began, but not the same ones."""
    leaves = threading.Event()
    earlier = threading.Thread(target=leaves.wait)
    earlier.start()

    async def main() -> bool:
        leaves.set()
        earlier.join()
        return await to_thread.run_sync(threading.Event().wait, 0.05)

    assert run_virtual(main) is False


def test_a_thread_that_an_earlier_run_left_is_waited_for_when_it_works_again(backend: Backend) -> None:
    """trio keeps the threads of its runs: which of them work for this one is not told by their number."""

    async def main() -> bool:
        return await to_thread.run_sync(threading.Event().wait, 0.05)

    for _ in range(2):
        assert run_virtual(main, backend=backend) is False


async def _through_an_async_generator(wait: Callable[[], Awaitable[object]]) -> None:
    async def pieces() -> AsyncGenerator[object]:
        yield await wait()

    async for _ in pieces():
        pass


async def _through_await(wait: Callable[[], Coroutine[Any, Any, object]]) -> None:
    class Later:
        def __await__(self) -> Generator[Any, Any, object]:
            return wait().__await__()

    await Later()


async def _through_what_hides_it(wait: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """As compiled code does."""

    class Hidden:
        def __init__(self) -> None:
            self._steps = wait().__await__()
            self.send, self.throw = self._steps.send, self._steps.throw

        def __await__(self) -> Hidden:
            return self

        def __iter__(self) -> Hidden:
            return self

        def __next__(self) -> object:
            return next(self._steps)

    hidden: Any = Hidden()
    await hidden


@pytest.mark.parametrize("through", [_through_an_async_generator, _through_await, _through_what_hides_it])
def test_a_thread_that_was_left_is_seen_whatever_the_task_waits_through(through: Through) -> None:
    async def wait() -> bool:
        return await to_thread.run_sync(threading.Event().wait, 0.02)

    for _ in range(2):
        run_virtual(through, wait, backend="trio")


def test_the_thread_of_a_store_in_use_is_waited_for(backend: Backend) -> None:
    """One that an earlier run has started."""

    def serve(jobs: list[Job[int]]) -> None:
        threading.Event().wait(0.02)
        thread.settle(jobs)

    thread: JobThread[int] = JobThread("store", serve, lambda: None)
    try:
        for _ in range(2):
            run_virtual(_through_an_async_generator, partial(thread.do, 1), backend=backend)
    finally:
        run_virtual(thread.aclose, backend=backend)


def test_time_stands_still_while_the_thread_of_a_store_works(backend: Backend) -> None:
    """It jumped past every timeout, so that a run with such a store had stalled, or its requests had timed out."""

    def serve(jobs: list[Job[int]]) -> None:
        threading.Event().wait(0.02)
        thread.settle(jobs)

    async def program() -> float:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep, 5.0)
            with anyio.fail_after(1.0):
                for job in range(3):
                    await thread.do(job)
        with anyio.move_on_after(0.0):
            await thread.do(4)
        await thread.aclose()
        return anyio.current_time()

    thread: JobThread[int] = JobThread("store", serve, lambda: None)
    assert run_virtual(program, backend=backend) == 5.0


@pytest.mark.parametrize("for_us", [True, False])
def test_a_store_that_hangs_or_works_for_another_loop_does_not_stop_time_for_good(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, for_us: bool
) -> None:
    if for_us:
        slept: list[float] = []
        looks = iter(range(1000))
        monkeypatch.setattr(clock, "time", SimpleNamespace(sleep=slept.append, monotonic=lambda: 40.0 * next(looks)))
    ends = threading.Event()
    other = StoreThread(ends.wait, "other", lambda loop: for_us)
    other.start()
    try:
        run_virtual(anyio.sleep, 60.0, backend=backend)
    finally:
        ends.set()
        other.join()


def test_a_run_with_a_store_on_disk_takes_the_time_that_its_requests_take(backend: Backend, tmp_path: Path) -> None:
    pipeline = headgate.Pipeline("on_disk")

    @pipeline.column(model="openai/gpt-x")
    async def slow(topic: str) -> str:
        await anyio.sleep(5.0)
        return topic

    async def main() -> headgate.RunReport:
        rows = [{"topic": str(number)} for number in range(8)]
        limits = {"openai/gpt-x": {"concurrency": 4}}
        return await headgate.arun(pipeline, rows, limits=limits, store=tmp_path / "run.db", seed=1)

    report = run_virtual(main, backend=backend)
    assert (report.status, report.done, round(report.seconds)) == ("completed", 8, 10)


@pytest.mark.parametrize("through", [_through_an_async_generator, _through_await])
def test_a_thread_of_somebody_else_puts_off_no_deadlock_on_trio(
    through: Through, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as the one through which a worker of pytest is told what to do: each deadlock would take its patience."""
    slept: list[float] = []
    monkeypatch.setattr(clock, "time", SimpleNamespace(sleep=slept.append, monotonic=lambda: sum(slept)))
    ends = threading.Event()
    other = threading.Thread(target=ends.wait)
    other.start()
    try:
        with pytest.raises(DeadlockError):
            run_virtual(through, lambda: anyio.Event().wait(), backend="trio")
    finally:
        ends.set()
        other.join()
    assert slept == []


def test_with_no_other_thread_a_deadlock_is_told_at_once_whatever_hides_it(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(clock, "time", SimpleNamespace(sleep=slept.append, monotonic=lambda: sum(slept)))
    monkeypatch.setattr(threading, "enumerate", lambda: [threading.current_thread()])
    with pytest.raises(DeadlockError):
        run_virtual(_through_what_hides_it, lambda: anyio.Event().wait(), backend="trio")
    assert slept == []
