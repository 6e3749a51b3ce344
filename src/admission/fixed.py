"""A concurrency limit that somebody set.

The limit does not learn: the provider may reject what it likes. Only the count of rejections in a row without
a survivor is kept, so that the cooldown can stop a storm. The same face as
:class:`headgate.admission.concurrency.AdaptiveConcurrency`, and the same protocol of calls.
"""

from __future__ import annotations

from math import inf

from .law_values import CANARY_CONSECUTIVE, TICK_MIN_S, LawSnapshot, Mode, Stamp, Verdict
from .survival import Silence, Watch

__all__ = ["FixedConcurrency"]


class FixedConcurrency:
    """The limit of one scope: at most ``limit`` in flight (to be read only) until it is set anew.

    ``silence.tau`` is the time without a rejection after which a request counts as accepted (seconds). Time means
    nothing to it but while rejections are counted: ``looks_at``.
    """

    __slots__ = ("_seq", "_watch", "consecutive", "generation", "limit", "looks_at", "rejections", "silence", "stale")

    def __init__(self, limit: int) -> None:
        assert limit >= 1, f"a limit of {limit} lets nothing through"
        self.generation = 0
        self.consecutive = 0
        self.rejections = 0
        self.stale = 0
        self.limit = limit
        self.looks_at = inf
        self._seq = 0
        self.silence = Silence()
        self._watch = Watch()

    @property
    def wants_canary(self) -> bool:
        """Whether so many were rejected in a row that requests should stop but for one."""
        return self.consecutive >= CANARY_CONSECUTIVE

    def sent(self, now: float, in_flight_others: int) -> Stamp:
        """A request goes out while ``in_flight_others`` others are in flight."""
        self._seq += 1
        stamp = Stamp()
        stamp.generation = self.generation
        stamp.others = in_flight_others
        stamp.sent_at = now
        stamp.seq = self._seq
        if self.consecutive:
            self._watch.add(stamp)
        return stamp

    def succeeded(self, stamp: Stamp, now: float, units: float | None = None) -> None:
        """The request was answered, and not with a capacity rejection."""
        if self.consecutive:
            self._watch.drop(stamp)
            self._survived(stamp)

    def rejected(self, stamp: Stamp, now: float, retry_after_s: float | None = None) -> Verdict:
        """The provider had no room: STALE, COUNTED, or FALLING once a canary is wanted. The limit stays."""
        self.rejections += 1
        self.silence.observe(now - stamp.sent_at, now)
        self._watch.drop(stamp)
        if stamp.generation != self.generation:
            self.stale += 1
            return Verdict.STALE
        self.generation += 1
        self.consecutive += 1
        self.looks_at = -inf
        self._watch.clear()
        return Verdict.FALLING if self.wants_canary else Verdict.COUNTED

    def abandoned(self, stamp: Stamp, now: float) -> None:
        """Cancelled, timed out here, or lost with its connection: evidence of nothing."""
        self._watch.drop(stamp)

    def retract(self, now: float, since: float) -> bool:
        """The rejections from ``since`` on were about something else: there is no row of them. The limit is as ever."""
        had, self.consecutive = self.consecutive, 0
        self.looks_at = inf
        self._watch.clear()
        return had > 0

    def advance(self, now: float, in_flight: int, demand: bool) -> None:
        """Let time pass up to ``now``: silence may mean acceptance."""
        while (stamp := self._watch.take(now - self.silence.tau)) is not None:
            self._survived(stamp)

    def set_bounds(self, minimum: int, maximum: int, now: float) -> None:
        """Work with ``maximum`` from now on; ``minimum`` has no meaning here."""
        assert maximum >= 1, f"a limit of {maximum} lets nothing through"
        self.limit = maximum

    def next_tick(self, now: float) -> float:
        """When time alone changes something; ``inf`` for never. Always later than ``now``."""
        if not self.consecutive:
            return inf
        return max(self._watch.next_at(self.silence.tau), now + TICK_MIN_S)

    def snapshot(self, now: float) -> LawSnapshot:
        """One look at the limit."""
        return LawSnapshot(
            mode=Mode.HOLD,
            limit=self.limit,
            generation=self.generation,
            consecutive=self.consecutive,
            contended=False,
            tau=self.silence.tau,
            probe_every_s=inf,
            next_probe=inf,
            rejections=self.rejections,
            stale=self.stale,
        )

    def check(self) -> None:
        """Assert every invariant."""
        assert self.limit >= 1
        assert 0 <= self.stale <= self.rejections
        assert self.generation == self.rejections - self.stale
        assert 0 <= self.consecutive <= self.generation
        assert self.looks_at == (-inf if self.consecutive else inf)
        self._watch.check()

    def _survived(self, stamp: Stamp) -> None:
        if stamp.generation == self.generation:
            self.consecutive = 0
            self.looks_at = inf
            self._watch.clear()
