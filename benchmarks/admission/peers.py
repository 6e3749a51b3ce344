"""A law of others as a client of the simulation: slots, and the retries of an HTTP client inside them.

openai's and anthropic's clients try a refused request twice more: after half a second, doubling up to 8 s, less up to a
quarter of it at random, or after Retry-After where that is a minute at most. The slot stays taken meanwhile. After that
the row comes back and is the next to be sent.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf
from random import Random
from typing import TYPE_CHECKING, Final

from .simulation import Ticket

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .baselines import Law
    from .simulation import Demand, Job

__all__ = ["Peer", "backoff_s"]

INITIAL_S: Final = 0.5
MAX_S: Final = 8.0
JITTER: Final = 0.25
HINT_MAX_S: Final = 60.0


def backoff_s(refusals: int, retry_after_s: float | None, rng: Random) -> float:
    """How long the HTTP client sleeps after a request was refused ``refusals`` times (at least once)."""
    if retry_after_s is not None and 0 < retry_after_s <= HINT_MAX_S:
        return retry_after_s
    pause: float = INITIAL_S * 2.0 ** (refusals - 1)
    return min(MAX_S, pause) * (1 - JITTER * rng.random())


class Peer:
    """``law`` with endless demand. Flows take turns, whatever their weights."""

    def __init__(self, law: Law, demand: Demand, *, seed: int, flows: int = 1) -> None:
        self.law = law
        self._demand = demand
        self._flows = flows
        self._turn = 0
        self._rng = Random(seed)
        self._in_use = 0
        self._asleep: list[tuple[float, int, Job, int]] = []
        self._number = 0

    def sends(self, now: float) -> Sequence[Ticket]:
        """Retries that are due, and new requests while there are slots."""
        out: list[Ticket] = []
        while self._asleep and self._asleep[0][0] <= now:
            _, _, slept, refusals = heappop(self._asleep)
            out.append(self._send(slept, refusals, now))
        while self.law.may_send(self._in_use, now) and (job := self._next()) is not None:
            self._in_use += 1
            out.append(self._send(job, 0, now))
        return out

    def answered(self, ticket: Ticket, now: float) -> None:
        """Tell the law, free the slot."""
        self.law.answered(ticket.sent_at, self._in_use, bool(ticket.held), now)
        self._in_use -= 1

    def rejected(self, ticket: Ticket, now: float) -> None:
        """Tell the law; sleep in the slot, or give it and the row back."""
        hint = None if ticket.feedback is None else ticket.feedback.retry_after_s
        self.law.rejected(ticket.sent_at, hint, now)
        assert isinstance(ticket.held, int)
        refusals = ticket.held + 1
        if refusals > self.law.retries:
            self._in_use -= 1
            self._demand.back(ticket.job)
            return
        self._number += 1
        heappush(self._asleep, (now + backoff_s(refusals, hint, self._rng), self._number, ticket.job, refusals))

    def next_at(self, now: float) -> float:
        """The next retry, or what the law waits for."""
        return min(self.law.next_at(now), self._asleep[0][0] if self._asleep else inf)

    def limits(self) -> tuple[float, float]:
        """The law's; none of them knows of rates."""
        return self.law.limit, inf

    def _send(self, job: Job, refusals: int, now: float) -> Ticket:
        self.law.sent(now)
        return Ticket(0, job, now, refusals)

    def _next(self) -> Job | None:
        self._turn = (self._turn + 1) % self._flows
        return self._demand.take(self._turn)
