"""Lives of a run that are processes: begun, watched from outside, ended, and asked what they had to say.

A life and its process share a directory. ``orders.json`` stands in it before the process begins, the process writes
``end.json`` when it ends in good order, and notes in ``in_flight`` what is at work. The process has a session of its
own, so that Ctrl-C reaches it through its supervisor only, and its standard input ends when its supervisor does.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from contextlib import suppress
from math import inf
from pathlib import Path
from subprocess import PIPE
from typing import IO, TYPE_CHECKING, Final, NamedTuple

import anyio
from anyio import to_thread
from pydantic import TypeAdapter, ValidationError

from .. import errors
from ..errors import ConfigError, HeadgateError, StoreError, UnknownRun
from ..log import logger
from ..wakeup import Wakeup
from .child import ChildEnd, ChildReport, ChildWatch, Push, memory_kills
from .in_flight import read_in_flight
from .supervisor import NO_CURE
from .values import TaskId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from anyio.abc import Process

    from .lives import LifeEnd
    from .supervisor import Life
    from .values import Cause

__all__ = [
    "CGROUP",
    "CGROUPS",
    "ChildStart",
    "ProcessLives",
    "at_work_file",
    "own_memory_kills",
    "read_orders",
    "say_end",
]


_REPORTS: Final = TypeAdapter(ChildReport)
_ORDERS: Final = TypeAdapter(tuple[TaskId, ...])
_ORDERS_FILE: Final = "orders.json"
_END_FILE: Final = "end.json"
_COUNT_S: Final = 10.0
"""How long the store may take to say what is committed, where a life waits for it."""
_HANGING_MOST: Final = 4
"""Threads in which the store says nothing for longer than that. With so many it is not asked."""

CGROUP: Final = Path("/proc/self/cgroup")
CGROUPS: Final = Path("/sys/fs/cgroup")


class ChildStart(NamedTuple):
    """What a process is begun with: the directory of its life, and how many seconds all that is left may take."""

    folder: Path
    deadline_s: float


class ProcessLives:
    """Lives for a :class:`~headgate.restart.supervisor.Supervisor`, each a process of its own::

        lives = ProcessLives(lambda start: ["python", "job.py", str(start.folder)], committed=count)
        await Supervisor(coordinator, lives.live).run()

    ``committed`` says how many outcomes are on record, of all lives: it is called in a thread, may raise StoreError,
    and is all that counts as progress. A process that commits nothing for ``stall_timeout_s`` is interrupted, and so
    is one that is to end; ``grace_s`` later its process group is killed. ``deadline_s`` is that of all lives together.
    The processes have ``env`` and write to ``stdout``; None: what this one has.
    """

    def __init__(
        self,
        command: Callable[[ChildStart], Sequence[str]],
        committed: Callable[[], int],
        *,
        stall_timeout_s: float = 7200.0,
        grace_s: float = 15.0,
        deadline_s: float = inf,
        env: Mapping[str, str] | None = None,
        stdout: int | IO[bytes] | None = None,
    ) -> None:
        if not stall_timeout_s > 0:
            raise ConfigError("stall_timeout must be more than zero seconds: a cell takes time")
        if os.name != "posix":
            raise ConfigError("lives as processes need POSIX, for process groups: supervise in process instead")
        self._command = command
        self._committed = committed
        self._stall_timeout_s = stall_timeout_s
        self._grace_s = grace_s
        self._ends_at = anyio.current_time() + deadline_s
        self._env = env
        self._stdout = stdout
        # What was on record when it was told last, if it was not told at the end of the last life.
        self._uncounted: int | None = None
        self._counting: set[object] = set()
        self.said: ChildReport | None = None
        """What the last process said of its end."""

    async def live(self, life: Life) -> LifeEnd:
        """One process, from its start until it is gone. Raises what no restart cures, as the process has named it."""
        folder = Path(tempfile.mkdtemp(prefix="headgate-"))
        try:
            return await self._live(life, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def _live(self, life: Life, folder: Path) -> LifeEnd:
        self.said = None
        (folder / _ORDERS_FILE).write_bytes(_ORDERS.dump_json(life.entry.quarantined))
        before, kills = await self._count(), own_memory_kills()
        command = self._command(ChildStart(folder, max(0.0, self._ends_at - anyio.current_time())))
        process = await anyio.open_process(
            list(command), stdin=PIPE, stdout=self._stdout, stderr=None, env=self._env, start_new_session=True
        )
        watch = ChildWatch(anyio.current_time(), stall_timeout_s=self._stall_timeout_s, grace_s=self._grace_s)
        try:
            stalled_at = await self._follow(process, watch, life, folder)
        finally:
            _kill(process)
            with anyio.CancelScope(shield=True):
                await process.aclose()
        gained = await self._gained(before, watch)
        killed = own_memory_kills()
        self.said = said = _read_end(folder / _END_FILE)
        code = process.returncode
        assert code is not None, "it is gone"
        end = ChildEnd(
            code,
            said,
            stalled=watch.stalled,
            stopped=watch.stopped,
            stall_timeout_s=self._stall_timeout_s,
            deadline_is_over=anyio.current_time() >= self._ends_at,
            memory_kills=None if kills is None or killed is None else killed - kills,
            at_work=stalled_at or read_in_flight(at_work_file(folder)),
        )
        if said is not None and said.error is not None and said.is_final and not (watch.stalled or watch.stopped):
            raise _raised(said.error)
        return end.life_end(gained)

    async def _gained(self, before: int | None, watch: ChildWatch) -> int:
        """How many outcomes are new on record. What the store does not tell now counts a life later."""
        first = watch.first if before is None else before  # a store that came late: less is known, but not nothing
        if self._uncounted is not None:
            first = self._uncounted if first is None else min(first, self._uncounted)
        after = await self._count()
        last = watch.last if after is None else after
        if last is None:
            last = first
        self._uncounted = last if after is None else None
        return 0 if first is None or last is None else max(0, last - first)

    async def _follow(self, process: Process, watch: ChildWatch, life: Life, folder: Path) -> tuple[TaskId, ...]:
        """Return when it is gone: what was at work when it was found to have stalled."""
        wakeup, at_work = Wakeup(), tuple[TaskId, ...]()

        async def is_gone() -> None:
            await process.wait()
            wakeup.set()

        async def is_to_stop() -> None:
            await life.stopping.wait()
            watch.stop()
            wakeup.set()

        async def counts() -> None:
            while True:
                asked_at = anyio.current_time()
                watch.counted(await self._count(), asked_at, anyio.current_time())
                wakeup.set()
                await anyio.sleep_until(watch.look_at)

        async with anyio.create_task_group() as tasks:
            for task in (is_gone, is_to_stop, counts):
                tasks.start_soon(task)
            while process.returncode is None:
                match watch.push(anyio.current_time()):
                    case Push.INTERRUPT:
                        if watch.stalled:
                            at_work = read_in_flight(at_work_file(folder))
                            logger().warning("restart_child_stalled", pid=process.pid, seconds=self._stall_timeout_s)
                        with suppress(ProcessLookupError):
                            process.send_signal(signal.SIGINT)
                    case Push.KILL:
                        logger().warning("restart_child_killed", pid=process.pid, grace_s=self._grace_s)
                        _kill(process)
                    case None:
                        await wakeup.wait(watch.next_tick)
            tasks.cancel_scope.cancel()
        return at_work

    async def _count(self) -> int | None:
        """How many outcomes are on record; None if the store does not say. A few threads that hang are left alone."""
        if len(self._counting) >= _HANGING_MOST:
            return None
        thread = object()

        def committed() -> int:
            self._counting.add(thread)
            try:
                return self._committed()
            finally:
                self._counting.discard(thread)

        with anyio.move_on_after(_COUNT_S):
            try:
                return await to_thread.run_sync(committed, abandon_on_cancel=True)
            except UnknownRun:
                return 0
            except StoreError as error:
                logger().warning("restart_progress_unknown", error=str(error))
        return None


def at_work_file(folder: Path) -> Path:
    """Where a process notes what is at work: see :class:`~headgate.restart.in_flight.InFlightFile`."""
    return folder / "in_flight"


def read_orders(folder: Path) -> tuple[TaskId, ...]:
    """For the process: the tasks that are set aside. Raises ConfigError for a directory that is not of a life."""
    try:
        return _ORDERS.validate_json((folder / _ORDERS_FILE).read_bytes())
    except (OSError, ValidationError) as error:
        raise ConfigError(f"{folder}: is not the directory of a life that a supervisor began: {error}") from error


def say_end(folder: Path, report: ChildReport) -> None:
    """For the process: how it ends, as the last thing that it does. A supervisor that is gone is not told."""
    written = folder / f"{_END_FILE}.new"
    with suppress(OSError):
        written.write_bytes(_REPORTS.dump_json(report))
        written.replace(folder / _END_FILE)


def _read_end(path: Path) -> ChildReport | None:
    try:
        return _REPORTS.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _raised(error: Cause) -> Exception:
    kind = getattr(errors, error.kind, None)
    known = kind if isinstance(kind, type) and issubclass(kind, HeadgateError) and issubclass(kind, NO_CURE) else None
    return (known or ConfigError)(error.message)


def _kill(process: Process) -> None:
    """Kill it with all that it has begun. While it is not waited for, nobody else gets its number."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def own_memory_kills() -> int | None:
    """How many processes of this control group were killed for want of memory; None where that cannot be read."""
    with suppress(OSError, UnicodeDecodeError):
        for place in _memory_events(CGROUP.read_text(encoding="ascii").splitlines()):
            with suppress(OSError):
                return memory_kills(place.read_text(encoding="ascii"))
    return None


def _memory_events(groups: Sequence[str]) -> Iterator[Path]:
    """Where the kills of the own group are counted: under version 2, and under version 1 if that has the memory."""
    for group in sorted(groups):  # version 2 is hierarchy 0
        hierarchy, _, rest = group.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0":
            yield CGROUPS / path.lstrip("/") / "memory.events"
        elif "memory" in controllers.split(","):
            yield CGROUPS / "memory" / path.lstrip("/") / "memory.oom_control"
