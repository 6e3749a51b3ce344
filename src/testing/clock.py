"""Virtual time: run async code on a clock that jumps from timer to timer, so that an hour takes milliseconds.

A program under :func:`run_virtual` reads virtual seconds from ``anyio.current_time()`` (starting at 0), and
every sleep ends at once, in order. When nothing is ready and no timer is set, no task can ever run again: a
lost wake-up is then a :class:`DeadlockError` that names the tasks that wait, instead of a test that hangs. When tasks
keep each other busy and time never moves on, that is a :class:`LivelockError`.

Threads do not know virtual time. For the thread of a store time stands still until it has answered. While any other
works, the clock may jump past every timeout: code that needs worker threads takes its thread runner as an argument and
gets one that calls directly here. A wake-up from a thread (``call_soon_threadsafe``) is still served, and a thread that
may be working for the run puts off the deadlock error for two seconds: one that was started in it, or a worker that
trio kept and a task waits for. Other threads of before put off nothing: a pool of your own has to be started in the
run. Signals work as usual. Sockets are looked at only when nothing is ready.

Under :func:`run_virtual` on asyncio a program runs in the same order each time: tasks and cancel scopes,
which anyio keeps in sets, are ordered by serial number here instead of by address. trio shuffles each batch
of tasks on purpose: a test that passes on both does not lean on an order.

Prior art: trio's ``MockClock`` (used here for trio) and asyncio loops whose selector moves the clock.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import math
import selectors
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, TypeVarTuple, Unpack
from weakref import WeakSet

import anyio

from ..errors import HeadgateError
from .waits import may_wait_for_a_thread, place, store_owes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator

    import trio
    import trio.testing

__all__ = ["DeadlockError", "LivelockError", "VirtualLoop", "run_virtual", "seeded_trio"]

STORE_PATIENCE_S: Final = 60.0
"""Real seconds for which time stands still until the thread of a store has answered: no commit takes so long."""

THREAD_PATIENCE_S: Final = 2.0
THREAD_LOOK_S: Final = 0.001
NAMED_TASKS_MAX: Final = 8
TURNS_MAX: Final = 250_000
"""Turns of the loop at one instant: a hundred times what the largest burst of work takes here."""

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


class DeadlockError(HeadgateError):
    """Nothing is ready and no timer is set: what waits would wait for ever. The message names it."""


class LivelockError(HeadgateError):
    """Tasks run and run, and time does not move on: somebody waits for a moment that has passed, over and over."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop on virtual time, for ``anyio.run(..., backend_options={"loop_factory": VirtualLoop})``.

    Time starts at 0 and moves only when every task waits, to the next timer exactly.

    >>> async def hour() -> float:
    ...     await anyio.sleep(3600)
    ...     return anyio.current_time()
    >>> anyio.run(hour, backend_options={"loop_factory": VirtualLoop})
    3600.0
    """

    _scheduled: list[asyncio.TimerHandle]  # the base class's heap: only it tells a timer at infinity

    def __init__(self) -> None:
        self._virtual_s = 0.0
        self._turns = 0
        # Not how many: one of an earlier loop may end while this one works.
        self._threads_before = WeakSet(threading.enumerate())
        super().__init__(_JumpingSelector(self))
        self._serials = itertools.count()
        self.set_task_factory(self._make_task)

    def _make_task(self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        return _SerialTask(next(self._serials), coro, loop=loop, **options)

    def time(self) -> float:
        """Return virtual seconds since the loop was made."""
        return self._virtual_s

    def jump(self) -> None:
        """Move to the next timer. Raises :class:`DeadlockError` if there is none."""
        due = self._next_timer()
        if math.isinf(due):
            raise DeadlockError(_describe(asyncio.all_tasks(self)))
        self._virtual_s = max(self._virtual_s, due)
        self._turns = 0

    def turned(self) -> None:
        """Count a turn at this instant. Raises :class:`LivelockError` when there were too many."""
        self._turns += 1
        if self._turns > TURNS_MAX:
            self._turns = 0  # what ends the tasks needs turns of its own
            raise LivelockError(_livelock_message(self._virtual_s))

    def patience_s(self) -> float:
        """Real seconds to wait for a thread's wake-up when no timer is set: 0 unless one was started in this run."""
        if self._next_timer() < math.inf or self._threads_before.issuperset(threading.enumerate()):
            return 0.0
        return THREAD_PATIENCE_S

    def _next_timer(self) -> float:
        """Return the time of the next timer; sleeping for ever is a timer at infinity, which is none."""
        return self._scheduled[0].when() if self._scheduled else math.inf


class _JumpingSelector(selectors.DefaultSelector):
    """Answers at once; where a real selector would wait, it moves the loop's clock instead."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            self._loop.turned()
            return []
        ready = self._woken_by_a_store() or super().select(self._loop.patience_s())
        if not ready:
            self._loop.jump()
        return ready

    def _woken_by_a_store(self) -> list[tuple[selectors.SelectorKey, int]]:
        since, ready = time.monotonic(), list[tuple[selectors.SelectorKey, int]]()
        while not ready and store_owes(self._loop) and time.monotonic() - since < STORE_PATIENCE_S:
            ready = super().select(THREAD_LOOK_S)
        return ready


class _SerialTask(asyncio.Task[Any]):
    """A task that hashes by its number in the loop: sets of tasks then have the same order in every run."""

    def __init__(self, serial: int, coro: Coroutine[Any, Any, Any], **options: Any) -> None:
        self._serial = serial
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._serial

    def __eq__(self, other: object) -> bool:
        return self is other


@contextmanager
def _serial_scopes() -> Generator[None]:
    """Make anyio's cancel scopes hash by serial number during a run.

    A scope holds its child scopes in a set and cancels them in that set's order, otherwise that of addresses.
    anyio has no hook for this, so the class is replaced in its module; a later anyio without such a class
    only loses the fixed order.
    """
    backend: Any = importlib.import_module("anyio._backends._asyncio")
    plain = getattr(backend, "CancelScope", None)
    if plain is None:
        yield
        return
    backend.CancelScope = _with_serials(plain)
    try:
        yield
    finally:
        backend.CancelScope = plain


def _with_serials(plain: Any) -> Any:
    serials = itertools.count()

    def start(self: Any, *args: Any, **options: Any) -> None:
        plain.__init__(self, *args, **options)
        self.serial = next(serials)

    def serial(self: Any) -> int:
        number: int = self.serial
        return number

    return type(plain.__name__, (plain,), {"__slots__": ("serial",), "__init__": start, "__hash__": serial})


def _describe(tasks: set[asyncio.Task[Any]]) -> str:
    return _deadlock_message(sorted(place(task) for task in tasks if not task.done()))


def _livelock_message(now: float) -> str:
    return f"the loop turned {TURNS_MAX} times at {now:g} s, and time does not move on"


def _deadlock_message(waiting: list[str]) -> str:
    listed = "; ".join(waiting[:NAMED_TASKS_MAX])
    more = f" and {len(waiting) - NAMED_TASKS_MAX} more" if len(waiting) > NAMED_TASKS_MAX else ""
    return f"nothing is ready and no timer is set, but {len(waiting)} task(s) wait: {listed}{more}"


def run_virtual(
    fn: Callable[[Unpack[_Ts]], Awaitable[_T]],
    *args: *_Ts,
    backend: Literal["asyncio", "trio"] = "asyncio",
) -> _T:
    """Run ``fn(*args)`` on virtual time and return its result; time starts at 0 virtual seconds.

    Raises whatever ``fn`` raises, :class:`DeadlockError` when all tasks wait and no timer is set, and
    :class:`LivelockError` when tasks keep running at one instant.

    >>> async def two_waits() -> float:
    ...     async with anyio.create_task_group() as group:
    ...         group.start_soon(anyio.sleep, 30)
    ...         group.start_soon(anyio.sleep, 60)
    ...     return anyio.current_time()
    >>> run_virtual(two_waits)
    60.0
    """
    if backend == "trio":
        return _run_on_trio(fn, args)
    with _serial_scopes():
        return anyio.run(fn, *args, backend="asyncio", backend_options={"loop_factory": VirtualLoop})


def _run_on_trio(fn: Callable[[Unpack[_Ts]], Awaitable[_T]], args: tuple[*_Ts]) -> _T:
    import trio
    import trio.testing

    clock = trio.testing.MockClock(autojump_threshold=0)
    watch = _TrioWatch(clock, trio.CancelScope())

    async def watched() -> _T:
        watch.root = trio.lowlevel.current_task()
        watch.root.name = getattr(fn, "__qualname__", repr(fn))
        try:
            with watch.scope:
                return await fn(*args)
        except Exception as error:
            if watch.error is not None:
                raise watch.error from error
            raise
        assert watch.error is not None
        raise watch.error

    return anyio.run(watched, backend="trio", backend_options={"clock": clock, "instruments": [watch]})


class _TrioWatch:
    """A trio instrument that cancels the run once its loop turns without a task to step or a time to jump to, or turns
    and turns at one instant.

    trio has no such check: with nothing scheduled, a ``MockClock`` turns for ever. An instrument may not
    raise, so it cancels the scope around the run, which then raises the error.
    """

    TURNS = 16  # a jump takes two turns of the loop; anything above is safe

    def __init__(self, clock: trio.testing.MockClock, scope: trio.CancelScope) -> None:
        self.scope = scope
        self.root: trio.lowlevel.Task | None = None
        self.error: DeadlockError | LivelockError | None = None
        self._clock = clock
        self._threads_before = WeakSet(threading.enumerate())
        self._seen_s = -1.0
        self._turns = 0
        self._idle_since = 0.0
        self._instant_s = -1.0
        self._turns_at_instant = 0

    def before_io_wait(self, timeout: float) -> None:
        import trio

        since, token = time.monotonic(), trio.lowlevel.current_trio_token()
        while store_owes(token) and time.monotonic() - since < STORE_PATIENCE_S:
            if trio.lowlevel.current_statistics().tasks_runnable:
                return
            time.sleep(THREAD_LOOK_S)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._turns = 0

    def after_io_wait(self, timeout: float) -> None:
        now = self._clock.current_time()
        self._count(now)
        if now != self._seen_s or self._turns == 0:
            self._seen_s, self._turns, self._idle_since = now, 1, time.monotonic()
            return
        self._turns += 1
        if self._turns <= self.TURNS:
            return
        if self._thread_may_wake():
            time.sleep(THREAD_LOOK_S)  # the thread can work meanwhile
        else:
            self._end()

    def _count(self, now: float) -> None:
        if now != self._instant_s:
            self._instant_s, self._turns_at_instant = now, 0
        self._turns_at_instant += 1
        if self._turns_at_instant > TURNS_MAX and not self.scope.cancel_called:
            self.error = LivelockError(_livelock_message(now))
            self.scope.cancel()

    def _thread_may_wake(self) -> bool:
        threads = threading.enumerate()
        if len(threads) == 1 or time.monotonic() - self._idle_since >= THREAD_PATIENCE_S:
            return False
        # trio keeps idle worker threads for later runs, so one that was there before may work for a task of this one.
        return not self._threads_before.issuperset(threads) or (
            self.root is not None and any(map(may_wait_for_a_thread, _tree(self.root)))
        )

    def _end(self) -> None:
        """Cancel the run; tasks that a shield keeps waiting even then get the error thrown in."""
        import outcome
        import trio

        assert self.root is not None
        stuck = list(_tree(self.root))
        self._turns = 0
        if not self.scope.cancel_called:
            self.error = DeadlockError(_deadlock_message(sorted(task.name for task in stuck)))
            self.scope.cancel()
            return
        for task in stuck:
            if not any(nursery.child_tasks for nursery in task.child_nurseries):
                trio.lowlevel.reschedule(
                    task, outcome.Error(DeadlockError("the run was cancelled, and this task waits"))
                )


def _tree(root: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    pending = [root]
    while pending:
        task = pending.pop()
        yield task
        pending.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)


@contextmanager
def seeded_trio(seed: int) -> Generator[None]:
    """Let trio shuffle its tasks by ``seed``: other seeds give other orders, and one seed always the same.

    trio has no public switch for it, so this sets what hypothesis-trio sets; a later trio without it only makes
    simulations on trio unrepeatable, which S8 then says.
    """
    scheduler: Any = importlib.import_module("trio._core._run")
    before = scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True
    scheduler._r.seed(seed)
    try:
        yield
    finally:
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = before
