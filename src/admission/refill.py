"""What a bucket refills between two rejections: the mark that a rate leaves, and a concurrency limit does not.

A rejection for a rate finds the provider's bucket short of one request. So between two of them as much was accepted as
was refilled, the rate times the seconds, to within one request at each end: however the requests were spread, and
however many were in flight. It was less if the bucket had been full in between, and never more. Spans between such
rejections reach one ceiling again and again, exactly. What a concurrency limit lets through varies with the latencies
of its requests and with what others use of it: such spans scatter, and agree by chance only.

:class:`Refill` weighs this. Each of the latest spans is taken for the ceiling in turn. Another one that reaches it
speaks for a rate, the more the rarer that is by chance; one that stays below speaks a little against it. One that
passes it began with a rejection for something else, and only counts together with those before it; if that does not
help, the ceiling is as new as that. :class:`Floor` is what a rate on trial has to reach again.

Pure: times in seconds (monotonic), units are requests or tokens.
"""

from __future__ import annotations

from collections import deque
from math import inf, log, pi, sqrt
from typing import Final, NamedTuple

__all__ = ["Floor", "Refill"]

SPANS: Final = 16
"""So many spans between rejections are remembered."""

SPAN_COSTS: Final = 6.0
"""Shorter spans, in requests, are counted with the next: they say nothing, as each end is known to within one."""

SPREAD: Final = 1.5
"""The variance of how many requests a concurrency limit lets through, as a share of their mean: 1 if they came by
chance; lognormal latencies of sigma 1 give 1 to 1.7."""

REACHES: Final = 0.7
BELOW: Final = 0.5
"""So often does a span reach the ceiling if there is one; in the others the bucket had been full. And what a span below
it takes away (the logarithm of the odds). With 0.5 instead of 0.7 a silent 600 a minute is found half a minute later,
with 1.0 and 0.3 clients that share slots reach twice the evidence."""

FLOOR_S: Final = 300.0
FLOOR_SPAN_S: Final = 5.0
STEADY: Final = 0.93
SPAN_MIN_S: Final = 1.0
"""What was let through between two rejections that far apart is expected for so long between later ones, too, within
this share, if they are further apart than the last."""


class _Span(NamedTuple):
    """``spent`` units were accepted in ``seconds``; the bucket may have held up to ``short`` at either end."""

    seconds: float
    spent: float
    short: float

    @property
    def least(self) -> float:
        """Units a second that were refilled at least."""
        return (self.spent - self.short) / self.seconds

    @property
    def most(self) -> float:
        """Units a second that were refilled at most, unless the bucket had been full."""
        return (self.spent + self.short) / self.seconds

    def after(self, earlier: _Span) -> _Span:
        """Both as one."""
        return _Span(self.seconds + earlier.seconds, self.spent + earlier.spent, max(self.short, earlier.short))


class Refill:
    """How much speaks for one rate, by the spans between rejections."""

    __slots__ = ("_cost", "_sent_at", "_spans", "_spent", "evidence")

    def __init__(self) -> None:
        self.evidence = 0.0  # the logarithm of how many times likelier a rate makes the spans
        self._spans: deque[_Span] = deque(maxlen=SPANS)
        self._sent_at = inf  # of the rejected request with which the present span began
        self._spent = 0.0
        self._cost = 0.0

    def rejected(self, spent: float, cost: float, sent_at: float) -> None:
        """A request of ``cost`` units that was sent at ``sent_at`` was rejected; ``spent`` were accepted before."""
        if cost <= 0.0:
            return  # it asked for nothing of this
        seconds, units, short = sent_at - self._sent_at, spent - self._spent, max(cost, self._cost)
        if seconds > 0.0 and units < SPAN_COSTS * short:
            return
        if seconds > 0.0:
            self._spans.append(_Span(seconds, units, short))
            self.evidence = max(self._evidence(ceiling) for ceiling in range(len(self._spans)))
        self._sent_at, self._spent, self._cost = sent_at, spent, cost

    def _evidence(self, number: int) -> float:
        """What speaks for the span of that ``number`` being the ceiling."""
        spans = self._spans
        least, most = spans[number].least, spans[number].most
        evidence, at = 0.0, len(spans) - 1
        while at >= 0:
            span, newest = spans[at], at
            while span.least > most and at > 0:
                at -= 1
                span = span.after(spans[at])
            if span.least > most:
                return evidence if newest < number else 0.0
            if newest > at:
                evidence -= BELOW * (newest - at)
            elif at != number:
                evidence += self._reached(span, least, most)
            at -= 1
        return evidence

    @staticmethod
    def _reached(span: _Span, least: float, most: float) -> float:
        """What ``span`` says of a ceiling between ``least`` and ``most``, which it does not pass."""
        if span.most < least:
            return -BELOW
        within = (most - least) * span.seconds + 2.0 * span.short
        chance = within / sqrt(2.0 * pi * SPREAD * span.spent * span.short)
        return max(0.0, log(REACHES / chance))


class Floor:
    """What one rate has shown to let through between rejections."""

    __slots__ = ("_at", "_per_s", "_sent_at", "_spent")

    def __init__(self) -> None:
        self._sent_at = inf  # of the last rejected request, and what was spent until then
        self._spent = 0.0
        self._per_s = 0.0
        self._at = -inf

    def reached(self, spent: float, cost: float, sent_at: float, now: float) -> bool | None:
        """Whether as much was let through since the last rejection as between earlier ones; None if nobody knows."""
        span_s, units = sent_at - self._sent_at, spent - self._spent
        self._sent_at, self._spent = sent_at, spent
        if not SPAN_MIN_S <= span_s < inf:
            return None
        if now - self._at > FLOOR_S:
            self._per_s = 0.0
        reached = None if self._per_s == 0.0 else (units + cost) / span_s >= STEADY * self._per_s
        if span_s >= FLOOR_SPAN_S and (units - cost) / span_s > self._per_s:
            self._per_s, self._at = (units - cost) / span_s, now
        return reached
