"""A limit under the concurrency law, moved by hand."""

from __future__ import annotations

from math import floor
from random import Random

from headgate.admission.concurrency import AdaptiveConcurrency, Mode, Stamp, Verdict


class Bench:
    """A law, a clock, and requests in flight that nobody answers unless told."""

    def __init__(self, start: float, *, settled: bool = True, maximum: int = 1024, seed: int = 1) -> None:
        self.law = AdaptiveConcurrency(minimum=1, start=start, maximum=maximum, rng=Random(seed), settled=settled)
        self.now = 0.0
        self.flying: list[Stamp] = []

    @property
    def mode(self) -> Mode:
        return self.law.snapshot(self.now).mode

    def fill(self) -> None:
        self.law.advance(self.now, len(self.flying), True)
        while len(self.flying) < floor(self.law.limit):
            self.flying.append(self.law.sent(self.now, len(self.flying)))

    def wait(self, seconds: float) -> None:
        """Time passes as a gate would let it: asking at every tick."""
        end = self.now + seconds
        self.fill()
        while (tick := self.law.next_tick(self.now)) < end:
            self.now = tick
            self.fill()
        self.now = end
        self.fill()

    def reject(self, at: int = -1, hint: float | None = None, after: float = 0.08) -> Verdict:
        self.now += after
        self.law.advance(self.now, len(self.flying), True)
        return self.law.rejected(self.flying.pop(at), self.now, hint)

    def succeed(self, at: int = 0) -> None:
        self.law.advance(self.now, len(self.flying), True)
        self.law.succeeded(self.flying.pop(at), self.now)
