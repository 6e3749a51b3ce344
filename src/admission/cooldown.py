"""When a scope may send again after a block, and how many at once then.

Three things block a scope: a hint of the provider (Retry-After), our own backoff when nothing gets through,
and somebody outside (an outage breaker, an operator). A block never gets shorter (A5); only ``unblock`` ends
one early, and only one from outside. What follows a block:

* after a hint: a *slow restart*. One more than is in flight at the reopening, two more after a quarter of a
  second, then four, eight, until the limit is reached. Never the whole limit at once (T21).
* after a backoff or a block from outside: exactly one *canary* first. It survives: slow restart. It is
  rejected: the next, longer backoff. It is abandoned: another canary goes.

What it does not decide: the limit itself, and which rejections are worth a backoff. Who counts:

* concurrency: the concurrency law counts rejections in a row. (a) to (c) of its cases need no cooldown; the
  gate calls ``backoff(now, law.consecutive, rate=False)`` for a FALLING verdict once ``law.wants_canary``.
* rate: counted here. ``rate_rejected`` starts a backoff by itself from the second in a row without a survivor
  on.
* a canary's own rejection: counted here, whatever its kind, with ``rejected``.

Protocol of calls, all with a ``now`` that never goes back (seconds, monotonic):

1. ``allowance(now, in_flight, limit)`` before each admission: admit while ``in_flight`` is below it.
2. ``sent(now, settle_s)`` for each admission, ``settle_s`` being the law's ``tau``. Keep the answer with the
   lease: True says that it is the canary.
3. For a canary's end exactly one of ``survived`` (answered, and not with a capacity rejection), ``rejected``,
   ``abandoned``, with the time at which it was sent. A canary that is silent for ``settle_s`` has survived
   without a call; the end of one that no longer counts is ignored.
4. For every other rejection: with Retry-After ``hint``; without, by kind, ``backoff`` or ``rate_rejected``.
   For a canary ``rejected`` does that, too.
5. ``next_tick`` for whoever was refused: ask again then.

Prior art: full-jitter backoff, the half-open state of circuit breakers, TCP's slow start after idle.
"""

from __future__ import annotations

from enum import Enum, auto
from math import exp2, floor, inf, log2
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ..values import Rng

__all__ = ["Cooldown"]

HINT_CAP_S: Final = 600.0
"""A longer Retry-After holds the scope for this long and is reported: it may be a mistake, or a quota of a
day."""

HINT_JITTER_S: Final = 1.0
HINT_JITTER_SHARE: Final = 0.1
"""Clients that were told the same moment come back spread over the smaller of these."""

BACKOFF_S: Final = 0.25
RATE_BACKOFF_S: Final = 0.5
BACKOFF_CAP_S: Final = 20.0
"""First and longest pause without a hint. A rate refills more slowly than a slot frees."""

BACKOFF_FROM: Final = 2
"""The count of rejections in a row that means the first, undoubled pause."""

BACKOFF_DOUBLINGS_MAX: Final = 10.0
"""Beyond the cap whatever the first pause was; keeps the power finite."""

RESTART_DOUBLING_S: Final = 0.25
RESTART_DOUBLINGS_MAX: Final = 20.0
"""A slow restart doubles in the first; after so many doublings (a million requests) it is over, limit or
not."""

SETTLE_S: Final = 1.0
"""How long a canary must be silent where nobody knows better."""

TICK_MIN_S: Final = 0.001
"""Time alone is not worth a wake-up more often than this."""

_ROUNDING: Final = 1e-9


class _Phase(Enum):
    """How far a scope is on its way from a block to sending freely; see the module."""

    OPEN = auto()
    BLOCKED = auto()
    CANARY_WANTED = auto()
    CANARY_OUT = auto()
    RESTART = auto()


_CANARY_WANTED: Final = _Phase.CANARY_WANTED  # asked for every request, and looking up an enum's member is slow


class Cooldown:
    """The cooldown of one scope. See the module for the protocol.

    ``blocked_until`` (seconds, monotonic; -inf when there never was a block) is to be read only, and so is ``open``:
    there is no cooldown, ``allowance`` need not be asked before something closes it. While it is ``quiet`` it need not
    hear of requests that are ``sent`` with the ``settle_s`` that it has. ``cap_s`` may be changed at any time.
    ``exceeded`` counts the hints beyond ``cap_s``, ``longest_hint_s`` is the largest so far.
    """

    # The mutable state is exactly these slots.
    __slots__ = (
        "_base",
        "_canary_at",
        "_consecutive",
        "_external_until",
        "_needs_canary",
        "_own_until",
        "_phase",
        "_rate_rejected_at",
        "_rate_row",
        "_rate_witness_at",
        "_reopened_at",
        "_rng",
        "blocked_until",
        "cap_s",
        "exceeded",
        "longest_hint_s",
        "open",
        "quiet",
        "settle_s",
    )

    def __init__(self, *, rng: Rng, cap_s: float = HINT_CAP_S) -> None:
        self.cap_s = cap_s
        self.exceeded = 0
        self.longest_hint_s = 0.0
        self.blocked_until = -inf
        self.open = True
        self.quiet = False
        self.settle_s = SETTLE_S
        self._rng = rng
        self._own_until = -inf  # hints and backoffs
        self._external_until = -inf
        self._phase = _Phase.OPEN
        self._needs_canary = False
        self._consecutive = 0
        self._canary_at = -inf
        self._base: int | None = None  # in flight at the reopening; None until somebody looks
        self._reopened_at = -inf
        self._rate_row = 0
        self._rate_rejected_at = -inf
        self._rate_witness_at = inf  # when the first request after the last counted rate rejection went out

    @property
    def own_until(self) -> float:
        """The end of the latest pause that a rejection or a hint caused, whatever somebody outside blocks."""
        return self._own_until

    # What closes

    def hint(self, now: float, retry_after_s: float) -> bool:
        """The provider asked for a pause of ``retry_after_s`` seconds. True if it asked for more than
        ``cap_s``.

        Nothing that is not above zero is a hint.
        """
        if not retry_after_s > 0.0:
            return False
        self.longest_hint_s = max(self.longest_hint_s, retry_after_s)
        exceeded = retry_after_s > self.cap_s
        self.exceeded += exceeded
        pause_s = min(retry_after_s, self.cap_s)
        jitter_s = self._rng.uniform(0.0, min(HINT_JITTER_S, HINT_JITTER_SHARE * pause_s))
        self._close(now, now + pause_s + jitter_s)
        return exceeded

    def backoff(self, now: float, consecutive: int, rate: bool) -> None:
        """Pause after ``consecutive`` rejections in a row without a hint, then send exactly one canary."""
        self._consecutive = max(BACKOFF_FROM, consecutive)
        doublings = min(self._consecutive - BACKOFF_FROM, BACKOFF_DOUBLINGS_MAX)
        pause_s = min(BACKOFF_CAP_S, (RATE_BACKOFF_S if rate else BACKOFF_S) * exp2(doublings))
        self._needs_canary = True
        self._close(now, now + pause_s * self._rng.uniform(0.5, 1.5))

    def rate_rejected(self, now: float, sent_at: float) -> bool:
        """A request sent at ``sent_at`` hit a rate limit, without a hint. True if that started a backoff.

        One burst counts once: what was sent before the last counted rejection is stale. A row is broken when
        the first request after that rejection was out for the settling time and nothing was rejected.
        """
        if sent_at < self._rate_rejected_at:
            return False
        survived = now - self._rate_witness_at > self.settle_s
        self._rate_row = 1 if survived else self._rate_row + 1
        self._count_rate_rejection(now)
        if self._rate_row < BACKOFF_FROM:
            return False
        self.backoff(now, self._rate_row, rate=True)
        return True

    def block(self, until: float, now: float) -> None:
        """Close from outside until ``until`` (may be ``inf``).

        An end before the present one changes nothing. It opens with a canary.
        """
        if until > now:
            self._external_until = max(self._external_until, until)
            self._needs_canary = True
            self._close(now, self._own_until)

    def unblock(self, now: float) -> None:
        """End a ``block``; what the provider asked for and our own backoff stay."""
        if self._external_until > now:
            self._external_until = -inf
            self.blocked_until = self._own_until

    # What opens

    def allowance(self, now: float, in_flight: int, limit: float) -> float:
        """How many may be in flight as far as the cooldown goes; ``inf`` when it is over.

        ``limit`` is the scope's: it ends a slow restart, and is the caller's to observe.
        """
        self._pass_time(now, in_flight, limit)
        match self._phase:
            case _Phase.OPEN:
                return inf
            case _Phase.BLOCKED | _Phase.CANARY_OUT:
                return 0.0
            case _Phase.CANARY_WANTED:
                return in_flight + 1.0
            case _Phase.RESTART:
                return self._restarted(now)

    def sent(self, now: float, settle_s: float = SETTLE_S) -> bool:
        """A request goes out. True if it is the canary: it survives by ``settle_s`` seconds of silence."""
        self.settle_s = settle_s
        if self._rate_witness_at == inf:
            self._rate_witness_at = now
        self.quiet = self.open
        if self._phase is not _CANARY_WANTED:
            return False
        self._phase = _Phase.CANARY_OUT
        self._canary_at = now
        return True

    def survived(self, now: float, sent_at: float) -> None:
        """The canary sent at ``sent_at`` got through."""
        if self._is_canary(sent_at):
            self._reopen()

    def rejected(self, now: float, sent_at: float, *, rate: bool, retry_after_s: float | None = None) -> bool:
        """The canary sent at ``sent_at`` was rejected: pause, then the next one. True as for ``hint``.

        ``rate`` says whether a rate limit rejected it.
        """
        hint_s = retry_after_s or 0.0
        if not self._is_canary(sent_at):
            return self.hint(now, hint_s)
        self._consecutive += 1
        if rate:
            self._count_rate_rejection(now)
        if hint_s > 0.0:
            return self.hint(now, hint_s)
        self.backoff(now, self._consecutive, rate=rate)
        return False

    def abandoned(self, now: float, sent_at: float) -> None:
        """The canary was cancelled, timed out here or got lost: evidence of nothing, another one may go."""
        if self._is_canary(sent_at):
            self._phase = _Phase.CANARY_WANTED

    def next_tick(self, now: float, in_flight: int, limit: float) -> float:
        """When time alone may let one more in; ``inf`` for never. Always later than ``now``."""
        match self._phase:
            case _Phase.OPEN | _Phase.CANARY_WANTED:
                return inf
            case _Phase.BLOCKED:
                at = self.blocked_until
            case _Phase.CANARY_OUT:
                at = self._canary_at + self.settle_s
            case _Phase.RESTART:
                if in_flight + 1 > limit:
                    return inf
                at = self._restarts_at(in_flight + 1)
        return max(at, now + TICK_MIN_S)

    def check(self) -> None:
        """Assert every invariant."""
        assert self.blocked_until == max(self._own_until, self._external_until)
        assert self._needs_canary or self._phase not in (_Phase.CANARY_WANTED, _Phase.CANARY_OUT)
        assert not (self._needs_canary and self._phase in (_Phase.OPEN, _Phase.RESTART)), "reopened without a canary"
        assert self.open == (self._phase is _Phase.OPEN)
        assert not self.quiet or (self.open and self._rate_witness_at < inf)
        assert self._rate_row >= 0
        assert self._consecutive >= 0

    # Phases

    def _close(self, now: float, until: float) -> None:
        self._own_until = max(self._own_until, until)
        self.blocked_until = max(self._own_until, self._external_until)
        if self.blocked_until > now:
            self._phase = _Phase.BLOCKED
            self.open = self.quiet = False

    def _pass_time(self, now: float, in_flight: int, limit: float) -> None:
        if self._phase is _Phase.OPEN:
            return
        if self._phase is _Phase.BLOCKED and now >= self.blocked_until:
            if self._needs_canary:
                self._phase = _Phase.CANARY_WANTED
            else:
                self._reopen()
        elif self._phase is _Phase.CANARY_OUT and now >= self._canary_at + self.settle_s:
            self._reopen()
        if self._phase is _Phase.RESTART:
            if self._base is None:
                # From the first look on: nobody may have looked for an hour after the block was over.
                self._base, self._reopened_at = in_flight, now
            if self._restarted(now) >= min(limit, self._base + exp2(RESTART_DOUBLINGS_MAX)):
                self._phase = _Phase.OPEN
                self.open = True

    def _reopen(self) -> None:
        if self._needs_canary:
            self._rate_row = 0
        self._needs_canary = False
        self._consecutive = 0
        self._base = None
        self._phase = _Phase.RESTART

    def _restarted(self, now: float) -> float:
        assert self._base is not None, "a slow restart begins with the first look"
        doublings = min((now - self._reopened_at) / RESTART_DOUBLING_S, RESTART_DOUBLINGS_MAX)
        return self._base + floor(exp2(doublings) + _ROUNDING)

    def _restarts_at(self, in_flight: int) -> float:
        """When a slow restart allows ``in_flight``."""
        if self._base is None:
            return -inf
        return self._reopened_at + RESTART_DOUBLING_S * log2(max(1, in_flight - self._base))

    def _is_canary(self, sent_at: float) -> bool:
        return self._phase is _Phase.CANARY_OUT and sent_at == self._canary_at

    def _count_rate_rejection(self, now: float) -> None:
        self._rate_rejected_at = now
        self._rate_witness_at = inf
        self.quiet = False
