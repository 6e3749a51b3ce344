"""The checks that a simulation makes while a run is going: invariants, bounds, idle slots.

Looks and changes nothing. ``look`` may be called between any two steps of the engine; ``watch`` looks at quiet
moments, at which everything that could happen by then has happened.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import anyio

from ..admission.values import DenyReason, Request
from ..values import ResourceKey
from .witness import expect

if TYPE_CHECKING:
    from ..engine.engine import Engine
    from ..engine.options import RunOptions
    from ..engine.runs import Run
    from .provider.virtual import VirtualProvider

__all__ = ["Inspector"]

LOOKS_IN_FULL = 1000
"""From then on one look in two checks everything, then one in three, and so on: long simulations stay quick."""
_RATES = frozenset({DenyReason.REQUEST_RATE, DenyReason.TOKEN_RATE})
SHORTEST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 30.0


class Inspector:
    """Looks at one life of ``run``. ``checks`` counts how often everything was looked at."""

    def __init__(self, engine: Engine, run: Run, provider: VirtualProvider, options: RunOptions, *, seed: int) -> None:
        self.checks = 0
        self._gate = engine.admission.gate
        self._run = run
        self._provider = provider
        self._options = options
        self._looks = 0
        self._rng = random.Random(seed)
        self._began_at = anyio.current_time()

    def look(self) -> None:
        """Check the invariants of every part (A1 among them) and the bounds on what is open (S6)."""
        self._looks += 1
        if self._looks % (1 + self._looks // LOOKS_IN_FULL):
            return
        self.checks += 1
        self._gate.check()
        core = self._run.core
        core.check()
        self._check_limits()
        open_rows = len(core.rows) + len(core.finished)
        most = self._options.max_open_rows
        expect(open_rows <= most, "S6", f"{open_rows} rows are open, {most} may be")
        expect(
            core.open.bytes <= self._options.max_open_bytes or open_rows <= 1,
            "S6",
            f"{core.open.bytes} bytes of rows are open, {self._options.max_open_bytes} may be",
        )

    async def watch(self) -> None:
        """Look at quiet moments, often at first and ever more rarely, until cancelled."""
        while True:
            lived_s = anyio.current_time() - self._began_at
            pause_s = min(LONGEST_PAUSE_S, max(SHORTEST_PAUSE_S, lived_s / 50))
            # An odd moment: what the engine and the provider have set for a time has happened, or is yet to come.
            await anyio.sleep(pause_s * self._rng.uniform(0.5, 1.5))
            if self._run.done:
                return
            self.look()
            self._check_requests()
            for resource in self._run.statistics().resources:
                self._check_idle(resource.resource, resource.ready)

    def _check_limits(self) -> None:
        for scope in self._gate.scopes().values():
            most = scope.limits.maximum
            if most is not None:
                expect(scope.in_flight <= most, "A1", f"{scope.name}: {scope.in_flight} in flight, {most} allowed")

    def _check_requests(self) -> None:
        """Every request at the provider has a lease: nothing goes out behind the gate's back (T15)."""
        sent = sum(model.in_flight for model in self._provider.stats().models.values())
        leases = self._gate.leases()
        expect(sent <= leases, "A1", f"the provider works on {sent} requests, and only {leases} leases are out")

    def _check_idle(self, resource: str, ready: int) -> None:
        """S4, A10: where a task is ready, something must refuse its request, or all workers are busy."""
        run = self._run
        if not ready or run.stopping or run.in_flight >= self._options.max_workers:
            return
        key = ResourceKey.parse(resource)
        if self._gate.waiting_for(key) in _RATES or self._sizes_vary(resource):
            return  # a rate is asked again when it said, which may be later than it could be; sizes only the run knows
        request, now = Request(key), anyio.current_time()
        lane = [self._gate.scopes()[name] for name in key.scopes() if name in self._gate.scopes()]
        refused = any(scope.refusal(request, now) is not None for scope in lane)
        expect(refused, "S4", f"{resource} has room, {ready} tasks are ready, and none was started by {now:g} s")

    def _sizes_vary(self, resource: str) -> bool:
        return any(plan.lane == resource and plan.column.tokens is not None for plan in self._run.core.plans)
