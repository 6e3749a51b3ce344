"""The rate law for a provider that states its limit in headers: keep a copy of its bucket, correct it by each answer.

Decides the rate from the freshest statement. With limit Q per window w and what is estimated to be left::

    rate = max(0.05 Q/w, Q/w + (left - 0.01 Q) / 10)

a proportional controller that empties a full bucket in tens of seconds and then holds it one per cent above empty.

``left`` is a mirror of the provider's bucket: it refills with Q/w, every own send lowers it, and an answer corrects
it by the difference between what the provider said was left and what the mirror had predicted for that very
request when it was sent (a Smith predictor). Where the bucket does not overflow in between this is
``min(Q, remaining + Q/w (now - sent_at)) - own sends since``, in O(1) and without a list of sends, and it stays
right when answers take longer than the window. An answer to a request older than the freshest says nothing new.

A *fixed window* (everything comes back at once at ``reset``) shows by a reset that stands still while requests go
out; then what is left is spread over the time until the reset.
"""

from __future__ import annotations

from math import inf, isfinite, nan
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ..values import RateWindow

__all__ = ["PATIENCE_MAX_S", "PATIENCE_S", "STALE_AT_LEAST_S", "STALE_AT_MOST_S", "StatedRate"]

FLOOR: Final = 0.05
"""Never below this share of the limit: an answer is needed to learn that there is room again."""

RESERVE: Final = 0.01
"""The share of the limit that stays in the provider's bucket."""

SPARE: Final = 2.0
"""A cost waits until so many times itself is left: estimates are wrong, and what is left is an estimate, too."""

GAIN_S: Final = 10.0
"""Time constant of the controller."""

STALE_WINDOWS: Final = 3.0
STALE_AT_LEAST_S: Final = 600.0
STALE_AT_MOST_S: Final = 3600.0
"""Without a statement for this long (and so many windows) the provider stopped stating: back to learning. A window
of a day is not waited for: whoever states it states it again in the next answer."""

PATIENCE_S: Final = 60.0
PATIENCE_MAX_S: Final = 600.0
"""Whatever was stated, one request goes out in this time: it may have been about another account, or the account was
raised, and only an answer can say so. Doubled each time that the answer says again that nothing is left, up to the
longest cooldown that a hint causes."""

SILENT_ANSWERS: Final = 3
SILENT_S: Final = 120.0
"""So many answers in so long a time without the statement: the provider does not make it any more."""

FIXED_VOTES: Final = 3
VOTES_MAX: Final = 6
"""So many more statements of a fixed window than of a bucket decide it."""

JUDGE_EVERY_S: Final = 10.0
"""Statements closer together than this look alike under either shape."""

RESET_SLACK_S: Final = 1.5
"""A reset is stated to the second and arrives late by a round trip; within this it is the same moment."""

CATCH_UP: Final = 3.0
"""What is left of a fixed window is never spent faster than so many times the even pace."""

CONFIRMED: Final = 3
"""A limit stated so often in a row is believed to bound a single request, too."""


class StatedRate:
    """The rate that a provider's statements allow. Units are requests or tokens, times seconds (monotonic)."""

    __slots__ = (
        "_at",
        "_cost",
        "_fixed",
        "_freshest",
        "_from_arrival",
        "_heard_at",
        "_judged_at",
        "_patience_s",
        "_patient_at",
        "_repeats",
        "_reset_at",
        "_resets",
        "_sent_at",
        "_silent",
        "_silent_since",
        "corrected",
        "ignored",
        "left",
        "limit",
        "window_s",
    )

    def __init__(self) -> None:
        self.limit = 0.0
        self.window_s = 60.0
        self.left: float | None = None  # None: nothing was stated
        self.corrected = 0.0  # sum of all corrections to `left`, for requests that were sent before them
        self.ignored = 0
        self._at = -inf  # time of `left`
        self._heard_at = -inf
        self._freshest = -1
        self._reset_at = inf
        self._judged_at = -inf
        self._resets = (-inf, -inf)  # the last one judged, counted from the arrival and from the answer
        self._from_arrival = True
        self._fixed = 0
        self._repeats = 0
        self._sent_at = -inf
        self._cost = 1.0  # of the last send
        self._patience_s = PATIENCE_S
        self._patient_at = inf  # when it grew last, or nothing was left first; inf: something is left
        self._silent = 0  # answers without a statement since the last one
        self._silent_since = -1  # the last send of which that is known

    @property
    def active(self) -> bool:
        """Whether there is a statement to go by."""
        return self.left is not None

    @property
    def lapses_at(self) -> float:
        """When it is too old to go by, if nothing is stated until then."""
        return self._heard_at + max(STALE_AT_LEAST_S, min(STALE_AT_MOST_S, STALE_WINDOWS * self.window_s))

    def lapsed(self, now: float) -> bool:
        """Whether there is a statement that has become too old, and nobody noticed yet."""
        return self.left is not None and now >= self.lapses_at

    @property
    def fixed_window(self) -> bool:
        """Whether the provider seems to refill all at once."""
        return self._fixed >= FIXED_VOTES

    def capacity(self, now: float) -> float | None:
        """The largest cost that this limit can ever let through; None unless it was stated several times alike, lately.

        Whoever is turned away for it sends nothing, and only an answer can say that it was wrong.
        """
        believed = self._repeats >= CONFIRMED and now - self._heard_at <= self._patience_s
        return self.limit if self.left is not None and believed else None

    def rate(self, now: float) -> float:
        """Units a second at ``now``; ``inf`` when nothing is stated."""
        left = self._advance(now)
        if left is None:
            return inf
        nominal = self.limit / self.window_s
        floor = max(FLOOR * nominal, self._cost / self._patience_s)
        spare = left - RESERVE * self.limit
        if self.fixed_window and now < self._reset_at < inf:
            even = spare / max(1.0, self._reset_at - now)
            return max(floor, min(CATCH_UP * nominal, even))
        return max(floor, nominal + spare / GAIN_S)

    def room_at(self, cost: float, now: float) -> float:
        """When there should be ``cost`` left, with some to spare, if nothing else is sent until then."""
        left = self._advance(now)
        if left is None:
            return now
        patient_until = max(self._sent_at, self._heard_at) + self._patience_s
        if self.fixed_window and self._reset_at > now:
            return now if left >= cost else min(self._reset_at, patient_until)
        missing = min(cost * SPARE, self.limit) - left
        return now if missing <= 0.0 else min(now + missing * self.window_s / self.limit, patient_until)

    def sent(self, cost: float, now: float) -> float:
        """Count a send; return what the provider is expected to have left after it (nan when nothing is known)."""
        self._sent_at = now
        if cost > 0.0:
            self._cost = cost
        left = None if self.left is None else self._advance(now)
        if left is None:
            return nan
        self.left = left - cost
        return self.left

    def settled(self, delta: float) -> None:
        """A send turned out ``delta`` units larger than it was counted (negative: smaller)."""
        if self.left is not None:
            # No bucket is emptier than empty by more than a window: what claims to have used more is mistaken.
            delta = min(delta, max(0.0, self.left + self.limit))
            self.left = min(self.limit, self.left - delta)
            self.corrected -= delta

    def observed(
        self, window: RateWindow, *, seq: int, sent_at: float, expected: float, own_since: float, now: float
    ) -> None:
        """Take in what the answer to send number ``seq`` stated.

        ``expected`` is what ``sent`` returned for it plus all corrections made since (nan if unknown) and
        ``own_since`` what was sent after it. Nonsense is counted in ``ignored`` and changes nothing.
        """
        if not plausible(window):
            self.ignored += 1
            return
        if seq < self._freshest:
            return
        self._freshest = self._silent_since = seq
        self._heard_at = now
        self._silent = 0
        self._be_patient(window.remaining, now)
        left = self._advance(now)
        same = window.limit == self.limit and window.window_s == self.window_s
        self._repeats = self._repeats + 1 if same else 1
        self.limit, self.window_s = window.limit, window.window_s
        if left is None or not same or expected != expected:  # the last: expected is nan
            refilled = window.remaining + self.limit / self.window_s * (now - sent_at)
            self.left = min(self.limit, refilled) - own_since
            self._at = now
        else:
            correction = window.remaining - expected
            self.left = min(self.limit, left + correction)
            self.corrected += correction
        self._judge_shape(window, sent_at, now)

    def unstated(self, seq: int, now: float) -> None:
        """The answer to send number ``seq`` did not state this limit."""
        if self.left is None or seq <= self._silent_since:
            return
        self._silent_since = seq
        self._silent += 1
        if self._silent >= SILENT_ANSWERS and now - self._heard_at >= SILENT_S:
            self.left = None

    def rejected(self, now: float) -> None:
        """The provider says that nothing is left."""
        left = self._advance(now)
        if left is not None and left > 0.0:
            self.corrected -= left
            self.left = 0.0

    def check(self) -> None:
        """Assert every invariant."""
        assert self.left is None or (isfinite(self.left) and self.left <= self.limit and self.limit > 0.0)
        assert isfinite(self.corrected)
        assert self.window_s > 0.0
        assert 0 <= self._fixed <= VOTES_MAX

    def _advance(self, now: float) -> float | None:
        """Bring the mirror to ``now``."""
        left = self.left
        if left is None or now <= self._at:
            return left
        if self.lapsed(now):
            self.left = None
            return None
        if not self.fixed_window:
            left = min(self.limit, left + (now - self._at) * self.limit / self.window_s)
        elif now >= self._reset_at:
            left = self.limit
            self._reset_at += self.window_s
        self.left, self._at = left, now
        return left

    def _be_patient(self, remaining: float, now: float) -> None:
        """Believe longer what is said again; what a burst of answers says counts once."""
        if remaining >= self._cost:
            self._patience_s, self._patient_at = PATIENCE_S, inf
        elif self._patient_at == inf:
            self._patient_at = now
        elif now - self._patient_at >= self._patience_s:
            self._patience_s, self._patient_at = min(PATIENCE_MAX_S, 2.0 * self._patience_s), now

    def _judge_shape(self, window: RateWindow, sent_at: float, now: float) -> None:
        """Vote on whether the limit refills steadily or all at once: then the moment of the reset stands still.

        Some count the time to the reset from the arrival of the request, some from their answer.
        """
        if window.reset_s is None:
            return
        since_arrival, since_answer = sent_at + window.reset_s, now + window.reset_s
        if now - self._judged_at >= JUDGE_EVERY_S:
            moved = abs(since_arrival - self._resets[0]), abs(since_answer - self._resets[1])
            self._fixed = min(VOTES_MAX, self._fixed + 1) if min(moved) <= RESET_SLACK_S else max(0, self._fixed - 2)
            self._from_arrival = moved[0] <= moved[1]
            self._resets = since_arrival, since_answer
            self._judged_at = now
        self._reset_at = since_arrival if self._from_arrival else since_answer


LARGEST: Final = 1e12
LONGEST_S: Final = 32 * 86_400.0
"""No limit is larger, no window longer: what claims to be was not a limit."""


def plausible(window: RateWindow) -> bool:
    """Whether a stated window can be meant."""
    if not (0.0 < window.limit <= LARGEST and 0.0 <= window.remaining <= window.limit):
        return False
    if not 0.001 <= window.window_s <= LONGEST_S:
        return False
    return window.reset_s is None or 0.0 <= window.reset_s <= LONGEST_S
