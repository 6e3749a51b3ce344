"""headgate's gate as a client of the simulation: the production code, driven by plain calls.

Demand is unlimited: each flow always keeps a few requests in the gate's queue, so that none ever looks idle, and asks
again as soon as one goes out. The gate is told what a client library sees: success or 429, and the headers if there are
any.
"""

from __future__ import annotations

from math import inf
from random import Random
from typing import TYPE_CHECKING, Final

from headgate.admission.gate import Gate
from headgate.admission.scope_limits import ScopeLimits
from headgate.admission.values import Denied, Grant, Lease, Request
from headgate.values import LimitKind, Outcome, ResourceKey, Usage

from .simulation import Ticket

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .simulation import Demand, Job

__all__ = ["GateClient", "untold"]

MODEL: Final = ResourceKey.parse("bench/m")
BY_CLOSENESS: Final = (LimitKind.TOKENS, LimitKind.INPUT_TOKENS, LimitKind.REQUESTS)
DEPTH: Final = 2
"""Requests that a flow keeps waiting: with one, a flow whose turn comes twice in a step would look idle."""


def untold(maximum: int | None = None) -> ScopeLimits:
    """The limits of somebody who states none, or only a cap."""
    return ScopeLimits(adaptive=True, start=4.0, maximum=maximum)


class GateClient:
    """One gate and its endless demand. ``weights`` has one number a flow."""

    def __init__(
        self, demand: Demand, *, seed: int, limits: ScopeLimits | None = None, weights: Sequence[float] = (1.0,)
    ) -> None:
        self.gate = Gate(rng=Random(seed))
        self.gate.register(MODEL, {str(MODEL): limits or untold()}, 0.0)
        self._demand = demand
        self._weights = weights
        self._waiting: dict[int, Job] = {}
        self._lacking = [DEPTH] * len(weights)
        self._short = list(range(len(weights)))
        self.too_large = 0

    def sends(self, now: float) -> Sequence[Ticket]:
        """What the gate lets out: waiters that it has served, and new requests until each flow waits again."""
        out: list[Ticket] = []
        self.gate.tick(now)
        self._collect(out, now)
        while self._short:
            flow = self._short.pop()
            while self._lacking[flow] and (job := self._demand.take(flow)) is not None:
                self._submit(job, now, out)
            self._collect(out, now)
        return out

    def answered(self, ticket: Ticket, now: float) -> None:
        """Give the lease back with what was used."""
        lease, tokens = ticket.held, int(ticket.job.tokens)
        assert isinstance(lease, Lease)
        usage = Usage(tokens, 0) if tokens else None
        self.gate.release(lease, Outcome.SUCCESS, now, feedback=ticket.feedback, usage=usage)

    def rejected(self, ticket: Ticket, now: float) -> None:
        """Give the lease back as a 429. Its flow has the job again, and it goes first."""
        self._demand.back(ticket.job)
        lease = ticket.held
        assert isinstance(lease, Lease)
        self.gate.release(lease, Outcome.RATE_LIMITED, now, feedback=ticket.feedback)
        self._short.append(ticket.job.flow)  # there may have been nothing left to ask for

    def next_at(self, now: float) -> float:
        """The gate's next tick."""
        return self.gate.next_tick(now)

    def limits(self) -> tuple[float, float]:
        """The concurrency that it believes in, and the rate of tokens, if it knows one, or of requests."""
        limiters = self.gate.scopes()[str(MODEL)].limiters
        rates = [limiters[kind].rate_per_minute for kind in BY_CLOSENESS if kind in limiters]
        known = [rate for rate in rates if rate < inf]
        return self.gate.capacity(MODEL), known[0] if known else inf

    def _submit(self, job: Job, now: float, out: list[Ticket]) -> None:
        request = Request(
            MODEL, int(job.estimate), flow=f"flow {job.flow}", weight=self._weights[job.flow], queue_timeout_s=None
        )
        answer = self.gate.submit(request, now)
        if isinstance(answer, Lease):
            out.append(Ticket(0, job, now, answer))
        elif isinstance(answer, Denied):
            self.too_large += 1
        else:
            self._waiting[answer] = job
            self._lacking[job.flow] -= 1

    def _collect(self, out: list[Ticket], now: float) -> None:
        for effect in self.gate.take_effects():
            job = self._waiting.pop(effect.waiter)
            if isinstance(effect, Grant):
                out.append(Ticket(0, job, now, effect.lease))
            else:
                self.too_large += 1
            self._lacking[job.flow] += 1
            self._short.append(job.flow)
