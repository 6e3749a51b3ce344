"""Clients with unlimited demand against a provider that limits concurrency, in virtual time.

Plain discrete events on one heap: no loop, no clock, the same seed gives the same run. The provider accepts
while fewer than its capacity are being served and rejects at once otherwise; an answer of either kind is one
network leg away. Work is the integral of busy slots over time, which unlike a count of completions has no
sampling noise of its own. An oracle is the same client with a :class:`FixedConcurrency` that follows the
capacity.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import exp, floor, inf
from random import Random

from headgate.admission.concurrency import AdaptiveConcurrency, FixedConcurrency, Stamp, Verdict
from headgate.admission.cooldown import Cooldown

LEG_S = 0.040
MEAN_S = 5.0
SIGMA = 1.0
WARM_S = 120.0

Law = AdaptiveConcurrency | FixedConcurrency
Steps = Sequence[tuple[float, int]]


@dataclass(slots=True, eq=False)
class Client:
    law: Law
    cooldown: Cooldown
    in_flight: int = 0
    sends: int = 0
    rejections: int = 0
    late_rejections: int = 0
    late_sends: int = 0
    timer_at: float = inf
    busy: int = 0
    work: float = 0.0
    busy_since: float = 0.0
    joins_at: float = 0.0
    work_by_s: list[float] = field(default_factory=list[float])


@dataclass(slots=True, eq=False)
class Attempt:
    client: Client
    stamp: Stamp
    sent_at: float
    canary: bool


class Simulation:
    """``capacity`` is a list of (from second, slots). ``lull`` names spans without any demand."""

    def __init__(
        self,
        capacity: Steps,
        clients: Sequence[Client],
        *,
        seed: int,
        retry_after_s: float | None = None,
        lull: tuple[float, float] = (inf, inf),
        warm_s: float = WARM_S,
        mean_s: float = MEAN_S,
        sigma: float = SIGMA,
        check: bool = False,
        log: Callable[[float, Client, Verdict, Attempt], None] | None = None,
    ) -> None:
        self.now = 0.0
        self.clients = clients
        self._capacity = list(capacity)
        self.busy = 0
        self._latency = Random(seed)
        self._mu = mean_s * exp(-sigma * sigma / 2)
        self._sigma = sigma
        self._retry_after_s = retry_after_s
        self._lull = lull
        self._warm_s = warm_s
        self._check = check
        self._log = log
        self._heap: list[tuple[float, int, str, Attempt | Client | None]] = []
        self._number = 0
        self._slots = 0
        for client in clients:
            self._at(client.joins_at, "timer", client)
            client.timer_at = client.joins_at
            if lull[1] < inf:
                self._at(lull[1], "wake", client)
        for at, _ in capacity:
            self._at(at, "step", None)

    def run(self, until: float) -> None:
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, kind, what = heappop(heap)
            if isinstance(what, Attempt):
                self._attempt(kind, what)
            elif isinstance(what, Client):
                self._wake(kind, what)
            else:
                self._step()
        self.now = until
        for client in self.clients:
            self._account(client)

    def _attempt(self, kind: str, attempt: Attempt) -> None:
        client = attempt.client
        if kind == "arrive":
            if self.busy >= self._slots:
                self._at(self.now + LEG_S, "rejected", attempt)
                return
            self._serve(client, 1)
            self._at(self.now + self._mu * exp(self._sigma * self._latency.gauss(0.0, 1.0)), "served", attempt)
            return
        if kind == "served":
            self._serve(client, -1)
            self._at(self.now + LEG_S, "answered", attempt)
            return
        client.law.advance(self.now, client.in_flight, self._demand())
        client.in_flight -= 1
        if kind == "answered":
            client.law.succeeded(attempt.stamp, self.now)
            if attempt.canary:
                client.cooldown.survived(self.now, attempt.sent_at)
        else:
            self._rejected(client, attempt)
        self._pump(client)

    def _rejected(self, client: Client, attempt: Attempt) -> None:
        client.rejections += 1
        client.late_rejections += self.now >= self._warm_s
        hint = self._retry_after_s
        verdict = client.law.rejected(attempt.stamp, self.now, hint)
        if self._log is not None:
            self._log(self.now, client, verdict, attempt)
        if attempt.canary:
            client.cooldown.rejected(self.now, attempt.sent_at, rate=False, retry_after_s=hint)
        elif hint is not None:
            client.cooldown.hint(self.now, hint)
        elif verdict is Verdict.FALLING and client.law.wants_canary:
            client.cooldown.backoff(self.now, client.law.consecutive, rate=False)

    def _wake(self, kind: str, client: Client) -> None:
        if kind == "timer":
            if client.timer_at != self.now:
                return
            client.timer_at = inf
        self._pump(client)

    def _step(self) -> None:
        self._slots = max((at, slots) for at, slots in self._capacity if at <= self.now)[1]
        for client in self.clients:
            if isinstance(client.law, FixedConcurrency):
                client.law.set_bounds(1, max(1, self._slots // len(self.clients)), self.now)
                self._pump(client)

    def _pump(self, client: Client) -> None:
        law, cooldown, now = client.law, client.cooldown, self.now
        demand = self._demand()
        tick = inf
        while demand:
            law.advance(now, client.in_flight, demand)
            limit = law.limit
            if client.in_flight >= cooldown.allowance(now, client.in_flight, limit):
                tick = cooldown.next_tick(now, client.in_flight, limit)
                break
            if client.in_flight >= floor(limit):
                tick = law.next_tick(now)
                break
            stamp = law.sent(now, client.in_flight)
            canary = cooldown.sent(now, law.silence.tau)
            client.in_flight += 1
            client.sends += 1
            client.late_sends += now >= self._warm_s
            self._at(now + LEG_S, "arrive", Attempt(client, stamp, now, canary))
        if tick < inf:
            assert tick > now, "a tick that is due must have been done"
            if tick != client.timer_at:
                client.timer_at = tick
                self._at(tick, "timer", client)
        if self._check:
            law.check()
            cooldown.check()

    def _demand(self) -> bool:
        return not self._lull[0] <= self.now < self._lull[1]

    def _serve(self, client: Client, change: int) -> None:
        self._account(client)
        client.busy += change
        self.busy += change

    def _account(self, client: Client) -> None:
        at, now, by_s = client.busy_since, self.now, client.work_by_s
        client.work += client.busy * (now - at)
        while at < now:
            second = int(at)
            until = min(now, second + 1.0)
            while len(by_s) <= second:
                by_s.append(0.0)
            by_s[second] += client.busy * (until - at)
            at = until
        client.busy_since = now

    def _at(self, when: float, kind: str, what: Attempt | Client | None) -> None:
        self._number += 1
        heappush(self._heap, (when, self._number, kind, what))


def adaptive(seed: int, *, start: float = 4.0, maximum: int = 1024) -> Client:
    rng = Random(seed * 7919 + 1)
    law = AdaptiveConcurrency(minimum=1, start=start, maximum=maximum, rng=rng)
    return Client(law, Cooldown(rng=rng))


def fixed(slots: int, seed: int = 0) -> Client:
    return Client(FixedConcurrency(slots), Cooldown(rng=Random(seed)))


@dataclass(frozen=True, slots=True)
class Figures:
    """``to_95_s``: for each step of the capacity, seconds until the mean over five seconds is 95 % of the
    oracle. ``shares``: of the oracle's work, over the time in which all clients were there."""

    utilisation: float
    late_rejected_share: float
    to_95_s: tuple[float, ...]
    rejections: int
    shares: tuple[float, ...]

    @property
    def jain(self) -> float:
        """Jain's index of the clients' work: 1 for equal shares."""
        return sum(self.shares) ** 2 / (len(self.shares) * sum(share * share for share in self.shares))


SMOOTH_S = 5


def time_to_95(work_by_s: Sequence[float], slots: float, begin: int, end: int) -> float:
    """Seconds from ``begin`` until the mean of the following :data:`SMOOTH_S` seconds is within 95 % of
    ``slots``."""
    for second in range(begin, end - SMOOTH_S + 1):
        window = work_by_s[second : second + SMOOTH_S]
        if sum(window) >= 0.95 * slots * SMOOTH_S:
            return float(second - begin)
    return inf


def measure(
    capacity: Steps,
    clients: Sequence[Client],
    *,
    seed: int,
    until: float,
    retry_after_s: float | None = None,
    mean_s: float = MEAN_S,
    sigma: float = SIGMA,
    check: bool = False,
    log: Callable[[float, Client, Verdict, Attempt], None] | None = None,
) -> Figures:
    """Run ``clients`` against ``capacity`` and compare with an oracle that knows the capacity."""
    run = Simulation(
        capacity, clients, seed=seed, retry_after_s=retry_after_s, mean_s=mean_s, sigma=sigma, check=check, log=log
    )
    run.run(until)
    oracle = Simulation(capacity, [fixed(max(1, capacity[0][1]))], seed=seed, mean_s=mean_s, sigma=sigma)
    oracle.run(until)
    best = oracle.clients[0].work
    seconds = [sum(client.work_by_s[s] for client in clients if s < len(client.work_by_s)) for s in range(int(until))]
    ends = [int(at) for at, _ in capacity[1:]] + [int(until)]
    reached = tuple(
        time_to_95(seconds, slots * mean_s / (mean_s + 2 * LEG_S), int(at), end)
        for (at, slots), end in zip(capacity, ends, strict=True)
    )
    sends = sum(client.late_sends for client in clients)
    together = int(max(client.joins_at for client in clients))
    return Figures(
        utilisation=sum(client.work for client in clients) / best,
        late_rejected_share=sum(client.late_rejections for client in clients) / max(1, sends),
        to_95_s=reached,
        rejections=sum(client.rejections for client in clients),
        shares=tuple(sum(client.work_by_s[together:]) / best for client in clients),
    )


@dataclass(frozen=True, slots=True)
class Case:
    """``joins`` has one entry for each client: the second in which it comes."""

    capacity: Steps
    maximum: int = 1024
    joins: tuple[float, ...] = (0.0,)
    mean_s: float = MEAN_S
    sigma: float = SIGMA

    def figures(self, seed: int, until: float) -> Figures:
        clients = [adaptive(seed * 10 + number, maximum=self.maximum) for number in range(len(self.joins))]
        for client, joins_at in zip(clients, self.joins, strict=True):
            client.joins_at = joins_at
        return measure(self.capacity, clients, seed=seed, until=until, mean_s=self.mean_s, sigma=self.sigma)


TWO = (0.0, 0.0)
HALVED = [(0.0, 64), (600.0, 32), (1200.0, 64)]
TARGETS = {
    "concurrency 32, untold": Case([(0, 32)]),
    "concurrency 200, cap 256": Case([(0, 200)], maximum=256),
    "64 -> 32 -> 64": Case(HALVED),
    "two clients on 64": Case([(0, 64)], joins=TWO),
}
"""What DESIGN section 9 sets figures for."""

OTHERS = {
    "concurrency 4": Case([(0, 4)]),
    "concurrency 8": Case([(0, 8)]),
    "concurrency 1000": Case([(0, 1000)]),
    "32, mean 0.5 s": Case([(0, 32)], mean_s=0.5),
    "32, mean 20 s": Case([(0, 32)], mean_s=20.0),
    "32, sigma 0.3": Case([(0, 32)], sigma=0.3),
    "32, sigma 1.5": Case([(0, 32)], sigma=1.5),
    "200 cap 256, mean 0.5 s": Case([(0, 200)], maximum=256, mean_s=0.5),
    "200 cap 256, mean 20 s": Case([(0, 200)], maximum=256, mean_s=20.0),
    "64-32-64, mean 0.5 s": Case(HALVED, mean_s=0.5),
    "64-32-64, mean 20 s": Case(HALVED, mean_s=20.0),
    "64-32-64, sigma 0.3": Case(HALVED, sigma=0.3),
    "64-32-64, sigma 1.5": Case(HALVED, sigma=1.5),
    "32 -> 200": Case([(0, 32), (600, 200)]),
    "8 -> 4 -> 8": Case([(0, 8), (600, 4), (1200, 8)]),
    "drift 64 by 2 each 30 s": Case([(30.0 * step, 64 + 2 * abs((step + 8) % 32 - 16) - 16) for step in range(60)]),
    "noise 60 to 68 each 20 s": Case([(20.0 * step, 60 + (step * 7) % 9) for step in range(90)]),
    "two on 64, mean 0.5 s": Case([(0, 64)], joins=TWO, mean_s=0.5),
    "two on 64, mean 20 s": Case([(0, 64)], joins=TWO, mean_s=20.0),
    "two on 64, sigma 0.3": Case([(0, 64)], joins=TWO, sigma=0.3),
    "two on 64, sigma 1.5": Case([(0, 64)], joins=TWO, sigma=1.5),
    "two on 8": Case([(0, 8)], joins=TWO),
    "two on 1000": Case([(0, 1000)], joins=TWO),
    "two on 64 -> 32 -> 64": Case(HALVED, joins=TWO),
    "four on 64": Case([(0, 64)], joins=(0.0, 0.0, 0.0, 0.0)),
    "one joins at 600 s": Case([(0, 64)], joins=(0.0, 600.0)),
}
"""What must not get worse for the sake of the others."""


def report(name: str, case: Case, seeds: Sequence[int], until: float) -> str:
    """One line: the mean and the worst seed of each figure."""
    runs = [case.figures(seed, until) for seed in seeds]

    def both(values: Sequence[float], worst: float, form: str) -> str:
        return f"{format(sum(values) / len(values), form)} {format(worst, form)}"

    utilisation = [figures.utilisation for figures in runs]
    rejected = [figures.late_rejected_share for figures in runs]
    jain = [figures.jain for figures in runs]
    steps = list(zip(*(figures.to_95_s for figures in runs), strict=True))
    reached = "; ".join(both(step, max(step), ".0f") for step in steps[:4])
    return (
        f"{name:26} | {both(utilisation, min(utilisation), '.4f')} | {both(rejected, max(rejected), '.2%')}"
        f" | {reached:22} | {both(jain, min(jain), '.3f') if len(case.joins) > 1 else ''}"
    )


def main(arguments: Sequence[str]) -> None:
    """``[all] [seeds] [minutes] [part of a name]``."""
    seeds = range(1, 1 + int(arguments[1]) if len(arguments) > 1 else 6)
    until = 60.0 * float(arguments[2]) if len(arguments) > 2 else 1800.0
    cases = {**TARGETS, **OTHERS} if arguments and arguments[0] == "all" else TARGETS
    print(f"{'mean and worst seed':26} | utilisation   | 429s after {WARM_S:.0f} s | s to 95 % | Jain")
    for name, case in cases.items():
        if len(arguments) <= 3 or arguments[3] in name:
            print(report(name, case, seeds, until), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
