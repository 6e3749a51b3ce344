"""One rate bucket: when may a cost go, and what does it leave behind.

Decides the earliest time for one cost under one rate. Knows neither where the rate comes from (that is
:mod:`headgate.admission.rate`) nor who waits.

Prior art: the Generic Cell Rate Algorithm in its virtual scheduling form (ITU-T I.371, annex A; ATM Forum TM 4.0),
with a cost per request. The whole state is one number, the theoretical arrival time (TAT): at ``TAT <= now`` the
bucket is full, ``TAT - now`` seconds of the rate are owed otherwise. There are no windows, hence no window edges
(T13), and no clock (T14). Three things differ from the textbook. The burst is a length of time, so it scales with
the rate; a cost above the burst waits for a full bucket instead of for ever (T7); and settling a reservation moves
the TAT after the fact (T9).
"""

from __future__ import annotations

from math import inf, isfinite
from typing import Final

__all__ = ["BURST_S", "OWED_MAX_S", "Bucket"]

BURST_S: Final = 0.25
"""What a full bucket holds, in seconds of its rate: enough to hide a wake-up, too little to upset a provider."""

OWED_MAX_S: Final = 60.0
"""A debt that a lower rate stretches is paid by this time."""


class Bucket:
    """Lets out ``rate`` units a second; ``inf`` lets out everything at once.

    ``burst_s`` is the size of the bucket in seconds of the rate. ``capacity`` (units) is the largest cost that can
    ever go, None for no such bound. Units are requests or tokens, times are seconds (monotonic). ``rate`` is to be read
    only.
    """

    # The mutable state is `_tat`, `_floor` and `_owed_at_block`; the rest is set from outside.
    __slots__ = ("_floor", "_owed_at_block", "_tat", "burst_s", "capacity", "rate")

    def __init__(self, rate: float = inf, *, burst_s: float = BURST_S, capacity: float | None = None) -> None:
        assert rate > 0.0
        assert burst_s >= 0.0
        assert capacity is None or capacity > 0.0
        self.rate = rate
        self.burst_s = burst_s
        self.capacity = capacity
        self._tat = -inf
        self._floor = -inf
        self._owed_at_block: float | None = None

    def fits(self, cost: float) -> bool:
        """Whether ``cost`` can ever go. If not, the request is too large: waiting does not help."""
        return self.capacity is None or cost <= self.capacity

    def owed(self, now: float) -> float:
        """Units taken and not yet refilled."""
        return 0.0 if self.rate == inf else max(0.0, self._tat - now) * self.rate

    def ready_at(self, cost: float, now: float) -> float:
        """The earliest time at which ``cost`` may go; a time not after ``now`` means now.

        The bucket holds ``max(cost, burst_s * rate)``, so a cost above the burst waits for a full bucket. It always
        answers: whether the cost can ever go is a question for ``fits``.
        """
        assert cost >= 0.0
        if self.rate == inf or cost == 0.0:
            return now
        return self._tat - max(0.0, self.burst_s - cost / self.rate)

    def take(self, cost: float, now: float) -> None:
        """Take ``cost``. The caller has asked ``ready_at``; an early take is booked all the same, and owed longer."""
        assert cost >= 0.0
        if self.rate != inf:
            self._tat = max(self._tat, now) + cost / self.rate

    def settle(self, reserved: float, actual: float, now: float) -> None:
        """Replace a cost taken earlier by what was really spent (``actual = 0``: all of it comes back).

        What comes back never lifts the bucket above full, nor above where a drain or a block left it.
        """
        assert reserved >= 0.0
        assert actual >= 0.0
        if self.rate == inf or actual == reserved:
            return
        owed_until = max(self._tat, now) + (actual - reserved) / self.rate
        self._tat = max(owed_until, min(self._tat, max(now, self._floor)))

    def set_rate(self, rate: float, now: float) -> None:
        """Refill at ``rate`` from now on. What is owed stays owed in units: a new rate forgives nothing.

        Except that a lower rate never turns a short debt into a wait of more than ``OWED_MAX_S``: the new rate may be
        a guess, and only a later send can correct it.
        """
        assert rate > 0.0
        if rate == self.rate:
            return
        owed, owed_s = self.owed(now), self._tat - now
        self.rate = rate
        if rate == inf:
            self._tat = min(self._tat, now)
        elif owed > 0.0:
            self._tat = now + min(owed / rate, max(owed_s, OWED_MAX_S))

    def drain(self, cost: float, now: float) -> None:
        """The provider just said that its bucket has no room for ``cost``: wait for that much to be refilled."""
        if self.rate != inf:
            self._floor = now + max(self.burst_s, cost / self.rate)
            self._tat = max(self._tat, self._floor)

    def block(self, now: float) -> None:
        """A cooldown begins. Debts go on being paid, but no burst credit accumulates until ``unblock``."""
        if self._owed_at_block is None:
            self._owed_at_block = max(0.0, self._tat - now)

    def unblock(self, now: float) -> None:
        """The cooldown is over: at most the credit that there was before it."""
        if self._owed_at_block is None:
            return
        self._floor = now + min(self._owed_at_block, self.burst_s)
        self._owed_at_block = None
        if self.rate != inf:
            self._tat = max(self._tat, self._floor)

    def check(self) -> None:
        """Assert every invariant."""
        assert self.rate > 0.0
        assert self._tat == -inf or isfinite(self._tat)
        assert self._floor == -inf or isfinite(self._floor)
        assert self._owed_at_block is None or self._owed_at_block >= 0.0
