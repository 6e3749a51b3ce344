"""Which delivery is made when: no retry holds a slot, and what is stale never blocks what is fresh.

Every item waits with its destination until its time has come; a slot is taken for one attempt only (T47). An item is
*stale* if the receiver has restarted since it asked for it: most of them nobody waits for any more. Before one of them
is sent, the receiver is asked, once and in batches, which of them it still knows; the others are gone. Stale work,
these questions included, takes at most a quarter of the slots and never the last free one.

Each destination has a breaker: after failures in a row nothing is sent there but one probe at a time. There may be as
many destinations as items: what is done costs the same however many there are, and the idle ones are forgotten.

Times are seconds on a monotonic clock. Prior art: the transactional outbox; circuit breaker (Nygard, "Release It!").
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from ..admission.timers import Timers
from .breaker import Breaker
from .turns import Turns
from .values import Answer

if TYPE_CHECKING:
    from collections.abc import Collection

    from ..values import Rng
    from .values import Item, OutboxOptions, Reply

__all__ = ["IDLE_MOST", "Ask", "OutboxCore", "Send", "Waiting"]

_JITTER = 0.25
"""Share by which each pause varies, so that items that failed together do not come back together."""

IDLE_MOST: Final = 1000
"""Destinations that are remembered while nothing is to be sent there: which incarnation the receiver is."""


@dataclass(frozen=True, slots=True)
class Send:
    """Deliver this now, and tell ``answered`` or ``failed``."""

    item: Item
    attempt: int


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the destination which of these keys it knows, and tell ``reconciled``."""

    destination: str
    keys: tuple[str, ...]


class Waiting(NamedTuple):
    """The attempts so far, the seconds until the next one, and the incarnation of the receiver that asked for it."""

    attempts: int
    wait_s: float
    receiver: str | None


@dataclass(slots=True)
class _Entry:
    """An item and what has happened to it. If ``stale``, it is sent once it is ``settled`` that somebody waits."""

    item: Item
    attempts: int = 0
    stale: bool = False
    settled: bool = False
    sending: bool = False
    sent_stale: bool = False


class _Destination:
    """One receiver: what may be sent to it now, what it is to be asked about, and whether it can be reached."""

    __slots__ = ("asked", "breaker", "fresh", "in_flight", "keys", "name", "receiver", "stale", "unsettled")

    def __init__(self, name: str, breaker: Breaker) -> None:
        self.name = name
        self.receiver: str | None = None
        self.keys: dict[str, None] = {}
        self.fresh: deque[str] = deque()
        self.stale: deque[str] = deque()
        self.unsettled: dict[str, None] = {}
        self.asked: tuple[str, ...] = ()
        self.in_flight = 0
        self.breaker = breaker

    @property
    def has_stale(self) -> bool:
        """Whether something stale is to be sent, or asked about."""
        return bool(self.stale or (self.unsettled and not self.asked))


class OutboxCore:
    """The deliveries to any number of destinations, which share the slots. Pure: the shell sends, asks and keeps."""

    def __init__(self, options: OutboxOptions, rng: Rng) -> None:
        self._options = options
        self._rng = rng
        self._stale_most = options.slots // 4
        self._entries: dict[str, _Entry] = {}
        self._destinations: dict[str, _Destination] = {}
        self._idle: dict[str, None] = {}
        self._waiting: Timers[str] = Timers()
        # Who stands in line for a slot, whose breaker opens when, and of whom that has to be looked at again.
        self._fresh = Turns()
        self._stale = Turns()
        self._opening: Timers[str] = Timers()
        self._touched: dict[str, _Destination] = {}
        self._in_flight = 0
        self._stale_in_flight = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def in_flight(self) -> int:
        """Slots in use."""
        return self._in_flight

    def footprint(self) -> int:
        """Items and destinations held."""
        return len(self._entries) + len(self._destinations)

    def run_of(self, key: str) -> str | None:
        """The run that an item names; None if it names none, or has ended."""
        entry = self._entries.get(key)
        return None if entry is None else entry.item.run

    # What comes in

    def add(self, item: Item) -> bool:
        """Accept an item that its receiver has just asked for. False if its key is here already."""
        if item.key in self._entries:
            return False
        self._learn(item.destination, item.receiver)
        destination = self._destination(item.destination)
        self._enter(_Entry(replace(item, receiver=destination.receiver)), destination)
        return True

    def waits(self, key: str, now: float) -> Waiting:
        """How an item waits that was sent before: what to keep of it, so that the next life of this process knows."""
        entry = self._entries[key]
        due = self._waiting.at(key)
        return Waiting(entry.attempts, 0.0 if due == inf else max(0.0, due - now), entry.item.receiver)

    def restore(self, item: Item, now: float, *, attempts: int, wait_s: float) -> bool:
        """Accept an item that was accepted in an earlier life of this process, to be sent after ``wait_s`` at the
        earliest. Whether its receiver has restarted since is found out. False if its key is here already.
        """
        if item.key in self._entries:
            return False
        destination = self._destination(item.destination)
        stale = item.receiver is not None and item.receiver != destination.receiver
        self._enter(_Entry(item, attempts, stale), destination)
        if not stale and wait_s > 0:
            destination.fresh.pop()
            self._waiting.set(item.key, now + wait_s)
        return True

    def _enter(self, entry: _Entry, destination: _Destination) -> None:
        key = entry.item.key
        self._entries[key] = entry
        self._idle.pop(destination.name, None)
        destination.keys[key] = None
        self._queue(entry, destination)

    def _queue(self, entry: _Entry, destination: _Destination) -> None:
        """Its time has come: let ``entry`` be sent, or first be asked about."""
        key = entry.item.key
        self._touched[destination.name] = destination
        if not entry.stale:
            destination.fresh.append(key)
        elif entry.settled:
            destination.stale.append(key)
        else:
            destination.unsettled[key] = None

    # What is to be done

    def take(self, now: float) -> list[Send | Ask]:
        """What is to be done now. Each takes a slot until its end is reported."""
        while (key := self._waiting.pop_due(now)) is not None:
            entry = self._entries[key]
            self._queue(entry, self._destinations[entry.item.destination])
        while (name := self._opening.pop_due(now)) is not None:
            self._touched[name] = self._destinations[name]
        todo: list[Send | Ask] = []
        while self._in_flight < self._options.slots:
            self._line_up(now)
            one = self._next_fresh() or self._next_stale()
            if one is None:
                break
            todo.append(one)
        return todo

    def next_tick(self, now: float) -> float:
        """When ``take`` may have more, if nothing is reported before."""
        self._line_up(now)
        return min(self._waiting.earliest, self._opening.earliest)

    def _line_up(self, now: float) -> None:
        """Let those destinations stand in line that have something to do and may be reached."""
        for name, destination in self._touched.items():
            breaker = destination.breaker
            may = breaker.may_send(now)
            for turns, has in ((self._fresh, bool(destination.fresh)), (self._stale, destination.has_stale)):
                turns.stand(name, destination.in_flight if has and may else None)
            waits = breaker.opens_at > now and (destination.fresh or destination.stale or destination.unsettled)
            self._opening.set(name, breaker.opens_at if waits else inf)
            self._rest(destination)
        self._touched.clear()

    def _rest(self, destination: _Destination) -> None:
        """Forget a destination at which nothing is left to do, unless it is one of the last of which that is true."""
        if destination.keys or destination.in_flight:
            return
        self._idle.pop(destination.name, None)
        self._idle[destination.name] = None
        if len(self._idle) > IDLE_MOST:
            oldest = next(iter(self._idle))
            del self._idle[oldest], self._destinations[oldest]

    def _next_fresh(self) -> Send | None:
        name = self._fresh.first()
        if name is None:
            return None
        destination = self._destinations[name]
        return self._send(destination, destination.fresh.popleft())

    def _next_stale(self) -> Send | Ask | None:
        name = self._stale.first()
        full = self._stale_in_flight >= self._stale_most or self._in_flight >= self._options.slots - 1
        if full or name is None:
            return None
        destination = self._destinations[name]
        if destination.unsettled and not destination.asked:
            return self._ask(destination)
        return self._send(destination, destination.stale.popleft())

    def _send(self, destination: _Destination, key: str) -> Send:
        entry = self._entries[key]
        entry.attempts += 1
        entry.sending, entry.sent_stale = True, entry.stale
        self._occupy(destination, stale=entry.stale)
        return Send(entry.item, entry.attempts)

    def _ask(self, destination: _Destination) -> Ask:
        destination.asked = tuple(islice(destination.unsettled, self._options.reconcile_most))
        self._occupy(destination, stale=True)
        return Ask(destination.name, destination.asked)

    def _occupy(self, destination: _Destination, *, stale: bool) -> None:
        name = destination.name
        destination.breaker.sent()
        destination.in_flight += 1
        self._touched[name] = destination
        for turns in (self._fresh, self._stale):
            turns.stand(name, None)  # it had its turn: it comes back at the end of its line
        self._in_flight += 1
        self._stale_in_flight += stale

    # What became of it

    def answered(self, key: str, reply: Reply, now: float) -> Answer | None:
        """The receiver answered. Returns how the item ended, which is then forgotten here; None if it waits on."""
        self._learn(self._entries[key].item.destination, reply.receiver)  # while it is still under way itself
        entry, destination = self._back(key)
        destination.breaker.worked()
        if reply.answer is not Answer.RETRY:
            self._forget(key)
            return reply.answer
        self._wait(entry, destination, max(self._pause_s(entry.attempts), reply.after_s or 0.0), now)
        return None

    def failed(self, key: str, now: float) -> None:
        """The receiver was not reached, or did not answer in time: nobody knows whether it has the item."""
        entry, destination = self._back(key)
        destination.breaker.failed(now)
        self._wait(entry, destination, self._pause_s(entry.attempts), now)

    def withdrawn(self, key: str) -> None:
        """It was not sent after all, and will not be: nothing is learned about its destination."""
        _, destination = self._back(key)
        destination.breaker.unsent()
        self._forget(key)

    def reconciled(self, name: str, known: Collection[str], receiver: str | None) -> list[str]:
        """The destination knows ``known`` of the keys that it was asked about. Returns those that are gone."""
        destination = self._destinations[name]
        asked = self._back_from_asking(destination)
        destination.breaker.worked()
        self._learn(name, receiver)
        gone: list[str] = []
        for key in asked:
            entry = self._entries.get(key)
            if entry is None or key not in destination.unsettled:
                continue  # it turned out to be fresh
            del destination.unsettled[key]
            if key in known:
                entry.settled = True
                self._queue(entry, destination)
            else:
                gone.append(key)
                self._forget(key)
        return gone

    def not_reconciled(self, name: str, now: float) -> None:
        """The destination could not be asked."""
        destination = self._destinations[name]
        self._back_from_asking(destination)
        destination.breaker.failed(now)

    def _back(self, key: str) -> tuple[_Entry, _Destination]:
        entry = self._entries[key]
        entry.sending = False
        destination = self._destinations[entry.item.destination]
        self._vacate(destination, stale=entry.sent_stale)
        return entry, destination

    def _back_from_asking(self, destination: _Destination) -> tuple[str, ...]:
        asked, destination.asked = destination.asked, ()
        self._vacate(destination, stale=True)
        return asked

    def _vacate(self, destination: _Destination, *, stale: bool) -> None:
        destination.in_flight -= 1
        self._touched[destination.name] = destination
        self._in_flight -= 1
        self._stale_in_flight -= stale

    def _wait(self, entry: _Entry, destination: _Destination, pause_s: float, now: float) -> None:
        if entry.stale and not entry.settled:
            self._queue(entry, destination)  # the receiver restarted meanwhile: it is asked first
        else:
            self._waiting.set(entry.item.key, now + pause_s)

    def _forget(self, key: str) -> None:
        entry = self._entries.pop(key)
        del self._destinations[entry.item.destination].keys[key]

    def _pause_s(self, attempts: int) -> float:
        options = self._options
        pause_s = min(options.longest_pause_s, options.first_pause_s * 2.0 ** min(attempts - 1, 60))
        return pause_s * self._rng.uniform(1 - _JITTER, 1 + _JITTER)

    # Who the receiver is

    def _destination(self, name: str) -> _Destination:
        destination = self._destinations.get(name)
        if destination is None:
            breaker = Breaker(self._options.trips_after, self._pause_s)
            destination = self._destinations[name] = _Destination(name, breaker)
        return destination

    def _learn(self, name: str, receiver: str | None) -> None:
        """The receiver is known to be this incarnation: what another one asked for is stale, what it did is not."""
        destination = self._destination(name)
        if receiver is None or receiver == destination.receiver:
            return
        destination.receiver = receiver
        self._touched[name] = destination
        destination.fresh.clear()
        destination.stale.clear()
        destination.unsettled.clear()
        for key in destination.keys:
            entry = self._entries[key]
            if entry.item.receiver is None:
                entry.item = replace(entry.item, receiver=receiver)
            entry.stale, entry.settled = entry.item.receiver != receiver, False
            if not entry.sending and self._waiting.at(key) == inf:
                self._queue(entry, destination)
