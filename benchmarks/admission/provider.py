"""A provider's limits as a small fast machine: takes a request or refuses it, and says what its headers would say.

The rules are those of ``headgate.testing``'s ``ProviderModel`` (a test holds the two against each other); here they are
reduced to what the cases need, because a benchmark sends millions of requests. Times are seconds, rates are per minute.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from heapq import heappop, heappush
from math import ceil, floor, inf
from typing import TYPE_CHECKING, Final

from headgate.values import Feedback, LimitKind, RateWindow

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["EVERYTHING", "Hint", "Provider", "Refused", "Rule", "Steps"]

Steps = tuple[tuple[float, int], ...]
"""(from which second, how many slots), in order."""

MINUTE_S: Final = 60.0
SLACK: Final = 1e-9  # a refill computed in floats may miss the whole amount by this much


class Hint(StrEnum):
    """Whether rejections carry Retry-After: never, the true wait in whole seconds, or in milliseconds."""

    NONE = "none"
    SECONDS = "seconds"
    MS = "ms"


@dataclass(frozen=True, slots=True)
class Rule:
    """What a provider allows and what it says about it.

    ``slots`` is the concurrency over time (empty: unlimited). ``per_minute`` requests refill a bucket of ``burst``, or,
    with ``fixed_window``, all at once each minute; ``tokens_per_minute`` refill a bucket of a minute's worth.
    ``rejected_count``: rejected requests use up the request quota too. ``retry_after_s`` replaces the true wait.
    ``states``: every response states the quotas (IETF RateLimit). ``labelled``: rejections name their limit.
    ``refuses`` is a span in which everything is refused.
    """

    slots: Steps = ()
    per_minute: float | None = None
    burst: float = 0.0
    fixed_window: bool = False
    tokens_per_minute: float | None = None
    rejected_count: bool = False
    hint: Hint = Hint.NONE
    retry_after_s: float | None = None
    states: bool = False
    labelled: bool = False
    refuses: tuple[float, float] = (inf, inf)

    def slots_at(self, now: float) -> float:
        """How many may be served at ``now``."""
        return max((at, slots) for at, slots in self.slots if at <= now)[1] if self.slots else inf

    def changes(self) -> Sequence[float]:
        """When a step, or a span of refusals, begins or ends."""
        return sorted({at for at in (*(at for at, _ in self.slots), *self.refuses) if 0 < at < inf})


class Bucket:
    """``burst`` at once, ``per_minute`` in the long run."""

    __slots__ = ("_at", "_burst", "_level", "_per_s")

    def __init__(self, per_minute: float, burst: float) -> None:
        self._per_s = per_minute / MINUTE_S
        self._burst = self._level = burst
        self._at = 0.0

    def wait_s(self, cost: float, now: float) -> float:
        """Seconds until ``cost`` fits; 0 if it fits now."""
        level = self._level = min(self._burst, self._level + (now - self._at) * self._per_s)
        self._at = now
        missing = cost - level
        if missing <= SLACK * max(1.0, cost):
            return 0.0
        return inf if cost > self._burst else missing / self._per_s

    def take(self, cost: float) -> None:
        """Use up ``cost``, or all there is; ``wait_s`` has just been asked."""
        self._level = max(0.0, self._level - cost)

    def window(self) -> RateWindow:
        """What a header says just now."""
        limit = self._per_s * MINUTE_S
        reset_s = ceil((self._burst - self._level) / self._per_s)
        return RateWindow(limit, floor(self._level + SLACK), reset_s, MINUTE_S)


class FixedWindow:
    """A quota that counts from zero at each full minute, shifted by ``phase_s``."""

    __slots__ = ("_index", "_left_s", "_phase_s", "_quota", "_used")

    def __init__(self, per_minute: float, phase_s: float) -> None:
        self._quota, self._phase_s = per_minute, phase_s
        self._index, self._used, self._left_s = -2, 0.0, 0.0

    def wait_s(self, cost: float, now: float) -> float:
        """Seconds until ``cost`` fits; 0 if it fits now."""
        index = floor((now - self._phase_s) / MINUTE_S)
        if index != self._index:
            self._index, self._used = index, 0.0
        self._left_s = (index + 1) * MINUTE_S + self._phase_s - now
        return 0.0 if self._used + cost <= self._quota + SLACK else self._left_s

    def take(self, cost: float) -> None:
        """Use up ``cost``; ``wait_s`` has just been asked."""
        self._used = min(max(self._quota, self._used), self._used + cost)

    def window(self) -> RateWindow:
        """What a header says just now."""
        return RateWindow(self._quota, max(0.0, self._quota - self._used), ceil(self._left_s), MINUTE_S)


EVERYTHING: Final = "everything"
"""The limit that is named when all requests are refused."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Which limit said no, and the true wait in seconds (infinity where nothing tells)."""

    limit: LimitKind | str
    wait_s: float


class Provider:
    """One served model under ``rule``. Requests are served by their own durations; time never goes back."""

    __slots__ = ("_ends", "_mean_s", "_rule", "_slots", "_steps", "requests", "tokens")

    def __init__(self, rule: Rule, *, phase_s: float, mean_s: float) -> None:
        self._rule = rule
        self._mean_s = mean_s
        self._ends: list[float] = []
        self._steps = list(rule.slots)
        self._slots = inf
        self.requests: Bucket | FixedWindow | None = None
        self.tokens: Bucket | None = None
        if rule.per_minute is not None:
            fixed = rule.fixed_window
            self.requests = FixedWindow(rule.per_minute, phase_s) if fixed else Bucket(rule.per_minute, rule.burst)
        if rule.tokens_per_minute is not None:
            self.tokens = Bucket(rule.tokens_per_minute, rule.tokens_per_minute)

    def arrive(self, tokens: float, duration_s: float, now: float) -> Refused | None:
        """Take a request that arrives now and serve it, or say why not."""
        ends = self._ends
        while ends and ends[0] <= now:
            heappop(ends)
        refused = self._obstacle(tokens, now)
        if refused is None:
            if self.requests is not None:
                self.requests.take(1.0)
            if self.tokens is not None:
                self.tokens.take(tokens)
            heappush(ends, now + duration_s)
        elif self._rule.rejected_count and self.requests is not None:
            self.requests.wait_s(1.0, now)
            self.requests.take(1.0)
        return refused

    def busy(self) -> int:
        """How many are being served, as of the last arrival."""
        return len(self._ends)

    def feedback(self, refused: Refused | None) -> Feedback | None:
        """What the headers of the answer to the request that has just arrived say; None when they say nothing."""
        rule = self._rule
        if not rule.states and (refused is None or (rule.hint is Hint.NONE and not rule.labelled)):
            return None
        requests = self.requests.window() if rule.states and self.requests is not None else None
        tokens = self.tokens.window() if rule.states and self.tokens is not None else None
        kind, wait_s = None, None
        if refused is not None:
            wait_s = self._retry_after(refused)
            empty = [one for one, window in self._windows(requests, tokens) if window.remaining == 0]
            kind = empty[0] if len(empty) == 1 else None
            if rule.labelled and isinstance(refused.limit, LimitKind):
                kind = refused.limit
        return Feedback(retry_after_s=wait_s, kind=kind, requests=requests, tokens=tokens)

    def _obstacle(self, tokens: float, now: float) -> Refused | None:
        rule = self._rule
        if rule.refuses[0] <= now < rule.refuses[1]:
            return Refused(EVERYTHING, rule.refuses[1] - now)
        while self._steps and self._steps[0][0] <= now:
            self._slots = self._steps.pop(0)[1]
        if len(self._ends) >= self._slots:
            return Refused(LimitKind.CONCURRENCY, self._mean_s / max(1, len(self._ends)))
        # Every quota is brought up to date, also behind one that refuses: headers state them all.
        first = 0.0 if self.requests is None else self.requests.wait_s(1.0, now)
        second = 0.0 if self.tokens is None else self.tokens.wait_s(tokens, now)
        if first > 0:
            return Refused(LimitKind.REQUESTS, first)
        return Refused(LimitKind.TOKENS, second) if second > 0 else None

    def _retry_after(self, refused: Refused) -> float | None:
        rule = self._rule
        wait_s = refused.wait_s if rule.retry_after_s is None else rule.retry_after_s
        if rule.hint is Hint.NONE or wait_s == inf:
            return None
        return ceil(wait_s) if rule.hint is Hint.SECONDS else ceil(wait_s * 1000) / 1000

    @staticmethod
    def _windows(requests: RateWindow | None, tokens: RateWindow | None) -> list[tuple[LimitKind, RateWindow]]:
        both = ((LimitKind.REQUESTS, requests), (LimitKind.TOKENS, tokens))
        return [(kind, window) for kind, window in both if window is not None]
