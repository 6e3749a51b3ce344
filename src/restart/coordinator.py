"""One replica's part in deciding, performed: calls of the store and of the sources, and whoever waits for them.

The analysis belongs to the coordinator, not to anybody who waits for its result (R6, T62).
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar

import anyio

from ..errors import ConfigError, HeadgateError, StoreError, StoreUnavailable
from ..events.sinks import Ear
from ..log import logger
from ..values import said_by, writable
from ..wakeup import Wakeup, is_leaked
from . import asking
from .codec import decode, encode, register_of
from .config import RestartConfig
from .core import Ask, CoordinatorCore, Look, SourceFacts, Start, Swap
from .telling import RestartNews

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import TracebackType

    from ..events import EventSink
    from .ports import DecisionStore, RestartSource
    from .record import Decision, RunRecord
    from .values import Cycle, Failure, TaskId

__all__ = ["Entry", "RestartCoordinator"]


T = TypeVar("T")

_LEAVING_S = 2.0
"""How long a leader who leaves tries to say so. If he cannot, his lease runs out."""


class Entry(NamedTuple):
    """The cycle in which a replica lives now, and the tasks that are set aside.

    If the run is closed, ``closed`` is the decision that closed it, and nothing is to be done.
    """

    cycle: int
    quarantined: tuple[TaskId, ...] = ()
    closed: Decision | None = None


class RestartCoordinator:
    """One replica of a run, which decides with all others whether it goes on after a cycle has ended badly.

    ::

        async with RestartCoordinator("tickets", store, sources=[...]) as coordinator:
            entry = await coordinator.enter()
            ...
            coordinator.failed(Failure(Cause("crash"), progress=1200))
            await recover()                             # meanwhile the sources analyse
            decision = await coordinator.decision()

    ``store`` is where replicas meet: any store of headgate, or another :class:`~headgate.restart.ports.DecisionStore`.
    ``replica`` is a name for people; ``clock`` gives wall-clock seconds, ``lineage`` names for runs and replicas.
    ``events`` is told what this replica asks and what is decided: see :mod:`headgate.events`. Under a
    :class:`~headgate.restart.supervisor.Supervisor` hand it to that instead, which knows more. Raises ConfigError for
    two sources of one name.
    """

    def __init__(
        self,
        run: str,
        store: DecisionStore,
        *,
        sources: Sequence[RestartSource] = (),
        config: RestartConfig | None = None,
        replica: str | None = None,
        clock: Callable[[], float] = time.time,
        lineage: Callable[[], str] = lambda: uuid.uuid4().hex,
        events: EventSink | None = None,
    ) -> None:
        self.run = run
        self._store = store
        self._sources = {source.name: source for source in sources}
        if len(self._sources) < len(sources):
            names = sorted(source.name for source in sources)
            raise ConfigError(f"two restart sources have one name: {', '.join(names)}; give each its own")
        self.config = config or RestartConfig()
        self._replica = writable(f"{replica or f'{socket.gethostname()}:{os.getpid()}'}#{lineage()[:8]}")
        self._clock = clock
        self._lineage = lineage
        self._ear = Ear(events)
        self._news_told = RestartNews(run)
        self._wakeup = Wakeup()
        self._changed = anyio.Event()
        self._core: CoordinatorCore | None = None
        self._error: StoreError | None = None

    async def __aenter__(self) -> Self:
        self._core = CoordinatorCore(
            self.run,
            self._replica,
            [SourceFacts(source.name, source.elsewhere) for source in self._sources.values()],
            self.config.core_options(),
            lineage=self._lineage(),
            wall_s=self._clock() - anyio.current_time(),
        )
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._main, self._core)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        core = self._inside()
        self._core = None
        self._notify()
        try:
            # The group has no errors of its own, so the caller's passes as it is.
            self._tasks.cancel_scope.cancel()
            await self._tasks.__aexit__(None, None, None)
        finally:
            await self._leave(core)

    # What its user says, and asks

    async def enter(self, *, reopen: bool = False) -> Entry:
        """Begin a life of this replica, and return once the run is not about to be decided.

        A run that was stopped stays so for everybody until somebody says ``reopen``. Raises StoreUnavailable if the
        store does not answer for ``recovery_timeout`` seconds, StoreError if it never will.
        """
        core = self._inside()
        core.enter(reopen=reopen)
        self._wakeup.set()
        await self._until(lambda: core.cycle is not None or core.refusal is not None)
        self._tell(core)
        return Entry(core.cycle or core.record.cycle, core.record.quarantined, core.refusal)

    def failed(self, failure: Failure) -> None:
        """This life has ended badly. Returns at once; the analysis goes on beside whatever is done next (T56)."""
        core = self._inside()
        if core.cycle is None:
            raise HeadgateError("a replica that has not entered cannot fail: await enter() first")
        core.failed(failure, anyio.current_time())
        self._tell(core)
        self._wakeup.set()

    async def decision(self) -> Decision:
        """Wait for what is decided about the cycle in which this replica lives; the same for all of them (R1).

        After a failure it takes ``recovery_timeout`` seconds at most, whatever the store and the sources do.
        """
        core = self._inside()
        while core.decision is None:
            await self._news()
        self._tell(core)
        return core.decision

    async def told_to_stop(self) -> Decision:
        """Wait until the run is closed, by whomever: then this replica is to end, cleanly."""
        core = self._inside()
        while core.closing is None:
            await self._news()
        self._tell(core)
        return core.closing

    async def finished(self, status: str = "completed") -> None:
        """The run has finished: from the return on nobody stops it (R5). Raises StoreError, as :meth:`enter`."""
        core = self._inside()
        core.finished(status)
        self._wakeup.set()
        await self._until(lambda: bool(core.record.finished))

    def wall_time(self) -> float:
        """The wall clock, in seconds, by which the times on record were written."""
        return self._clock()

    @property
    def record(self) -> RunRecord:
        """All that is on record about the run, as it was seen last: to look at, or to print."""
        return self._inside().record

    # What is done about it

    async def _main(self, core: CoordinatorCore) -> None:
        while True:
            for effect in core.step(anyio.current_time()):
                self._perform(core, effect)
            self._tell(core)
            self._notify()
            await self._wakeup.wait(core.next_tick(anyio.current_time()))

    def _perform(self, core: CoordinatorCore, effect: Look | Swap | Start | Ask) -> None:
        match effect:
            case Look() | Swap():
                self._tasks.start_soon(self._call, core, effect)
            case Start(source, cycle):
                self._tasks.start_soon(self._start, self._sources[source], cycle)
            case Ask():
                self._tasks.start_soon(self._ask, core, effect)

    async def _call(self, core: CoordinatorCore, effect: Look | Swap) -> None:
        try:
            with anyio.fail_after(self.config.lease):
                await self._do(core, effect)
            self._error = None
        except (StoreError, TimeoutError) as error:
            core.store_failed(anyio.current_time())
            self._error = error if isinstance(error, StoreError) else _unavailable(self.config.lease)
            logger().warning("restart_store_failed", run=self.run, error=str(self._error))
        self._wakeup.set()

    async def _do(self, core: CoordinatorCore, effect: Look | Swap) -> None:
        if isinstance(effect, Swap):
            done = await self._sanely(self._write(effect))
            core.swapped(effect, anyio.current_time(), done=done)
        else:
            version, record = await self._sanely(self._read())
            core.seen(version, record, anyio.current_time())

    async def _write(self, swap: Swap) -> bool:
        return await self._store.write_register(register_of(self.run), encode(swap.record), after=swap.after)

    async def _read(self) -> tuple[int, RunRecord | None]:
        version, data = await self._store.read_register(register_of(self.run))
        return version, decode(data) if version else None

    async def _sanely(self, call: Awaitable[T]) -> T:
        """What the store says. Raises StoreError, TimeoutError; all else that it raises is its fault, and one too."""
        try:
            return await call
        except (StoreError, TimeoutError):
            raise
        except BaseException as error:
            if not isinstance(error, Exception) and not is_leaked(error):
                raise
            if self._error is None:  # once: it is asked again and again
                logger().exception("restart_store_broken", run=self.run)
            said = f"{type(error).__name__}: {said_by(error)}"
            raise StoreError(f"the store that keeps decisions is broken: {said}") from error

    async def _start(self, source: RestartSource, cycle: Cycle) -> None:
        await asking.start(source, cycle, timeout_s=self.config.timeout)

    async def _ask(self, core: CoordinatorCore, ask: Ask) -> None:
        config = self.config
        timeout_s = config.timeout + config.late_window
        try:
            answer = await asking.read(self._sources[ask.source], ask.cycle, every_s=config.poll, timeout_s=timeout_s)
            if answer is not None:
                core.answered(ask.source, ask.cycle.number, answer, anyio.current_time())
        except asking.NoAnswer as error:
            core.not_answered(ask.source, ask.cycle.number, error.heard, str(error), anyio.current_time())
        self._wakeup.set()

    async def _leave(self, core: CoordinatorCore) -> None:
        """Whoever leads lets others, so that they need not wait for the end of the lease."""
        if not core.leads:
            return
        core.leave()
        with anyio.move_on_after(_LEAVING_S, shield=True):
            while core.leads and (effects := core.step(anyio.current_time())):
                for effect in effects:
                    if isinstance(effect, (Look, Swap)):
                        await self._call(core, effect)

    def _tell(self, core: CoordinatorCore) -> None:
        """Whoever returns first with something that is new tells it."""
        if self._ear:
            for event in self._news_told.since(core, self._clock()):
                self._ear.say(event)

    # Who waits

    async def _until(self, is_so: Callable[[], bool]) -> None:
        """Wait for what the store has to tell. Raises its error if it never will, or does not for too long."""
        with anyio.move_on_after(self.config.recovery_timeout):
            while not is_so():
                if self._error is not None and not self._error.retryable:
                    raise self._error
                await self._news()
            return
        raise self._error or _unavailable(self.config.recovery_timeout)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def _news(self) -> None:
        """Wait until anything may have changed."""
        self._inside()
        await self._changed.wait()

    def _inside(self) -> CoordinatorCore:
        if self._core is None:
            raise HeadgateError("the coordinator is not open: use it inside of 'async with RestartCoordinator(...)'")
        return self._core


def _unavailable(seconds: float) -> StoreUnavailable:
    return StoreUnavailable(f"the store that keeps decisions did not answer within {seconds:g} s")
