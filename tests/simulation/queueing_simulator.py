"""A client with unlimited demand against a server that batches and queues and never rejects, in virtual time.

The model of vLLM: up to ``max_num_seqs`` requests run in one batch, the rest wait inside, first come first served,
without bound. A decoding step takes ``STEP_S`` up to ``knee`` requests and grows in proportion beyond: throughput grows
with the batch and is flat from the knee on. Outputs are lognormal, every request pays for its prompt first.
"""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush
from math import exp, floor, inf
from random import Random
from typing import TYPE_CHECKING

from headgate.admission.concurrency import AdaptiveConcurrency, FixedConcurrency, Stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LEG_S = 0.005
STEP_S = 0.02
MEAN_TOKENS = 250.0
PROMPT_TOKENS = 20.0  # what reading the prompt costs, in steps

Law = AdaptiveConcurrency | FixedConcurrency


@dataclass(slots=True, eq=False)
class Answer:
    stamp: Stamp
    tokens: float


class Server:
    """``knees``: (from second, knee). Equal progress for all that run, so that one virtual clock of steps is enough."""

    def __init__(
        self,
        knees: Sequence[tuple[float, float]],
        law: Law,
        *,
        seed: int,
        max_num_seqs: int = 256,
        soft: bool = False,
        sigma: float = 1.0,
        known_tokens: bool = True,
        lull: tuple[float, float] = (inf, inf),
        check: bool = False,
    ) -> None:
        self.now = 0.0
        self.law = law
        self.in_flight = 0
        self.tokens_by_s: list[float] = []
        self.in_flight_by_s: list[int] = []
        self._knees = list(knees)
        self._random = Random(seed)
        self._max_num_seqs = max_num_seqs
        self._soft = soft
        self._sigma = sigma
        self._known_tokens = known_tokens
        self._lull = lull
        self._check = check
        self._steps = 0.0
        self._number = 0
        self._running: list[tuple[float, int, Answer]] = []
        self._waiting: deque[Answer] = deque()
        self._events: list[tuple[float, int, bool, Answer]] = []
        self._tick = inf

    def run(self, until: float) -> None:
        self._pump()
        while self.now < until:
            done = self._done_at()
            event = self._events[0][0] if self._events else inf
            second = float(len(self.in_flight_by_s) + 1)
            at = min(done, event, second, self._tick, until)
            self._progress(at)
            if at == second:
                self.in_flight_by_s.append(self.in_flight)
                if self.in_flight == 0:
                    self._pump()
            if at == done:
                self._finish(heappop(self._running)[2])
            elif at == event:
                _, _, arrives, answer = heappop(self._events)
                if arrives:
                    self._arrive(answer)
                else:
                    self._answered(answer)
            elif at == self._tick:
                self._tick = inf
                self._pump()

    def best_per_s(self, at: float, level: float = inf) -> float:
        """Output tokens a second at ``level`` at that time, at most."""
        knee = max(pair for pair in self._knees if pair[0] <= at)[1]
        running = min(level, float(self._max_num_seqs))
        return running / self._step_s(running, knee) * MEAN_TOKENS / (MEAN_TOKENS + PROMPT_TOKENS)

    def _step_s(self, running: float, knee: float) -> float:
        if self._soft:
            return STEP_S * (1.0 + running / knee)
        return STEP_S * max(1.0, running / knee)

    def _knee(self) -> float:
        return max(pair for pair in self._knees if pair[0] <= self.now)[1]

    def _progress(self, at: float) -> None:
        if self._running:
            self._steps += (at - self.now) / self._step_s(len(self._running), self._knee())
        self.now = at

    def _done_at(self) -> float:
        if not self._running:
            return inf
        left = max(0.0, self._running[0][0] - self._steps)
        return self.now + left * self._step_s(len(self._running), self._knee())

    def _arrive(self, answer: Answer) -> None:
        if len(self._running) >= self._max_num_seqs:
            self._waiting.append(answer)
            return
        self._number += 1
        heappush(self._running, (self._steps + PROMPT_TOKENS + answer.tokens, self._number, answer))

    def _finish(self, answer: Answer) -> None:
        second = int(self.now)
        while len(self.tokens_by_s) <= second:
            self.tokens_by_s.append(0.0)
        self.tokens_by_s[second] += answer.tokens
        self._at(self.now + LEG_S, False, answer)
        if self._waiting:
            self._arrive(self._waiting.popleft())

    def _answered(self, answer: Answer) -> None:
        self.law.advance(self.now, self.in_flight, self._demand())
        self.in_flight -= 1
        self.law.succeeded(answer.stamp, self.now, answer.tokens if self._known_tokens else None)
        self._pump()

    def _pump(self) -> None:
        while self._demand():
            self.law.advance(self.now, self.in_flight, True)
            if self.in_flight >= floor(self.law.limit):
                self._tick = self.law.next_tick(self.now)
                break
            stamp = self.law.sent(self.now, self.in_flight)
            self.in_flight += 1
            mu = MEAN_TOKENS * exp(-(self._sigma**2) / 2)
            tokens = max(1.0, mu * exp(self._sigma * self._random.gauss(0.0, 1.0)))
            self._at(self.now + LEG_S, True, Answer(stamp, tokens))
        if self._check:
            self.law.check()

    def _demand(self) -> bool:
        return not self._lull[0] <= self.now < self._lull[1]

    def _at(self, when: float, arrives: bool, answer: Answer) -> None:
        self._number += 1
        heappush(self._events, (when, self._number, arrives, answer))


def queueing(seed: int, *, start: float = 4.0, maximum: int = 4096) -> AdaptiveConcurrency:
    return AdaptiveConcurrency(minimum=1, start=start, maximum=maximum, rng=Random(seed), queueing=True)


def mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))


def figures(server: Server, begin: int, end: int) -> tuple[float, float, int]:
    """Between two seconds: tokens relative to the best, mean and greatest in flight."""
    best = mean([server.best_per_s(float(second)) for second in range(begin, end)])
    flying = server.in_flight_by_s[begin:end]
    return mean(server.tokens_by_s[begin:end]) / best, mean(flying), max(flying)


def found_s(server: Server, begin: int, end: int) -> float:
    """Seconds from ``begin`` until the mean throughput of 20 seconds is 90 % of the best."""
    for second in range(begin, end - 20):
        if mean(server.tokens_by_s[second : second + 20]) >= 0.9 * server.best_per_s(float(second)):
            return float(second - begin)
    return inf


STEADY = [(0.0, 64.0)]
MOVING = [(0.0, 64.0), (600.0, 32.0), (1200.0, 64.0)]
NO_KNEE = [(0.0, 1e9)]

CASES: dict[str, Callable[[int], Server]] = {
    "knee 16": lambda seed: Server([(0.0, 16.0)], queueing(seed), seed=seed),
    "knee 64": lambda seed: Server(STEADY, queueing(seed), seed=seed),
    "knee 64, tokens unknown": lambda seed: Server(STEADY, queueing(seed), seed=seed, known_tokens=False),
    "knee 64, sigma 1.5": lambda seed: Server(STEADY, queueing(seed), seed=seed, sigma=1.5),
    "knee 200": lambda seed: Server([(0.0, 200.0)], queueing(seed), seed=seed),
    "no knee, 256 sequences": lambda seed: Server(NO_KNEE, queueing(seed), seed=seed),
    "no knee, 32 sequences": lambda seed: Server(NO_KNEE, queueing(seed), seed=seed, max_num_seqs=32),
    "soft knee 32": lambda seed: Server([(0.0, 32.0)], queueing(seed), seed=seed, soft=True),
    "knee 64 -> 32 -> 64": lambda seed: Server(MOVING, queueing(seed), seed=seed),
}


def main(arguments: Sequence[str]) -> None:
    seeds = range(1, 1 + int(arguments[0]) if arguments else 6)
    until = 1800
    for name, server_of in CASES.items():
        for begin, end in ((0, 600), (600, 1200), (1200, 1800)):
            rows: list[tuple[float, float, int]] = []
            founds: list[float] = []
            for seed in seeds:
                server = server_of(seed)
                server.run(float(until))
                rows.append(figures(server, begin + 200, end))
                founds.append(found_s(server, begin, end))
            print(
                f"{name:26} {begin:5} s on: throughput {mean([row[0] for row in rows]):.3f}",
                f"worst {min(row[0] for row in rows):.3f}, in flight {mean([row[1] for row in rows]):.0f}",
                f"at most {max(row[2] for row in rows)}, found after {mean(founds):.0f} s, worst {max(founds):.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
