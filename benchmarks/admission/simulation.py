"""Clients, a network and a provider in virtual time: plain discrete events on one heap.

No loop, no clock, no task: the same seed gives the same run. Each leg of the network takes 40 ms. An attempt arrives,
is refused at once or served for its own lognormal time, and is answered. A refused job comes back: it is the next that
its client sends. So every client is offered the same jobs in the same order, and what differs is when it sends them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import exp, inf, log
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from .provider import Provider, Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from headgate.values import Feedback

__all__ = [
    "LEG_S",
    "MEAN_S",
    "SIGMA",
    "Client",
    "Demand",
    "Job",
    "Look",
    "Record",
    "Simulation",
    "Ticket",
    "new_record",
]

LEG_S: Final = 0.040
MEAN_S: Final = 5.0
SIGMA: Final = 1.0
TOKENS_MEAN: Final = 3000.0
TOKENS_SIGMA: Final = 1.0
ESTIMATE_ERROR: Final = 0.5
STILL_MAX: Final = 10_000
"""Events at one instant after which a client is taken to turn in circles."""


@dataclass(slots=True, eq=False)
class Job:
    """One row's request: how long it is served, its tokens and what the client believes them to be."""

    number: int
    flow: int
    duration_s: float
    tokens: float
    estimate: float


@dataclass(slots=True, eq=False)
class Ticket:
    """One attempt under way. ``held`` is the client's own."""

    client: int
    job: Job
    sent_at: float
    held: object = None
    refused: bool = False
    feedback: Feedback | None = None


class Demand:
    """Endless jobs, or ``rows`` of them. ``tokens``: draw lognormal token counts and estimates that are wrong by half.

    Durations, tokens and errors have generators of their own, so that job number n is the same in every run of a seed.
    Numbers begin at ``first``; ``durations`` may say how long a number takes.
    """

    def __init__(
        self,
        seed: int,
        *,
        tokens: bool = False,
        rows: int | None = None,
        first: int = 0,
        durations: Callable[[int], float] | None = None,
    ) -> None:
        self._duration, self._tokens, self._error = (Random(f"{seed} {what}") for what in ("time", "tokens", "error"))
        self._mu = log(MEAN_S) - SIGMA * SIGMA / 2
        self._wants_tokens = tokens
        self.left = inf if rows is None else rows
        self._next = first
        self._durations = durations or self._draw
        self._returned: dict[int, deque[Job]] = {}

    def take(self, flow: int = 0) -> Job | None:
        """The next job of ``flow``; None when there is no more."""
        returned = self._returned.get(flow)
        if returned:
            return returned.popleft()
        if self.left <= 0:
            return None
        self.left -= 1
        number, self._next = self._next, self._next + 1
        duration_s = self._durations(number)
        if not self._wants_tokens:
            return Job(number, flow, duration_s, 0.0, 0.0)
        drawn = self._tokens.lognormvariate(log(TOKENS_MEAN) - TOKENS_SIGMA**2 / 2, TOKENS_SIGMA)
        tokens = max(2.0, round(drawn))
        error = self._error.uniform(1.0 - ESTIMATE_ERROR, 1.0 + ESTIMATE_ERROR)
        return Job(number, flow, duration_s, tokens, max(1.0, round(tokens * error)))

    def back(self, job: Job) -> None:
        """``job`` was refused: it is the next of its flow."""
        self._returned.setdefault(job.flow, deque()).append(job)

    def ended(self) -> bool:
        """Whether there is nothing to take, unless a job comes back."""
        return self.left <= 0 and not any(self._returned.values())

    def _draw(self, number: int) -> float:
        return exp(self._mu + SIGMA * self._duration.gauss(0.0, 1.0))


class Client(Protocol):
    """Whoever decides when to send. Every call is at the present ``now``; none ever waits."""

    def sends(self, now: float) -> Iterable[Ticket]:
        """Everything that goes out now."""
        ...

    def answered(self, ticket: Ticket, now: float) -> None:
        """``ticket`` was served and its answer is here."""
        ...

    def rejected(self, ticket: Ticket, now: float) -> None:
        """``ticket`` was refused: its job is the client's again, to keep or to give back to its demand."""
        ...

    def next_at(self, now: float) -> float:
        """When ``sends`` may have something to send without anything else happening; ``inf`` for never."""
        ...

    def limits(self) -> tuple[float, float]:
        """What it allows itself, to draw: how many in flight, and how much a minute; ``inf`` where nothing is known."""
        ...


class Look(NamedTuple):
    """One look at a client: what it allows itself in flight and a minute (``inf``: unknown), and what is in flight."""

    at: float
    limit: float
    per_minute: float
    in_flight: int


@dataclass(slots=True, eq=False)
class Record:
    """What one client did. Lists have one number a second: by arrival for units, by time for ``busy``."""

    sent: int = 0
    refused: int = 0
    late_sent: int = 0
    late_refused: int = 0
    busy: list[float] = field(default_factory=list[float])
    busy_steps: list[int] = field(default_factory=list[int])
    accepted: list[int] = field(default_factory=list[int])
    tokens: list[float] = field(default_factory=list[float])
    refusals: list[int] = field(default_factory=list[int])
    flows: dict[int, int] = field(default_factory=dict[int, int])
    answered: int = 0
    last_answer: float = 0.0
    in_flight: int = 0
    trace: list[Look] = field(default_factory=list["Look"])
    """What was looked at, where that was asked for."""

    def busy_by_second(self) -> list[float]:
        """Slot seconds in each second."""
        out: list[float] = []
        level = 0
        for part, step in zip(self.busy, self.busy_steps, strict=True):
            level += step
            out.append(level + part)
        return out

    def serve(self, begin: float, end: float) -> None:
        """A slot is busy from ``begin`` to ``end``: O(1), whatever its length."""
        last = len(self.busy) - 1
        for at, sign in ((begin, 1), (end, -1)):
            second = int(at)
            if second <= last:
                # What the step of this second (it counts from its begin) has too much.
                self.busy_steps[second] += sign
                self.busy[second] -= sign * (at - second)


class Simulation:
    """``clients`` against one provider of ``rule`` for ``seconds``."""

    def __init__(
        self,
        rule: Rule,
        clients: Sequence[Client],
        *,
        seconds: float,
        phase_s: float = 0.0,
        warm_s: float = 120.0,
        trace_s: float | None = None,
    ) -> None:
        self.now = 0.0
        self.provider = Provider(rule, phase_s=phase_s, mean_s=MEAN_S)
        self._clients = clients
        self.records = [new_record(int(seconds) + 1) for _ in clients]
        self._seconds = seconds
        self._warm_s = warm_s
        self._trace_s = trace_s
        self._heap: list[tuple[float, int, int, Ticket | int]] = []
        self._number = 0
        self._timers = [inf] * len(clients)

    def run(self) -> None:
        """Play it from the start to the end, or until all rows are answered."""
        heap, still, last = self._heap, 0, -1.0
        for client in range(len(self._clients)):
            self._pump(client)
        if self._trace_s is not None:
            self._at(0.0, _LOOK, 0)
        while heap and heap[0][0] <= self._seconds:
            self.now, _, kind, what = heappop(heap)
            if self.now > last:
                still, last = 0, self.now
            still += 1
            assert still < STILL_MAX, f"nothing moves at {self.now}"
            if isinstance(what, Ticket):
                if kind == _ARRIVE:
                    self._arrive(what)
                else:
                    self._answer(what)
            elif kind == _TIMER:
                if self._timers[what] == self.now:
                    self._timers[what] = inf
                    self._pump(what)
            else:
                self._look()

    def _arrive(self, ticket: Ticket) -> None:
        now, job, record = self.now, ticket.job, self.records[ticket.client]
        refused = self.provider.arrive(job.tokens, job.duration_s, now)
        ticket.feedback = self.provider.feedback(refused)
        second = int(now)
        if refused is not None:
            ticket.refused = True
            record.refusals[second] += 1
            self._at(now + LEG_S, _ANSWER, ticket)
            return
        end = now + job.duration_s
        record.serve(now, end)
        record.accepted[second] += 1
        record.tokens[second] += job.tokens
        record.flows[job.flow] = record.flows.get(job.flow, 0) + 1
        self._at(end + LEG_S, _ANSWER, ticket)

    def _answer(self, ticket: Ticket) -> None:
        number, record = ticket.client, self.records[ticket.client]
        record.in_flight -= 1
        if ticket.refused:
            record.refused += 1
            record.late_refused += ticket.sent_at >= self._warm_s
            self._clients[number].rejected(ticket, self.now)
        else:
            record.answered += 1
            record.last_answer = self.now
            self._clients[number].answered(ticket, self.now)
        self._pump(number)

    def _pump(self, number: int) -> None:
        client, record, now = self._clients[number], self.records[number], self.now
        for ticket in client.sends(now):
            ticket.client = number
            record.sent += 1
            record.in_flight += 1
            record.late_sent += now >= self._warm_s
            self._at(now + LEG_S, _ARRIVE, ticket)
        due = client.next_at(now)
        if due < inf and due != self._timers[number]:
            self._timers[number] = due = max(due, now)
            self._at(due, _TIMER, number)

    def _look(self) -> None:
        assert self._trace_s is not None
        for client, record in zip(self._clients, self.records, strict=True):
            record.trace.append(Look(self.now, *client.limits(), record.in_flight))
        if self._heap:
            self._at(self.now + self._trace_s, _LOOK, 0)

    def _at(self, when: float, kind: int, what: Ticket | int) -> None:
        self._number += 1
        heappush(self._heap, (when, self._number, kind, what))


_ARRIVE, _ANSWER, _TIMER, _LOOK = range(4)


def new_record(seconds: int) -> Record:
    """An empty record of that many seconds."""
    return Record(
        busy=[0.0] * seconds,
        busy_steps=[0] * seconds,
        accepted=[0] * seconds,
        tokens=[0.0] * seconds,
        refusals=[0] * seconds,
    )
