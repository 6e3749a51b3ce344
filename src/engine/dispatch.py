"""Starting ready tasks: the lease and the worker in one step, or neither.

The shell around :class:`~headgate.scheduler.dispatcher.Dispatcher`. A lane with ready tasks either places them at
once, or leaves one standing bid with admission and sleeps until it is granted: no lane is looked at while it is
blocked, and admission never sees more than one bid per lane of a run (T22).
"""

from __future__ import annotations

from enum import Enum, auto
from math import inf
from typing import TYPE_CHECKING

from ..admission.controller import AdmissionController, Bidder
from ..admission.timers import Timers
from ..admission.values import Denied, Lease, Refuse, Request
from ..values import Outcome
from .plan import LOCAL

if TYPE_CHECKING:
    from ..scheduler.dispatcher import Dispatcher
    from ..scheduler.frontier import Task
    from .starts import Starts

__all__ = ["STARTS_PER_JOB", "STARTS_PER_STEP", "Dispatch"]

STARTS_PER_STEP = 32
"""Tasks started before the loop gets a turn: at some 60 us each, far below a stall that anyone notices (T25)."""

STARTS_PER_JOB = 2
"""Tasks that the end of a job may start. Usually it makes room for one; many ends in one turn must not add up."""


_NO_BID = (-1, None)
_FOR_GOOD = 1e300  # a time that never comes, told apart from "not blocked", which Timers calls inf


class _Served(Enum):
    """How serving a lane ended."""

    EMPTY = auto()
    BID = auto()
    NO_WORKER = auto()
    BLOCKED = auto()
    ENOUGH = auto()


# Named once: they are asked for every task, and looking up an enum's member is slow.
_EMPTY, _BID, _NO_WORKER = _Served.EMPTY, _Served.BID, _Served.NO_WORKER
_BLOCKED, _ENOUGH = _Served.BLOCKED, _Served.ENOUGH


class Dispatch:
    """The lanes of a run that have something to place, and its standing bids.

    ``starts`` is asked first whether a task may start at all, and for what it asks admission; it runs the task with its
    lease, and is told of a refusal for good.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        controller: AdmissionController,
        starts: Starts,
        *,
        model_workers: int,
        local_workers: int,
    ) -> None:
        self.bidder = Bidder()
        self.local_running = 0
        self.model_running = 0
        self._dispatcher = dispatcher
        self._local = frozenset(lane for lane in dispatcher.lanes() if lane.startswith(LOCAL))
        self._controller = controller
        self._start = starts.start
        self._request_of = starts.request_of
        self._refused = starts.refused
        self._denied = starts.denied
        self._model_workers = model_workers
        self._local_workers = local_workers
        self._hungry: dict[str, None] = {}
        # Lanes that found no worker, longest waiting first; local lanes and models have workers of their own.
        self._starved: dict[bool, dict[str, None]] = {True: {}, False: {}}
        # Standing bids by lane, with the task that each will start; None once nobody wants that task any more.
        self._bids: dict[str, tuple[int, Task | None]] = {}
        self._lane_of_bid: dict[int, str] = {}
        self._blocked: Timers[str] = Timers()
        self._left = 0
        self._closed = False

    @property
    def bids(self) -> int:
        """How many bids stand."""
        return len(self._bids)

    def has_bid(self, lane: str) -> bool:
        """Whether ``lane`` waits for admission."""
        return lane in self._bids

    @property
    def unfinished(self) -> bool:
        """Whether a lane has yet to be looked at: ``step`` had started enough, or its bid was taken back since."""
        return bool(self._hungry)

    def step(self, now: float, most: int = STARTS_PER_STEP) -> None:
        """Place what can be placed now, up to ``most`` tasks."""
        self._left = most
        if self._blocked.earliest <= now:
            while (lane := self._blocked.pop_due(now)) is not None:
                self._hungry[lane] = None
        while not self._closed:
            if self.bidder.answers:
                self._take_answers(now)
            if self._dispatcher.woken:
                self._hungry.update(self._dispatcher.take_woken())
            if not self._hungry or self._left <= 0:
                return
            lane = next(iter(self._hungry))
            served = self._serve(lane, now)
            if served is _ENOUGH:
                return
            del self._hungry[lane]
            starved = self._starved[lane in self._local]
            if served is _NO_WORKER:
                starved[lane] = None
            elif starved:
                self._feed(starved)

    def next_tick(self) -> float:
        """When a blocked local lane opens."""
        return self._blocked.earliest

    def ended(self, local: bool) -> None:
        """A task gave its worker back."""
        if local:
            self.local_running -= 1
        else:
            self.model_running -= 1
        starved = self._starved[local]
        if starved:
            self._feed(starved)

    def block_local(self, lane: str, until: float) -> None:
        """Start nothing on a local lane before ``until``; ``inf`` for good."""
        self._blocked.set(lane, min(until, _FOR_GOOD))

    def withdraw_lane(self, lane: str) -> Task | None:
        """Take back the bid of ``lane``; the task that it was for, if there was one."""
        _, task = self._bids.get(lane, _NO_BID)
        if task is not None:
            self.withdraw(task)
        return task

    def withdraw(self, task: Task) -> bool:
        """Take back the bid for ``task``; False if there is none."""
        lane = self._dispatcher.lane_of(task)
        bid, placed = self._bids.get(lane, _NO_BID)
        if placed != task:
            return False
        if self._controller.withdraw(bid):
            del self._bids[lane], self._lane_of_bid[bid]
            self._hungry[lane] = None
        else:
            self._bids[lane] = (bid, None)  # its grant is on the way, and will be given back
        return True

    def close(self, now: float) -> list[Task]:
        """Take back all bids and start nothing more, also when called by what ``step`` calls. Returns their tasks."""
        self._closed = True
        tasks = [task for _, task in self._bids.values() if task is not None]
        for task in tasks:
            self.withdraw(task)
        self._take_answers(now)
        self._hungry.clear()
        for starved in self._starved.values():
            starved.clear()
        return tasks

    def _feed(self, starved: dict[str, None]) -> None:
        """A worker may be free: one lane that found none gets its chance, so they take turns."""
        lane = next(iter(starved))
        del starved[lane]
        self._hungry[lane] = None

    def _serve(self, lane: str, now: float) -> _Served:
        if lane in self._bids:
            return _BID
        local = lane in self._local
        if local and now < self._blocked.at(lane) < inf:
            return _BLOCKED
        while self._left > 0 and not self._closed:
            # A standing bid keeps no worker from others: its lane may be blocked for ever (T26). Its grant starts all
            # the same, so that up to one task per lane may run beyond the bound.
            if self.local_running >= self._local_workers if local else self.model_running >= self._model_workers:
                return _NO_WORKER
            task = self._dispatcher.pop(lane)
            if task is None:
                return _EMPTY
            if self._refused(task, now) or self._closed:
                self._left -= 1  # as much work as a start
                continue
            request = self._request_of(task)
            if request is None:
                self.local_running += 1
                self._left -= 1
                self._start(task, None, now)
            elif self._bid(lane, task, request, now):
                return _BID
        return _ENOUGH

    def _bid(self, lane: str, task: Task, request: Request, now: float) -> bool:
        """Ask for a lease for ``task``. True if it has to wait."""
        answer = self._controller.bid(request, self.bidder, now)
        if isinstance(answer, Lease):
            self.model_running += 1
            self._left -= 1
            self._start(task, answer, now)
            return False
        if isinstance(answer, Denied):
            self._denied(task, answer)
            return False
        self._bids[lane] = (answer, task)
        self._lane_of_bid[answer] = lane
        return True

    def _take_answers(self, now: float) -> None:
        answers = self.bidder.answers
        while answers:
            answer = answers.popleft()
            lane = self._lane_of_bid.pop(answer.waiter)
            _, task = self._bids.pop(lane)
            self._hungry[lane] = None
            if isinstance(answer, Refuse):
                if task is not None:
                    self._denied(task, answer.denied)
            elif task is None or self._refused(task, now) or self._closed:
                self._controller.release(answer.lease, Outcome.CANCELLED, sent=False)
            else:
                self.model_running += 1
                self._left -= 1
                self._start(task, answer.lease, now)
