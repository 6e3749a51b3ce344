"""Mean and spread of a number that is seen again and again, without keeping what was seen.

Decides how much one more sample counts: the first few alike, later ones with a fixed weight, so that what a column
does now counts and what it did an hour ago does not. A sample far above all others counts as a large one only; when
another like it comes, that one counts in full. So a single runaway answer is forgotten within a few requests, and what
happens now and then is learned all the same.

Prior art: the exponentially weighted mean and variance of Welford's recurrence (West 1979), winsorised.

Pure; O(1).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Final

__all__ = ["MIN_SAMPLES", "Moments", "MomentsMemory"]

MIN_SAMPLES: Final = 8
"""So many samples say more than a guess: their mean is off by a third of their spread at most, two times in three."""

WEIGHT: Final = 1 / 64
"""What a sample counts once there are many: the mean is then off by a tenth of the spread, and a change of the
work shows within a minute at one request a second."""

WEIGHED_SAMPLES: Final = round(1 / WEIGHT)
"""Until there are so many, all count the same."""

FAR_SPREADS: Final = 5.0
"""A sample further above the mean than this many standard deviations is cut to that, the first time."""

SPREAD_LEAST: Final = 0.25
"""For that purpose the spread is at least this share of the mean: answers that were all alike until now may vary."""

FAR_KEPT: Final = 1 - WEIGHT / 16
"""How fast the largest sample is forgotten: one that comes back within a thousand is no accident."""

RESTORED_SAMPLES: Final = 16
"""What an earlier process learned counts like so many samples: enough to start with, little enough to be corrected."""


@dataclass(frozen=True, slots=True)
class MomentsMemory:
    """What is worth keeping across a restart: mean and standard deviation."""

    mean: float
    sd: float

    @property
    def sensible(self) -> bool:
        """Whether numbers like these can have been learned."""
        return isfinite(self.mean) and isfinite(self.sd) and self.mean >= 0.0 and self.sd >= 0.0


class Moments:
    """Mean and standard deviation of samples that are zero or more."""

    __slots__ = ("_far", "_first", "_mean", "_variance", "count")

    def __init__(self) -> None:
        self.count = 0
        self._first: list[float] = []  # the samples themselves, while they are few
        self._mean = 0.0
        self._variance = 0.0
        self._far = 0.0

    @property
    def settled(self) -> bool:
        """Whether there are enough samples to rely on."""
        return self.count >= MIN_SAMPLES

    @property
    def mean(self) -> float:
        """The mean; 0 without any sample."""
        return self._mean

    @property
    def sd(self) -> float:
        """The standard deviation; 0 without two samples."""
        return sqrt(self._variance)

    @property
    def usual(self) -> float:
        """The mean and one standard deviation: what most samples do not exceed."""
        return self._mean + sqrt(self._variance)

    def add(self, sample: float) -> None:
        """One more sample."""
        assert sample >= 0.0
        self.count += 1
        if self.count <= MIN_SAMPLES:
            self._first.append(sample)
            self._begin()
            return
        mean, far, counted = self._mean, self._far, sample
        if sample > far:
            counted = min(sample, max(far, mean + FAR_SPREADS * max(sqrt(self._variance), SPREAD_LEAST * mean, 1.0)))
            far = sample
        self._far = FAR_KEPT * far
        weight = WEIGHT if self.count >= WEIGHED_SAMPLES else 1.0 / self.count
        off = counted - mean
        self._mean = mean + weight * off
        self._variance = (1.0 - weight) * (self._variance + weight * off * off)

    def learned(self) -> MomentsMemory | None:
        """What is worth keeping; None while there is little."""
        return MomentsMemory(self._mean, self.sd) if self.settled else None

    def restore(self, kept: MomentsMemory) -> None:
        """Begin with what an earlier process learned. Nonsense is left alone."""
        if kept.sensible:
            self.count = RESTORED_SAMPLES
            self._first = []
            self._mean, self._variance, self._far = kept.mean, kept.sd**2, 0.0

    def check(self) -> None:
        """Assert every invariant."""
        assert isfinite(self._mean)
        assert self._mean >= 0.0
        assert self._variance >= 0.0
        assert len(self._first) <= MIN_SAMPLES
        assert self._far >= 0.0

    def _begin(self) -> None:
        """Mean and variance of the few samples, the largest counted like the second largest once there are enough."""
        samples = self._first
        if self.count == MIN_SAMPLES:
            samples = sorted(samples)
            self._far = samples.pop()
            samples.append(samples[-1])
            self._first = []
        self._mean = sum(samples) / len(samples)
        self._variance = sum([(sample - self._mean) ** 2 for sample in samples]) / len(samples)
