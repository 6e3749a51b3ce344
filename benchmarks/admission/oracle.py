"""A client that knows the rule: the bound that every other client is held against.

It knows the limits and the quotas' fill, never the future: with a concurrency limit it has as many in flight, its own
two network legs included, as the provider has slots (also in the moment in which they change), and with a rate it keeps
the provider's books itself and sends whatever will fit on arrival. It is never refused.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from .provider import Provider
from .simulation import LEG_S, MEAN_S, Ticket

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .provider import Rule
    from .simulation import Demand, Job

__all__ = ["Oracle"]

SLACK_S: Final = 1e-6
"""Added to a wait, so that the moment aimed at is not missed by the rounding of floats."""


class Oracle:
    """The only client of a provider of ``rule``."""

    def __init__(self, rule: Rule, demand: Demand, *, phase_s: float, flows: int = 1) -> None:
        self._rule = rule
        self._demand = demand
        self._books = Provider(rule, phase_s=phase_s, mean_s=MEAN_S)
        self._changes = [at - LEG_S + SLACK_S for at in rule.changes()]
        self._in_flight = 0
        self._flows = flows
        self._turn = 0
        self._next: Job | None = None
        self._due = inf

    def sends(self, now: float) -> Sequence[Ticket]:
        """Whatever will fit on arrival."""
        out: list[Ticket] = []
        arrival = now + LEG_S
        while self._changes and self._changes[0] <= now:
            self._changes.pop(0)
        self._due = self._changes[0] if self._changes else inf
        slots = self._rule.slots_at(arrival)
        while self._in_flight < slots and not self._rule.refuses[0] <= arrival < self._rule.refuses[1]:
            job = self._next or self._draw()
            if job is None:
                break
            wait_s = self._wait_s(job, arrival)
            if wait_s > 0:
                self._next = job
                self._due = min(self._due, now + wait_s + SLACK_S)
                break
            self._next = None
            self._in_flight += 1
            out.append(Ticket(0, job, now))
        return out

    def answered(self, ticket: Ticket, now: float) -> None:
        """A slot is free."""
        self._in_flight -= 1

    def rejected(self, ticket: Ticket, now: float) -> None:
        """Cannot happen."""
        raise AssertionError("an oracle was refused")

    def next_at(self, now: float) -> float:
        """The next change, or when the next job fits a quota."""
        return self._due

    def limits(self) -> tuple[float, float]:
        """To draw: it has none of its own."""
        return inf, inf

    def _draw(self) -> Job | None:
        self._turn = (self._turn + 1) % self._flows
        return self._demand.take(self._turn)

    def _wait_s(self, job: Job, arrival: float) -> float:
        requests, tokens = self._books.requests, self._books.tokens
        wait_s = max(
            0.0 if requests is None else requests.wait_s(1.0, arrival),
            0.0 if tokens is None else tokens.wait_s(job.tokens, arrival),
        )
        if wait_s == 0.0:
            if requests is not None:
                requests.take(1.0)
            if tokens is not None:
                tokens.take(job.tokens)
        return wait_s
