"""Which limit was it? A guess about each rejection that says nothing of itself, and what becomes of the guess.

Decides between a concurrency limit and one of the rates. A limit *explains* a rejection when what it bounds was, at
that moment, higher than what had been accepted before:

* concurrency: hardly anything was accepted while as many others were in flight, since the limit was last measured;
* a rate: no more was ever accepted within two, five, ... forty seconds.

Concurrency is suspected first: its law measures within one rejection and asks again within seconds. Rejections that
only a rate explains, measurements that more was accepted than they allow, and above all spans between rejections that
let through exactly the same (:mod:`.refill`) add up to a *trial*: what they taught the concurrency law is taken back,
the rate law paces, and what is in flight is free to vary. That is an experiment. If the
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
from .evidence import Evidence
from .refill import Floor

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

ALIKE_SHARED: Final = 0.5
"""Where others seem to use the same slots, that as many in flight were accepted shows half: it may be them."""

FEW: Final = 8
FEW_WEIGHT: Final = 1.35
"""With fewer than this in flight two such rejections begin a trial: spans hold too few requests to say anything."""

COLLAPSE: Final = 0.33
"""Rejected at less than this share of what was in flight at first, with nothing accepted in between: it was not for
want of slots. Either everything is refused for a while, or a rate is used up."""

FAILS_AFTER: Final = 3
"""A trial fails when so many rejections in a row come at less than it had let through before."""

FALLS_AFTER: Final = 4
"""An established rate is given up after so many rejections in a row below what it had let through before. The quota may
have fallen: then its law finds the new one in less."""

ESTABLISHED_AFTER: Final = 2
"""Rejections in a trial that concurrency does not explain, before the rate counts as established."""


class Stage(StrEnum):
    """What is believed of a rate limit that nobody stated."""

    NONE = "none"
    TRIAL = "trial"
    ESTABLISHED = "established"


class Suspect(NamedTuple):
    """One rate: ``record`` says that never was more accepted, ``probing`` that its law has just raised it.

    ``spent`` is what was ever accepted until then, ``cost`` that of the rejected request or the mean if that is more,
    both in units of the rate. ``known`` says that its law has a rate, wherever from.
    """

    kind: LimitKind
    record: bool
    probing: bool
    spent: float
    cost: float
    known: bool = False


class Rejection(NamedTuple):
    """What is known of a rejected request: ``others`` in flight when it was sent, ``transit`` of them on the way.

    ``news`` says that something was accepted between the last rejection and this one, ``shared`` that others seem to
    use the same slots.
    """

    others: int
    sent_at: float
    transit: float
    news: bool
    shared: bool = False


class Judgement(NamedTuple):
    """``kind`` is the limit to teach. First take back what the concurrency law learned since ``retract_since`` (None:
    nothing), and what the law of the rate ``dropped`` learned."""

    kind: LimitKind
    retract_since: float | None = None
    dropped: LimitKind | None = None


class Inference:
    """The guesses of one scope, whose concurrency is adaptive. See the module."""

    __slots__ = (
        "_above",
        "_confirmed",
        "_counted_at",
        "_doubt",
        "_doubted_from",
        "_either",
        "_evidence",
        "_failed_row",
        "_first",
        "_first_at",
        "_floor",
        "_height",
        "_judged",
        "_judged_at",
        "_measured",
        "_measured_at",
        "_older",
        "_rotated_at",
        "_seen",
        "_strange_at",
        "armed",
        "kind",
        "rejected_at",
        "since",
        "stage",
    )

    def __init__(self) -> None:
        self.stage = Stage.NONE
        self.kind = LimitKind.REQUESTS  # the rate that is tried or established
        self.since = -inf  # records of rates count from here on
        self.armed = False  # an unlabelled rejection was seen: from now on it matters what is accepted
        self._seen: dict[int, int] = {}
        self._older: dict[int, int] = {}
        self._rotated_at = -inf
        self._measured = inf  # others in flight at the last rejection that was taken for concurrency
        self._measured_at = -inf
        self._doubt: list[Suspect] = []  # what would also have explained the last measurement
        self._doubted_from = inf  # others in flight that contradict it, and how many were accepted with so many
        self._above = 0
        self._strange_at = -inf  # when something was last seen that concurrency does not explain
        self._height = 0  # others in flight at the last rejection before which something was accepted
        self._first: list[Suspect] = []  # what would also have explained that one
        self.rejected_at = -inf  # when the last rejected request was sent
        self._judged = LimitKind.CONCURRENCY
        self._judged_at = -inf
        self._counted_at = -inf
        self._evidence = Evidence()
        self._first_at = inf  # the first rejection since concurrency was last in doubt
        self._floor = Floor()
        self._failed_row = 0
        self._confirmed = 0
        self._either = -1  # others in flight at the last rejection that both the rate and concurrency explained

    def accepted(self, others: int, sent_at: float) -> None:
        """A request that was sent at ``sent_at`` with ``others`` in flight was answered, and not with a rejection."""
        if not self.armed or (others >= self._measured and sent_at <= self._measured_at):
            return
        self._seen[others] = self._seen.get(others, 0) + 1
        if others >= self._doubted_from and sent_at > self._measured_at:
            self._above += 1
            if self._above == ABOVE:
                self._contradicted(sent_at)

    def judge(self, rejection: Rejection, suspects: list[Suspect], now: float) -> Judgement:
        """Say which limit an unlabelled ``rejection`` is taken to be about."""
        if not self.armed:
            self.armed = True
            self.since = self._rotated_at = now
        if rejection.sent_at < self._judged_at:
            return Judgement(self._judged)  # of a burst already judged
        self._forget(now)
        fits = self._fits(rejection)
        steady = self._steady(suspects, rejection.sent_at, now)
        self._evidence.rejected(suspects, rejection.sent_at)
        counts = rejection.news and now - self._counted_at >= SPACED_S
        if counts:
            self._counted_at = now
        known = next((suspect.kind for suspect in suspects if suspect.known), None)
        if self.stage is Stage.NONE and known is not None:  # taught by a label, or by an earlier process
            self.stage, self.kind = Stage.ESTABLISHED, known
        if self.stage is Stage.NONE:
            judgement = self._unknown(rejection, suspects, now, fits=fits, counts=counts)
            self._steady(suspects, rejection.sent_at, now)  # where a trial begins, its first span does
        else:
            judgement = self._paced(rejection, steady, suspects, fits=fits, counts=counts)
        if judgement.kind is LimitKind.CONCURRENCY:
            self._measure(rejection, suspects if fits else [])
        self._judged, self._judged_at = judgement.kind, now
        self.rejected_at = rejection.sent_at
        return judgement

    def prove(self, kind: LimitKind) -> float:
        """A limit of ``kind`` has shown itself. Returns since when rejections were taken for concurrency's instead."""
        since, self._first_at = min(self._first_at, self._judged_at), inf
        self.stage, self.kind = Stage.ESTABLISHED, kind
        self._failed_row = 0
        self._evidence.clear()
        return since

    def check(self) -> None:
        """Assert every invariant."""
        self._evidence.check()
        assert 0 <= self._failed_row < FALLS_AFTER
        assert all(count > 0 for count in self._seen.values())
        assert self.armed or not self._seen

    def _unknown(
        self, rejection: Rejection, suspects: list[Suspect], now: float, *, fits: bool, counts: bool
    ) -> Judgement:
        """No rate is suspected yet."""
        self._first_at = min(self._first_at, now)
        if not fits:
            self._strange_at = now
            if counts:
                self._evidence.weigh(suspects, self._weight(rejection), alone=rejection.others == 0)
        if rejection.news:
            self._first, self._height = suspects, rejection.others
        elif rejection.others < COLLAPSE * self._height:
            self._evidence.weigh(self._first)
            self._height, self._strange_at = 0, now
        best = self._evidence.best() if now - self._strange_at <= MEMORY_S else None
        if best is None:
            return Judgement(LimitKind.CONCURRENCY)
        self.stage, self.kind = Stage.TRIAL, best
        self._confirmed = self._failed_row = 0
        self._floor = Floor()
        self._evidence.clear()
        since, self._first_at = self._first_at, inf
        self._measured = self._doubted_from = inf
        return Judgement(best, retract_since=since)

    def _contradicted(self, sent_at: float) -> None:
        """More was accepted than the last measurement allows: it was no measurement of a concurrency."""
        self._doubted_from = inf
        self._strange_at = sent_at
        if self.stage is Stage.NONE:
            self._evidence.weigh(self._doubt)

    def _weight(self, rejection: Rejection) -> float:
        """How much the rates are weighed by a ``rejection`` that concurrency does not explain."""
        if rejection.others < FEW:
            return FEW_WEIGHT
        return ALIKE_SHARED if rejection.shared and not self._more(rejection) else 1.0

    def _paced(
        self, rejection: Rejection, steady: bool | None, suspects: list[Suspect], *, fits: bool, counts: bool
    ) -> Judgement:
        """A rate is on trial, or established."""
        suspect = next((one for one in suspects if one.kind is self.kind), None)
        if not rejection.news and self._judged is not LimitKind.CONCURRENCY:
            return Judgement(self.kind)  # nothing was accepted since: it is the same again
        if fits:
            explained = suspect is not None and suspect.record and suspect.probing
            if not explained or rejection.others == self._either:
                return Judgement(LimitKind.CONCURRENCY)  # a rate is not reached at the same number in flight twice
            self._either = rejection.others
            return Judgement(self.kind)
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
        return self._floor.reached(suspect.spent, suspect.cost, sent_at, now)

    def _fail(self) -> None:
        self.stage = Stage.NONE
        self._failed_row = 0
        self._evidence.refuted()

    def _fits(self, rejection: Rejection) -> bool:
        """Whether the concurrency explains it."""
        others, transit = rejection.others, rejection.transit
        if others == 0:
            return False
        alike = min(ALIKE_AT_MOST, max(ALIKE_AT_LEAST, ALIKE_TRANSIT * exp(min(transit, 10.0))))
        return not self._more(rejection) and self._accepted_from(others) < alike

    def _more(self, rejection: Rejection) -> bool:
        """Whether requests were accepted with clearly more in flight."""
        return self._accepted_from(_clearly_above(rejection)) >= ABOVE

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
