"""Clients with unlimited demand against a provider that limits concurrency, in virtual time.

Plain discrete events on one heap: no loop, no clock, the same seed gives the same run. The provider accepts
while fewer than its capacity are being served and rejects at once otherwise; an answer of either kind is one
network leg away. Work is the integral of busy slots over time, which unlike a count of completions has no
sampling noise of its own. An oracle is the same client with a :class:`FixedConcurrency` that follows the
capacity.
"""

from __future__ import annotations

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
        check: bool = False,
        log: Callable[[float, Client, Verdict, Attempt], None] | None = None,
    ) -> None:
        self.now = 0.0
        self.clients = clients
        self._capacity = list(capacity)
        self.busy = 0
        self._latency = Random(seed)
        self._mu = mean_s * exp(-SIGMA * SIGMA / 2)
        self._retry_after_s = retry_after_s
        self._lull = lull
        self._warm_s = warm_s
        self._check = check
        self._log = log
        self._heap: list[tuple[float, int, str, Attempt | Client | None]] = []
        self._number = 0
        self._slots = 0
        for client in clients:
            self._at(0.0, "timer", client)
            client.timer_at = 0.0
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
            self._at(self.now + self._mu * exp(SIGMA * self._latency.gauss(0.0, 1.0)), "served", attempt)
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
            canary = cooldown.sent(now, law.tau)
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
    oracle."""

    utilisation: float
    late_rejected_share: float
    to_95_s: tuple[float, ...]
    rejections: int
    shares: tuple[float, ...]


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
    check: bool = False,
    log: Callable[[float, Client, Verdict, Attempt], None] | None = None,
) -> Figures:
    """Run ``clients`` against ``capacity`` and compare with an oracle that knows the capacity."""
    run = Simulation(capacity, clients, seed=seed, retry_after_s=retry_after_s, check=check, log=log)
    run.run(until)
    oracle = Simulation(capacity, [fixed(max(1, capacity[0][1]))], seed=seed)
    oracle.run(until)
    best = oracle.clients[0].work
    seconds = [sum(client.work_by_s[s] for client in clients) for s in range(int(until))]
    ends = [int(at) for at, _ in capacity[1:]] + [int(until)]
    reached = tuple(
        time_to_95(seconds, slots * MEAN_S / (MEAN_S + 2 * LEG_S), int(at), end)
        for (at, slots), end in zip(capacity, ends, strict=True)
    )
    sends = sum(client.late_sends for client in clients)
    return Figures(
        utilisation=sum(client.work for client in clients) / best,
        late_rejected_share=sum(client.late_rejections for client in clients) / max(1, sends),
        to_95_s=reached,
        rejections=sum(client.rejections for client in clients),
        shares=tuple(client.work / best for client in clients),
    )


CASES: dict[str, tuple[Steps, int, int]] = {
    "concurrency 32, untold": ([(0, 32)], 1024, 1),
    "concurrency 200, cap 256": ([(0, 200)], 256, 1),
    "64 -> 32 -> 64": ([(0, 64), (600, 32), (1200, 64)], 1024, 1),
    "two clients on 64": ([(0, 64)], 1024, 2),
}
"""Name: capacity, the users' maximum, number of clients."""


def main() -> None:
    for name, (capacity, maximum, count) in CASES.items():
        for seed in range(1, 6):
            clients = [adaptive(seed * 10 + number, maximum=maximum) for number in range(count)]
            figures = measure(capacity, clients, seed=seed, until=1800.0)
            jain = sum(figures.shares) ** 2 / (count * sum(share * share for share in figures.shares))
            reached = ", ".join(f"{seconds:.0f} s" for seconds in figures.to_95_s)
            print(
                f"{name:26} seed {seed}: utilisation {figures.utilisation:.4f},",
                f"429s after {WARM_S:.0f} s {figures.late_rejected_share:.3%},",
                f"to 95 %: {reached}, Jain {jain:.3f}",
            )


if __name__ == "__main__":
    main()
