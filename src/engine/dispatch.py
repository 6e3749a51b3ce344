"""Starting ready tasks: the lease and the worker in one step, or neither.

The shell around :class:`~headgate.scheduler.dispatcher.Dispatcher`. A lane with ready tasks either places them at
once, or leaves one standing bid with admission and sleeps until it is granted: no lane is looked at while it is
blocked, and admission never sees more than one bid per lane of a run (T22).
"""

from __future__ import annotations

from enum import Enum, auto
from math import inf
from typing import TYPE_CHECKING

from ..admission.answers import Bidder
from ..admission.timers import Timers
from ..admission.values import Denied, Refuse
from ..values import Outcome
from .plan import LOCAL

if TYPE_CHECKING:
    from ..admission.controller import AdmissionController
    from ..admission.values import Lease
    from ..scheduler.dispatcher import Dispatcher
    from ..scheduler.frontier import Task
    from .core import RunCore
    from .starts import Starts

__all__ = ["STARTS_PER_JOB", "STARTS_PER_STEP", "Dispatch", "Room"]

STARTS_PER_STEP = 32
"""Tasks started before the loop gets a turn: at some 60 us each, far below a stall that anyone notices (T25)."""

STARTS_PER_JOB = 2
"""Tasks that the end of a job may start. Usually it makes room for one; many ends in one turn must not add up."""


_FOR_GOOD = 1e300  # a time that never comes, told apart from "not blocked", which Timers calls inf


class Room(Enum):
    """Whether the budget has room for a task. ``NOT_NOW``: what ends may make room, or no other one of its column needs
    less. Where it needs more than is left, whatever ends, and others may need less, the input tokens that are stated of
    it stand instead."""

    FITS = auto()
    NOT_NOW = auto()


class _Served(Enum):
    """How serving a lane ended."""

    EMPTY = auto()
    BID = auto()
    NO_WORKER = auto()
    BLOCKED = auto()
    ENOUGH = auto()


# Named once: they are asked for every task, and looking up an enum's member is slow.
_EMPTY, _BID, _NO_WORKER = _Served.EMPTY, _Served.BID, _Served.NO_WORKER
_BLOCKED, _ENOUGH, _FITS = _Served.BLOCKED, _Served.ENOUGH, Room.FITS


class _Workers:
    """The workers for models, or those for local work: how many run and how many may, and the lanes that found none
    free, longest waiting first."""

    __slots__ = ("most", "running", "starved")

    def __init__(self, most: int) -> None:
        self.most = most
        self.running = 0
        self.starved: dict[str, None] = {}


class _Lane:
    """One lane: who does its work, and its standing bid with the task that it will start; no task once nobody wants
    that any more."""

    __slots__ = ("bid", "name", "task", "workers")

    def __init__(self, name: str, workers: _Workers) -> None:
        self.name = name
        self.workers = workers
        self.bid: int | None = None
        self.task: Task | None = None


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
        self._dispatcher = dispatcher
        self._models, self._local = _Workers(model_workers), _Workers(local_workers)
        self._lanes = {
            name: _Lane(name, self._local if name.startswith(LOCAL) else self._models) for name in dispatcher.lanes()
        }
        self._controller = controller
        self._start = starts.start
        self._request_of = starts.request_of
        self._refused = starts.refused
        self._denied = starts.denied
        self._afford = starts.afford
        self._withdrawn = starts.withdrawn
        self._hungry: dict[str, None] = {}
        self._bids: dict[int, _Lane] = {}  # the lanes with a standing bid, by its number
        self._blocked: Timers[str] = Timers()
        self._left = 0
        self._closed = False

    @property
    def bids(self) -> int:
        """How many bids stand."""
        return len(self._bids)

    def has_bid(self, lane: str) -> bool:
        """Whether ``lane`` waits for admission."""
        return self._lanes[lane].bid is not None

    @property
    def unfinished(self) -> bool:
        """Whether a lane has yet to be looked at: ``step`` had started enough, or its bid was taken back since."""
        return bool(self._hungry)

    def exhausted(self, core: RunCore) -> bool:
        """Whether only the budget keeps what is ready from its start, and time changes nothing about that: no bid
        stands, no lane opens, and nothing is held back that may find room. To be asked while no job runs."""
        passed = self._dispatcher.passed
        if not passed or self._closed or self._bids or self._hungry or self._dispatcher.woken or core.unfinished:
            return False
        if self._blocked.earliest < _FOR_GOOD:
            return False
        # Its own tokens may be why the next task of a column found no room; stated for all, they are those of a retry.
        refused = {column for column in passed if not callable(core.plans[column].column.tokens)}
        return all(task.column in refused for task in core.salvage.waiting_tasks())

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
            place = self._lanes[lane]
            served = self._serve(place, now)
            if served is _ENOUGH:
                return
            del self._hungry[lane]
            starved = place.workers.starved
            if served is _NO_WORKER:
                starved[lane] = None
            elif starved:
                self._feed(starved)

    def next_tick(self) -> float:
        """When a blocked local lane opens."""
        return self._blocked.earliest

    def ended(self, local: bool) -> None:
        """A task gave its worker back."""
        workers = self._local if local else self._models
        workers.running -= 1
        if workers.starved:
            self._feed(workers.starved)
        if self._dispatcher.passed and not self._closed:
            self._recall()

    def block_local(self, lane: str, until: float) -> None:
        """Start nothing on a local lane before ``until`` (seconds, monotonic); ``inf`` for good."""
        self._blocked.set(lane, min(until, _FOR_GOOD))

    def withdraw_lane(self, lane: str) -> Task | None:
        """Take back the bid of ``lane``; the task that it was for, if there was one."""
        place = self._lanes.get(lane)
        task = None if place is None else place.task
        if task is not None:
            self.withdraw(task)
        return task

    def withdraw(self, task: Task) -> bool:
        """Take back the bid for ``task``; False if there is none."""
        place = self._lanes[self._dispatcher.lane_of(task)]
        bid = place.bid
        if bid is None or place.task != task:
            return False
        place.task = None
        if self._afford is not None:
            self._unspent(task)
        if self._controller.withdraw(bid):  # else its grant is on the way, and will be given back
            del self._bids[bid]
            place.bid = None
            self._hungry[place.name] = None
        return True

    def close(self, now: float) -> list[Task]:
        """Take back all bids and start nothing more, also when called by what ``step`` calls. Returns their tasks."""
        self._closed = True
        tasks = [place.task for place in self._bids.values() if place.task is not None]
        for task in tasks:
            self.withdraw(task)
        self._take_answers(now)
        self._hungry.clear()
        for workers in (self._models, self._local):
            workers.starved.clear()
        return tasks

    def _unspent(self, task: Task) -> None:
        """``task`` does not start: others may, for what was reserved for it."""
        self._withdrawn(task)
        if self._dispatcher.passed:
            self._recall()

    def _recall(self) -> None:
        """There may be room again for columns that were passed over."""
        self._dispatcher.recall()
        self._hungry.update(self._dispatcher.take_woken())

    def _feed(self, starved: dict[str, None]) -> None:
        """A worker may be free: one lane that found none gets its chance, so they take turns."""
        lane = next(iter(starved))
        del starved[lane]
        self._hungry[lane] = None

    def _serve(self, place: _Lane, now: float) -> _Served:
        if place.bid is not None:
            return _BID
        lane, workers = place.name, place.workers
        if workers is self._local and now < self._blocked.at(lane) < inf:
            return _BLOCKED
        refused, request_of, start, afford = self._refused, self._request_of, self._start, self._afford
        while self._left > 0 and not self._closed:
            # A standing bid keeps no worker from others: its lane may be blocked for ever (T26). Its grant starts all
            # the same, so that up to one task per lane may run beyond the bound.
            if workers.running >= workers.most:
                return _NO_WORKER
            task = self._dispatcher.pop(lane)
            if task is None:
                return _EMPTY
            if refused(task, now) or self._closed:
                self._left -= 1  # as much work as a start
                continue
            if afford is not None and (room := afford(task)) is not _FITS:
                self._dispatcher.put_back(task, last=room if isinstance(room, int) else None)
                self._left -= 1
                continue
            lease: Lease | None = None
            request = request_of(task)
            if request is not None:
                answer = self._controller.bid(request, self.bidder, now)
                if isinstance(answer, int):
                    place.bid, place.task = answer, task
                    self._bids[answer] = place
                    return _BID
                if isinstance(answer, Denied):
                    if afford is not None:
                        self._unspent(task)
                    self._denied(task, answer)
                    continue
                lease = answer
            workers.running += 1
            self._left -= 1
            start(task, lease, now)
        return _ENOUGH

    def _take_answers(self, now: float) -> None:
        answers, refused, start = self.bidder.answers, self._refused, self._start
        while answers:
            answer = answers.popleft()
            place = self._bids.pop(answer.waiter)
            task = place.task
            place.bid = place.task = None
            self._hungry[place.name] = None
            unspent = self._afford is not None and task is not None
            if isinstance(answer, Refuse):
                if unspent and task is not None:
                    self._unspent(task)
                if task is not None:
                    self._denied(task, answer.denied)
            elif task is None or refused(task, now) or self._closed:
                if unspent and task is not None:
                    self._unspent(task)
                self._controller.release(answer.lease, Outcome.CANCELLED, sent=False)
            else:
                place.workers.running += 1
                self._left -= 1
                start(task, answer.lease, now)
