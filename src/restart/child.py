"""A life of a run that is another process: when it counts as stalled, how it is ended, what its end means.

What it has gained is looked up in the store, never asked of it: a process that hangs says nothing, and one that is
wrong about itself says the wrong thing. What it says at its end is believed about why it ended, not about its gains.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, field, replace
from enum import Enum
from math import inf
from typing import TYPE_CHECKING, Final

from ..values import EXIT_CODES
from .lives import LifeEnd
from .values import Cause, Ledger

if TYPE_CHECKING:
    from .values import TaskId

__all__ = ["FINISHED", "ChildEnd", "ChildReport", "ChildWatch", "Push", "memory_kills"]

FINISHED: Final = frozenset({"completed", "completed_with_failures"})
"""The statuses of a run that has finished."""

_STOPPED: Final = EXIT_CODES["stopped"]
_LOOKS: Final = 20
"""How often what is committed is looked up within the time after which a child counts as stalled."""
_LOOK_LEAST_S: Final = 0.5
_LOOK_MOST_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class ChildReport:
    """What a child has said of its end. ``error`` is what it raised; ``is_final``: no restart cures that.

    ``report`` is the report of its run, as plain data for whoever shows it.
    """

    status: str
    exit_code: int
    error: Cause | None = None
    is_final: bool = False
    ledger: Ledger = field(default_factory=Ledger)
    report: dict[str, object] | None = None


class Push(Enum):
    """What is done to a child that is to end."""

    INTERRUPT = "interrupt"
    KILL = "kill"


class ChildWatch:
    """One child, from its start until it is gone.

    It is ``stalled`` when a look at what is committed, ``stall_timeout_s`` after the last one that found something new,
    finds nothing: a supervisor that could not look meanwhile, or only long before, does not know. It gets ``grace_s``
    between being interrupted and being killed.
    """

    __slots__ = (
        "_gained_at",
        "_grace_s",
        "_interrupted",
        "_kill_at",
        "_looked_at",
        "_stall_timeout_s",
        "first",
        "last",
        "look_at",
        "stalled",
        "stopped",
    )

    def __init__(self, now: float, *, stall_timeout_s: float, grace_s: float) -> None:
        self._stall_timeout_s = stall_timeout_s
        self._grace_s = grace_s
        self._gained_at = self._looked_at = now
        self._kill_at = inf
        self._interrupted = False
        self.first: int | None = None
        self.last: int | None = None
        """What was on record when that was told for the first time, and for the last; None if it never was."""
        self.look_at = now
        """When what is committed is to be looked up next."""
        self.stalled = False
        self.stopped = False
        """Whether it was told to end because nobody wants it to go on."""

    def counted(self, committed: int | None, asked_at: float, now: float) -> None:
        """So many outcomes are on record; None if the store did not say. Whatever changes there is a sign of life."""
        self._looked_at = asked_at
        if self.first is None:
            self.first = committed
        if committed is not None and committed != self.last:
            self.last, self._gained_at = committed, now
        due = now + min(max(self._stall_timeout_s / _LOOKS, _LOOK_LEAST_S), _LOOK_MOST_S)
        self.look_at = due if asked_at >= self._stalls_at else min(due, self._stalls_at)

    def stop(self) -> None:
        """Nobody wants it to go on."""
        self.stopped = True

    def push(self, now: float) -> Push | None:
        """What is to be done to it now; each push is told once."""
        if not self._interrupted and (self.stopped or self._looked_at >= self._stalls_at):
            self._interrupted = True
            self.stalled = not self.stopped
            self._kill_at = now + self._grace_s
            return Push.INTERRUPT
        if now >= self._kill_at:
            self._kill_at = inf
            return Push.KILL
        return None

    @property
    def next_tick(self) -> float:
        """When there may be another push, if nothing is told before."""
        return self._kill_at

    @property
    def _stalls_at(self) -> float:
        return self._gained_at + self._stall_timeout_s


@dataclass(frozen=True, slots=True)
class ChildEnd:
    """How a child ended: with exit ``code``, negative if by a signal; what it had said; what was found out besides.

    ``memory_kills`` is how many processes beside it the system killed meanwhile for want of memory, None if nobody
    knows; ``at_work`` the tasks that were in flight when it ended, or when it was found stalled.
    """

    code: int
    said: ChildReport | None = None
    stalled: bool = False
    stopped: bool = False
    stall_timeout_s: float = inf
    deadline_is_over: bool = False
    memory_kills: int | None = None
    at_work: tuple[TaskId, ...] = ()

    def life_end(self, progress: int) -> LifeEnd:
        """What it means for the run. ``progress`` outcomes are on record that were not before."""
        said = self.said
        if said is not None and said.status in FINISHED and said.error is None:
            return LifeEnd(said.status, said.exit_code, progress=progress, ledger=said.ledger)
        if self.stopped or (said is None and self.code == _STOPPED and not self.stalled):
            return LifeEnd("stopped", _STOPPED, finished=False, progress=progress)
        if self.stalled:
            message = f"nothing was committed for {self.stall_timeout_s:g} s"
            return self._bad("stalled", Cause("stalled", message=message), progress)
        if self.code < 0:
            return self._bad("killed", self._killed(), progress)
        if said is None or self.code != said.exit_code:
            return self._bad("crashed", Cause("exited", f"exit code {self.code}", "it did not say why"), progress)
        if said.error is not None:
            return self._bad("crashed", said.error, progress)
        if said.status in ("stopped", "budget_exhausted") or self.deadline_is_over:
            return LifeEnd(said.status, said.exit_code, finished=False, progress=progress, ledger=said.ledger)
        return self._bad(said.status, Cause(said.status), progress)

    def _killed(self) -> Cause:
        name = _name(-self.code)
        if -self.code != signal.SIGKILL:
            return Cause("killed", name, f"by {name}, which was not sent by its supervisor")
        if self.memory_kills:
            killed = "1 process" if self.memory_kills == 1 else f"{self.memory_kills} processes"
            return Cause("out_of_memory", message=f"the system killed {killed} for want of memory")
        if self.memory_kills == 0:
            return Cause("killed", name, "by SIGKILL, which was not sent by its supervisor")
        return Cause("killed", name, "by SIGKILL, which was not sent by its supervisor: perhaps for want of memory")

    def _bad(self, status: str, cause: Cause, progress: int) -> LifeEnd:
        ledger = self.said.ledger if self.said is not None else Ledger()
        code = self.said.exit_code if self.said is not None else EXIT_CODES["crashed"]
        in_flight = self.at_work or ledger.in_flight
        return LifeEnd(status, code, cause, False, progress, ledger=replace(ledger, in_flight=in_flight))


def memory_kills(events: str) -> int | None:
    """How many processes of a control group were killed for want of memory, from its ``memory.events``, in version 1
    its ``memory.oom_control``.
    """
    for line in events.splitlines():
        name, _, count = line.partition(" ")
        if name == "oom_kill" and count.strip().isdigit():
            return int(count)
    return None


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
