"""The rate laws against virtual providers: how full they keep a quota, and what that costs in rejections.

Pure discrete-event simulation: the limiter under test, a small stand-in for the gate's cooldown and concurrency ramp,
and providers that keep a token bucket or a fixed window. Demand is endless, latency lognormal (mean 5 s, sigma 1),
the network takes 40 ms each way. Figures are relative to what the provider could have served from the first second on.
"""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from headgate.admission.rate import RateLimiter, RateStamp
from headgate.values import RateWindow

if TYPE_CHECKING:
    from collections.abc import Callable

NETWORK_S = 0.04
LATENCY_MEAN_S = 5.0
LATENCY_SIGMA = 1.0
CONCURRENCY_MAX = 256.0
TAU_S = 1.0
CANARY_PAUSE_S = 0.5
PAUSE_MAX_S = 20.0


@dataclass
class Answer:
    accepted: bool
    retry_after_s: float | None = None
    window: RateWindow | None = None


@dataclass
class Provider:
    """A quota of ``per_minute`` units: a token bucket of ``burst`` units, or a fixed window of one minute."""

    per_minute: float
    burst: float = 0.0
    fixed_window: bool = False
    phase_s: float = 0.0
    retry_after: bool = False
    states: bool = False
    rejected_counts: bool = False
    level: float = field(init=False)
    at: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.level = self.per_minute if self.fixed_window else self.burst

    def _advance(self, now: float) -> None:
        if self.fixed_window:
            if math.floor((now + self.phase_s) / 60) != math.floor((self.at + self.phase_s) / 60):
                self.level = self.per_minute
        else:
            self.level = min(self.burst, self.level + (now - self.at) * self.per_minute / 60)
        self.at = now

    def reset_s(self) -> float:
        if self.fixed_window:
            return 60.0 - (self.at + self.phase_s) % 60.0
        return (self.burst - self.level) * 60 / self.per_minute

    def handle(self, cost: float, now: float) -> Answer:
        self._advance(now)
        accepted = self.level >= cost
        if accepted:
            self.level -= cost
        elif self.rejected_counts:
            self.level = max(0.0, self.level - cost)
        wait = self.reset_s() if self.fixed_window else (cost - self.level) * 60 / self.per_minute
        retry = None if accepted or not self.retry_after else max(0.1, wait)
        window = (
            RateWindow(self.per_minute, max(0.0, math.floor(self.level)), self.reset_s(), 60.0) if self.states else None
        )
        return Answer(accepted, retry, window)

    def could_serve(self, seconds: float) -> float:
        return self.burst + self.per_minute / 60 * seconds


@dataclass
class Result:
    served: float
    could: float
    sent: int
    rejected: int
    late_sent: int
    late_rejected: int

    @property
    def utilisation(self) -> float:
        return self.served / self.could

    @property
    def late_rejection_share(self) -> float:
        """429s after the first 120 s, as a share of what was sent then."""
        return self.late_rejected / max(1, self.late_sent)


class Simulation:
    """One client under one limiter against one provider."""

    def __init__(
        self,
        provider: Provider,
        seed: int,
        *,
        costs: Callable[[random.Random], tuple[float, float]] | None = None,
        configured: float | None = None,
    ) -> None:
        self.rng = random.Random(seed)
        self.provider = provider
        self.limiter = RateLimiter(configured_per_minute=configured, rng=random.Random(seed + 1))
        self.costs = costs
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.number = 0
        self.wake_at = math.inf
        self.in_flight = 0
        self.blocked_until = -math.inf
        self.canary = False
        self.awaiting_canary = False
        self.reopened: tuple[float, int] | None = None
        self.consecutive = 0
        self.last_rejection_sent = -math.inf
        self.next_cost = self._draw()
        self.result = Result(0.0, 0.0, 0, 0, 0, 0)
        self.trace: list[tuple[float, float, str]] = []

    def _draw(self) -> tuple[float, float]:
        return (1.0, 1.0) if self.costs is None else self.costs(self.rng)

    def at(self, when: float, event: Callable[[], None]) -> None:
        self.number += 1
        heapq.heappush(self.events, (when, self.number, event))

    def run(self, seconds: float) -> Result:
        self.at(0.0, self._woke)
        while self.events and self.events[0][0] <= seconds:
            self.now, _, event = heapq.heappop(self.events)
            event()
            self._send_all()
            self.limiter.check()
        self.result.could = self.provider.could_serve(seconds)
        return self.result

    def _allowed(self) -> float:
        ramp = min(CONCURRENCY_MAX, 4.0 * math.exp2(min(self.now, 10.0)))
        if self.reopened is not None:
            since, was = self.reopened
            ramp = min(ramp, was + math.exp2(min(20.0, (self.now - since) / 0.25)))
        return ramp

    def _send_all(self) -> None:
        while True:
            wake = self._try_send()
            if wake is None:
                continue
            if self.now < wake < self.wake_at:
                self.wake_at = wake
                self.at(wake, self._woke)
            return

    def _woke(self) -> None:
        if self.now >= self.wake_at:
            self.wake_at = math.inf

    def _try_send(self) -> float | None:
        """Send one request, or say when to look again."""
        if self.now < self.blocked_until:
            return self.blocked_until
        if self.awaiting_canary and self.canary:
            return math.inf  # its fate decides
        if self.in_flight >= math.floor(self._allowed()):
            return self.now + 0.05 if self._allowed() < CONCURRENCY_MAX else math.inf
        estimate, actual = self.next_cost
        ready = self.limiter.ready_at(estimate, self.now)
        if ready > self.now:
            return ready
        self.next_cost = self._draw()
        stamp = self.limiter.take(estimate, self.now)
        canary = self.awaiting_canary
        self.canary = canary
        self.in_flight += 1
        self.result.sent += 1
        self.result.late_sent += self.now > 120.0
        up = NETWORK_S * self.rng.uniform(0.8, 1.2)
        self.at(self.now + up, lambda: self._arrive(stamp, actual, canary))
        return None

    def _arrive(self, stamp: RateStamp, actual: float, canary: bool) -> None:
        answer = self.provider.handle(actual, self.now)
        down = NETWORK_S * self.rng.uniform(0.8, 1.2)
        if answer.accepted:
            self.result.served += actual
            mu = math.log(LATENCY_MEAN_S) - LATENCY_SIGMA**2 / 2
            down += self.rng.lognormvariate(mu, LATENCY_SIGMA)
            self.at(stamp.sent_at + TAU_S, lambda: self._survived(stamp, canary))
        self.at(self.now + down, lambda: self._answered(stamp, actual, answer, canary))

    def _survived(self, stamp: RateStamp, canary: bool) -> None:
        if stamp.sent_at > self.last_rejection_sent:
            self.consecutive = 0
        if canary:
            self._reopen()

    def _reopen(self) -> None:
        self.awaiting_canary = self.canary = False
        self.reopened = (self.now, self.in_flight)
        self.limiter.unblocked(self.now)

    def _answered(self, stamp: RateStamp, actual: float, answer: Answer, canary: bool) -> None:
        self.in_flight -= 1
        spent = actual if answer.accepted or self.provider.rejected_counts else 0.0
        self.limiter.settle(stamp, spent, self.now)
        if answer.window is not None:
            self.limiter.observed(answer.window, stamp, self.now)
        if answer.accepted:
            return
        self.result.rejected += 1
        self.result.late_rejected += self.now > 120.0
        self.last_rejection_sent = max(self.last_rejection_sent, stamp.sent_at)
        fresh = self.limiter.rejected(stamp, self.now, canary=canary)
        self.trace.append((self.now, self.limiter.rate_per_minute, "canary" if canary else str(fresh)))
        self._cool_down(answer, fresh or canary, canary)

    def _cool_down(self, answer: Answer, fresh: bool, canary: bool) -> None:
        self.consecutive += fresh
        pause = 0.0
        hint = answer.retry_after_s
        if hint is not None:
            pause = hint + self.rng.uniform(0.0, min(1.0, 0.1 * hint))
        elif fresh and self.consecutive >= 2:
            pause = min(PAUSE_MAX_S, CANARY_PAUSE_S * 2.0 ** (self.consecutive - 2)) * self.rng.uniform(0.5, 1.5)
        if canary:
            self.canary = False
        if pause and self.now + pause > self.blocked_until:
            self.blocked_until = self.now + pause
            self.awaiting_canary = True
            self.limiter.blocked(self.now, self.blocked_until)


CASES: dict[str, Callable[[int], Provider]] = {
    "600/min, burst 10, silent": lambda seed: Provider(600, 10),
    "the same with Retry-After": lambda seed: Provider(600, 10, retry_after=True),
    "the same with headers": lambda seed: Provider(600, 10, states=True),
    "burst 600, with headers": lambda seed: Provider(600, 600, states=True),
    "burst 600, silent": lambda seed: Provider(600, 600),
    "rejected count, Retry-After": lambda seed: Provider(600, 10, retry_after=True, rejected_counts=True),
    "rejected count, silent": lambda seed: Provider(600, 10, rejected_counts=True),
    "fixed window 600/min, headers": lambda seed: Provider(
        600, fixed_window=True, states=True, phase_s=random.Random(seed).uniform(0, 60)
    ),
    "fixed window 40/min, silent": lambda seed: Provider(
        40, fixed_window=True, phase_s=random.Random(seed).uniform(0, 60)
    ),
}


def tokens(rng: random.Random) -> tuple[float, float]:
    """A request's estimated and actual tokens: lognormal around 3,000, the estimate wrong by up to half."""
    actual = max(1.0, round(rng.lognormvariate(math.log(3000) - 0.5, 1.0)))
    return max(1.0, round(actual * rng.uniform(0.5, 1.5))), actual


TOKEN_CASES: dict[str, Callable[[int], Provider]] = {
    "600k tokens/min, silent": lambda seed: Provider(600_000, 600_000),
    "600k tokens/min, headers": lambda seed: Provider(600_000, 600_000, states=True),
}

# Eight virtual minutes: learning weighs four times as much as in the half hour of the design's targets, hence the
# looser bounds. (least utilisation, largest share of 429s after 120 s)
BOUNDS = {
    "600/min, burst 10, silent": (0.975, 0.003),
    "the same with Retry-After": (0.975, 0.003),
    "the same with headers": (0.995, 0.0001),
    "burst 600, with headers": (0.995, 0.0001),
    "burst 600, silent": (0.98, 0.004),
    "rejected count, Retry-After": (0.975, 0.003),
    "rejected count, silent": (0.97, 0.004),
    "fixed window 600/min, headers": (0.97, 0.003),
    "fixed window 40/min, silent": (0.95, 0.10),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_quota_is_kept_full_at_few_rejections(case: str, seed: int) -> None:
    """Section 9, targets of the rate law."""
    result = Simulation(CASES[case](seed), seed).run(480.0)
    utilisation, rejections = BOUNDS[case]
    assert result.utilisation >= utilisation
    assert result.late_rejection_share <= rejections


def test_the_quota_of_a_silent_fixed_window_is_learned_from_its_edges() -> None:
    """Section 9: 0.98 of the quota is the target; without the windows' edges it was 0.95 and three per cent of 429s."""
    case = CASES["fixed window 40/min, silent"]
    results = [Simulation(case(seed), seed).run(1800.0) for seed in range(5)]
    assert sum(result.utilisation for result in results) / 5 >= 0.97
    assert sum(result.late_rejection_share for result in results) / 5 <= 0.02


@pytest.mark.parametrize(
    ("case", "utilisation"), [("600k tokens/min, silent", 0.6), ("600k tokens/min, headers", 0.97)]
)
def test_token_quotas_are_kept_with_estimates_that_are_wrong_by_half(case: str, utilisation: float) -> None:
    result = Simulation(TOKEN_CASES[case](0), 0, costs=tokens).run(480.0)
    assert result.utilisation >= utilisation
    assert result.late_rejection_share <= 0.012


@pytest.mark.parametrize("stated", [False, True])
def test_a_configured_rate_is_kept_and_never_rejected(stated: bool) -> None:
    """Told the limit, there is nothing to learn."""
    result = Simulation(Provider(600, 30, states=stated), 0, configured=590).run(300.0)
    assert result.rejected == 0
    assert 0.95 <= result.utilisation <= 1.0


def test_t13_a_configured_minute_limit_never_doubles_across_an_edge() -> None:
    """Elsewhere twice the limit went through across the edge of a minute. No 60 seconds, wherever they begin, see more
    than the limit and one burst."""
    limiter = RateLimiter(configured_per_minute=120, rng=random.Random(0))
    sent: list[float] = []
    now = 0.0
    while now < 400.0:
        now = max(now, limiter.ready_at(1.0, now))
        limiter.take(1.0, now)
        sent.append(now)
    assert len(sent) >= 800
    for first, start in enumerate(sent):
        assert sum(at < start + 60.0 for at in sent[first:]) <= 121
