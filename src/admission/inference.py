"""Which limit was it? A guess about each rejection that says nothing of itself, and what becomes of the guess.

Decides between a concurrency limit and one of the rates. A limit *explains* a rejection when what it bounds was, at
that moment, higher than what had been accepted before:

* concurrency: hardly anything was accepted while as many others were in flight, since the limit was last measured;
* a rate: no more was ever accepted within two, five, ... forty seconds.

Concurrency is suspected first: its law measures within one rejection and asks again within seconds. Rejections that
only a rate explains, and measurements that more was accepted than they allow, add up to a *trial*: what they taught the
concurrency law is taken back, the rate law paces, and what is in flight is free to vary. That is an experiment. If the
rate is no limit, rejections go on at lower and lower rates than were accepted before: the trial fails, its rate is
forgotten, and the next trial takes more evidence. Else the rate is *established*. A provider may have both limits, so
in a trial, too, each rejection is judged by itself, and one that concurrency explains teaches its law. A rate that no
rejection confirms costs little, for its law raises it ever faster.

Does not decide what the laws do with a rejection. Pure: ``now`` in seconds (monotonic).

Prior art: none known; controllers take every 429 for the one limit that they know.
"""

from __future__ import annotations

from enum import StrEnum
from math import exp, inf, sqrt
from typing import Final, NamedTuple

from ..values import LimitKind

__all__ = ["Inference", "Judgement", "Rejection", "Stage", "Suspect"]

SPACED_S: Final = 2.0
"""Rejections closer together than this are one piece of evidence."""

MEMORY_S: Final = 60.0
"""Accepted requests are remembered by what was in flight for one to two such spans."""

ABOVE: Final = 3
"""So many requests accepted with clearly more in flight show that the concurrency was not the limit."""

ALIKE_AT_LEAST: Final = 12
ALIKE_AT_MOST: Final = 300
ALIKE_TRANSIT: Final = 4.0
"""So many accepted with as much in flight show the same. The limit itself lets some through: those that arrive while an
answer is in transit. With q in transit on average it does so to all but one in e^q."""

TRANSIT_SIGMAS: Final = 3.0
"""What was accepted this many deviations of what is in transit above a measurement does not contradict it."""

TRIAL_AFTER: Final = 2
TRIAL_AFTER_MOST: Final = 16
"""Rejections that only a rate explains before it is tried; twice as many after each trial that failed."""

UNDECIDED: Final = 3
"""So much more evidence is waited for while two rates explain the same."""

FAILS_AFTER: Final = 3
"""A trial fails when so many rejections in a row come at less than it had let through before."""

FALLS_AFTER: Final = 4
"""An established rate is given up after so many rejections in a row below what it had let through before. The quota may
have fallen: then its law finds the new one in less."""

FLOOR_S: Final = 300.0
FLOOR_SPAN_S: Final = 5.0
STEADY: Final = 0.93
SPAN_MIN_S: Final = 1.0
"""What was let through between two rejections that far apart is expected for so long between later ones, too, within
this share, if they are further apart than the last."""

ESTABLISHED_AFTER: Final = 2
"""Rejections in a trial that concurrency does not explain, before the rate counts as established."""


class Stage(StrEnum):
    """What is believed of a rate limit that nobody stated."""

    NONE = "none"
    TRIAL = "trial"
    ESTABLISHED = "established"


class Suspect(NamedTuple):
    """One rate: ``record`` says that never was more accepted, ``probing`` that its law has just raised it.

    ``spent`` is what was ever accepted until then, ``cost`` that of the rejected request, both in units of the rate.
    ``known`` says that its law has a rate, wherever from.
    """

    kind: LimitKind
    record: bool
    probing: bool
    spent: float
    cost: float
    known: bool = False


class Rejection(NamedTuple):
    """What is known of a rejected request: ``others`` in flight when it was sent, ``transit`` of them on the way.

    ``news`` says that something was accepted between the last rejection and this one.
    """

    others: int
    sent_at: float
    transit: float
    news: bool


class Judgement(NamedTuple):
    """``kind`` is the limit to teach. First take back what the concurrency law learned since ``retract_since`` (None:
    nothing), and what the law of the rate ``dropped`` learned."""

    kind: LimitKind
    retract_since: float | None = None
    dropped: LimitKind | None = None


class _Floor:
    """What one rate has shown to let through between rejections."""

    __slots__ = ("_at", "_per_s", "_sent_at", "_spent")

    def __init__(self) -> None:
        self._sent_at = inf  # of the last rejected request, and what was spent until then
        self._spent = 0.0
        self._per_s = 0.0
        self._at = -inf

    def reached(self, suspect: Suspect, sent_at: float, now: float) -> bool | None:
        """Whether as much was let through since the last rejection as between earlier ones; None if nobody knows."""
        span_s, spent = sent_at - self._sent_at, suspect.spent - self._spent
        self._sent_at, self._spent = sent_at, suspect.spent
        if not SPAN_MIN_S <= span_s < inf:
            return None
        if now - self._at > FLOOR_S:
            self._per_s = 0.0
        reached = None if self._per_s == 0.0 else (spent + suspect.cost) / span_s >= STEADY * self._per_s
        if span_s >= FLOOR_SPAN_S and (spent - suspect.cost) / span_s > self._per_s:
            self._per_s, self._at = (spent - suspect.cost) / span_s, now
        return reached


class Inference:
    """The guesses of one scope, whose concurrency is adaptive. See the module."""

    __slots__ = (
        "_above",
        "_armed",
        "_confirmed",
        "_counted_at",
        "_doubt",
        "_doubted_from",
        "_evidence",
        "_failed_row",
        "_first_at",
        "_floor",
        "_judged",
        "_judged_at",
        "_measured",
        "_measured_at",
        "_needed",
        "_older",
        "_rotated_at",
        "_seen",
        "kind",
        "rejected_at",
        "since",
        "stage",
    )

    def __init__(self) -> None:
        self.stage = Stage.NONE
        self.kind = LimitKind.REQUESTS  # the rate that is tried or established
        self.since = -inf  # records of rates count from here on
        self._armed = False
        self._seen: dict[int, int] = {}
        self._older: dict[int, int] = {}
        self._rotated_at = -inf
        self._measured = inf  # others in flight at the last rejection that was taken for concurrency
        self._measured_at = -inf
        self._doubt: list[Suspect] = []  # what would also have explained the last measurement
        self._doubted_from = inf  # others in flight that contradict it, and how many were accepted with so many
        self._above = 0
        self.rejected_at = -inf  # when the last rejected request was sent
        self._judged = LimitKind.CONCURRENCY
        self._judged_at = -inf
        self._counted_at = -inf
        self._evidence: dict[LimitKind, int] = {}
        self._first_at = inf  # the first rejection since concurrency was last in doubt
        self._needed = TRIAL_AFTER
        self._floor = _Floor()
        self._failed_row = 0
        self._confirmed = 0

    def accepted(self, others: int, sent_at: float) -> None:
        """A request that was sent at ``sent_at`` with ``others`` in flight was answered, and not with a rejection."""
        if not self._armed or (others >= self._measured and sent_at <= self._measured_at):
            return
        self._seen[others] = self._seen.get(others, 0) + 1
        if others >= self._doubted_from and sent_at > self._measured_at:
            self._above += 1
            if self._above == ABOVE:
                self._contradicted()

    def judge(self, rejection: Rejection, suspects: list[Suspect], now: float) -> Judgement:
        """Say which limit an unlabelled ``rejection`` is taken to be about."""
        if not self._armed:
            self._armed = True
            self.since = self._rotated_at = now
        if rejection.sent_at < self._judged_at:
            return Judgement(self._judged)  # of a burst already judged
        self._forget(now)
        fits = self._fits(rejection)
        steady = self._steady(suspects, rejection.sent_at, now)
        counts = rejection.news and now - self._counted_at >= SPACED_S
        if counts:
            self._counted_at = now
        known = next((suspect.kind for suspect in suspects if suspect.known), None)
        if self.stage is Stage.NONE and known is not None:  # taught by a label, or by an earlier process
            self.stage, self.kind = Stage.ESTABLISHED, known
        if self.stage is Stage.NONE:
            judgement = self._unknown(fits, suspects, now, counts=counts)
            self._steady(suspects, rejection.sent_at, now)  # where a trial begins, its first span does
        else:
            judgement = self._paced(fits, steady, suspects, news=rejection.news, counts=counts)
        if judgement.kind is LimitKind.CONCURRENCY:
            self._measure(rejection, suspects if fits else [])
        self._judged, self._judged_at = judgement.kind, now
        self.rejected_at = rejection.sent_at
        return judgement

    def check(self) -> None:
        """Assert every invariant."""
        assert TRIAL_AFTER <= self._needed <= TRIAL_AFTER_MOST
        assert 0 <= self._failed_row < FALLS_AFTER
        assert all(count > 0 for count in self._seen.values())
        assert self._armed or not self._seen

    def _unknown(self, fits: bool, suspects: list[Suspect], now: float, *, counts: bool) -> Judgement:
        """No rate is suspected yet."""
        self._first_at = min(self._first_at, now)
        if counts and not fits:
            self._weigh(suspects)
        best = self._best()
        if best is None:
            return Judgement(LimitKind.CONCURRENCY)
        self.stage, self.kind = Stage.TRIAL, best
        self._confirmed = self._failed_row = 0
        self._floor = _Floor()
        self._evidence.clear()
        since, self._first_at = self._first_at, inf
        self._measured = self._doubted_from = inf
        return Judgement(best, retract_since=since)

    def _best(self) -> LimitKind | None:
        """The rate that explains enough of what concurrency does not, and more of it than any other rate.

        Requests and tokens rise and fall together, and it takes a few rejections more to tell them apart.
        """
        ranked = sorted(self._evidence, key=self._evidence.__getitem__, reverse=True)
        if not ranked or self._evidence[ranked[0]] < self._needed:
            return None
        best = self._evidence[ranked[0]]
        tied = len(ranked) > 1 and self._evidence[ranked[1]] == best
        return None if tied and best < self._needed + UNDECIDED else ranked[0]

    def _contradicted(self) -> None:
        """More was accepted than the last measurement allows: it was no measurement of a concurrency."""
        self._doubted_from = inf
        if self.stage is Stage.NONE:
            self._weigh(self._doubt)

    def _weigh(self, suspects: list[Suspect]) -> None:
        """Concurrency does not explain a rejection: do the rates?"""
        for suspect in suspects:
            before = self._evidence.get(suspect.kind, 0)
            self._evidence[suspect.kind] = before + 1 if suspect.record else max(0, before - 1)

    def _paced(
        self, fits: bool, steady: bool | None, suspects: list[Suspect], *, news: bool, counts: bool
    ) -> Judgement:
        """A rate is on trial, or established."""
        suspect = next((one for one in suspects if one.kind is self.kind), None)
        if not news and self._judged is not LimitKind.CONCURRENCY:
            return Judgement(self.kind)  # nothing was accepted since: it is the same again
        if fits:
            explained = suspect is not None and suspect.record and suspect.probing
            return Judgement(self.kind if explained else LimitKind.CONCURRENCY)
        if counts and steady is True:
            self._confirmed += 1
            self._failed_row = 0
            if self._confirmed >= ESTABLISHED_AFTER:
                self.stage = Stage.ESTABLISHED
        elif counts and steady is False:
            self._failed_row += 1
        if self._failed_row >= (FAILS_AFTER if self.stage is Stage.TRIAL else FALLS_AFTER):
            self._fail()
            return Judgement(LimitKind.CONCURRENCY, dropped=self.kind)
        return Judgement(self.kind)

    def _steady(self, suspects: list[Suspect], sent_at: float, now: float) -> bool | None:
        """Whether as much of the suspected rate was accepted since the last rejection as between earlier ones.

        A bucket that was empty at one rejection lets through what it refills until the next: each such span shows that
        the quota is at least that. None if nobody knows.
        """
        suspect = next((one for one in suspects if one.kind is self.kind), None)
        if self.stage is Stage.NONE or suspect is None:
            return None
        return self._floor.reached(suspect, sent_at, now)

    def _fail(self) -> None:
        self.stage = Stage.NONE
        self._failed_row = 0
        self._evidence.clear()
        self._needed = min(TRIAL_AFTER_MOST, 2 * self._needed)

    def _fits(self, rejection: Rejection) -> bool:
        """Whether the concurrency explains it."""
        others, transit = rejection.others, rejection.transit
        if others == 0:
            return False
        alike = min(ALIKE_AT_MOST, max(ALIKE_AT_LEAST, ALIKE_TRANSIT * exp(min(transit, 10.0))))
        return self._accepted_from(_clearly_above(rejection)) < ABOVE and self._accepted_from(others) < alike

    def _accepted_from(self, others: float) -> int:
        """How many were accepted with at least so many others in flight."""
        return sum(count for seen in (self._seen, self._older) for number, count in seen.items() if number >= others)

    def _measure(self, rejection: Rejection, suspects: list[Suspect]) -> None:
        """The concurrency is measured at this rejection: what was accepted above it before is of another time."""
        others = rejection.others
        if rejection.news:
            self._doubt = suspects  # else it is one more of the same kind as the one before
        self._measured, self._measured_at = others, rejection.sent_at
        self._doubted_from, self._above = _clearly_above(rejection), 0
        for seen in (self._seen, self._older):
            for number in [number for number in seen if number >= others]:
                del seen[number]

    def _forget(self, now: float) -> None:
        if now - self._rotated_at >= MEMORY_S:
            self._older = self._seen if now - self._rotated_at < 2 * MEMORY_S else {}
            self._seen = {}
            self._rotated_at = now


def _clearly_above(rejection: Rejection) -> float:
    """So many others in flight are more than there were, whatever was in transit."""
    return rejection.others + 1.0 + rejection.transit + TRANSIT_SIGMAS * sqrt(rejection.transit)
