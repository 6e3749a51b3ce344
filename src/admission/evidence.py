"""What speaks for each rate as the limit that rejections were about: single rejections, and spans between them.

Decides which rate is tried, and when. Why concurrency does not explain a rejection is decided in :mod:`.inference`.
The unit of evidence is the logarithm of the odds. Pure: ``sent_at`` in seconds (monotonic).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .refill import Refill

if TYPE_CHECKING:
    from ..values import LimitKind
    from .inference import Suspect

__all__ = ["ONLY_RATE", "TRIAL_AFTER", "TRIAL_AFTER_MOST", "UNDECIDED", "Evidence"]

TRIAL_AFTER: Final = 5.5
TRIAL_AFTER_MOST: Final = 44.0
"""What must speak for a rate before it is tried (the logarithm of the odds); twice as much after each trial that
failed. Clients that share slots reach 5 by chance in half an hour, a rate does within a minute or three."""

ONLY_RATE: Final = 2.1
"""What a rejection speaks for a rate that only a rate explains: three begin a trial, two and a little more do."""

UNDECIDED: Final = 5.5
"""So much more evidence is waited for while two rates explain about the same."""


class Evidence:
    """The evidence against the rates of one scope. A trial that fails doubles what the next one takes."""

    __slots__ = ("_needed", "_refills", "_weights")

    def __init__(self) -> None:
        self._weights: dict[LimitKind, float] = {}
        self._refills: dict[LimitKind, Refill] = {}
        self._needed = TRIAL_AFTER

    def rejected(self, suspects: list[Suspect], sent_at: float) -> None:
        """A request was rejected: one more span is over."""
        for suspect in suspects:
            refill = self._refills.setdefault(suspect.kind, Refill())
            refill.rejected(suspect.spent, suspect.cost, sent_at)

    def weigh(self, suspects: list[Suspect], weight: float = 1.0, *, alone: bool = False) -> None:
        """Concurrency does not explain a rejection: do the rates? They do if it came with nothing else in flight."""
        for suspect in suspects:
            before = self._weights.get(suspect.kind, 0.0)
            self._weights[suspect.kind] = before + weight if suspect.record or alone else max(0.0, before - weight)

    def best(self) -> LimitKind | None:
        """The rate that explains enough of what concurrency does not, and more of it than any other rate.

        Requests and tokens rise and fall together, and it takes a few rejections more to tell them apart.
        """
        score = {
            kind: ONLY_RATE * self._weights.get(kind, 0.0) + refill.evidence for kind, refill in self._refills.items()
        }
        ranked = sorted(score, key=score.__getitem__, reverse=True)
        if not ranked or score[ranked[0]] < self._needed:
            return None
        best = score[ranked[0]]
        tied = len(ranked) > 1 and score[ranked[1]] > best - ONLY_RATE
        return None if tied and best < self._needed + UNDECIDED else ranked[0]

    def clear(self) -> None:
        """Begin anew with single rejections; what spans have shown stays."""
        self._weights.clear()

    def refuted(self) -> None:
        """A trial has failed."""
        self._weights.clear()
        self._refills.clear()
        self._needed = min(TRIAL_AFTER_MOST, 2 * self._needed)

    def check(self) -> None:
        """Assert every invariant."""
        assert TRIAL_AFTER <= self._needed <= TRIAL_AFTER_MOST
