"""Durations by size: counts in buckets whose bounds rise by a third, from 1 ms to an hour.

A duration read back from it is wrong by a sixth at most, whatever its size, and the whole takes 55 integers. Prior art:
HdrHistogram, and the exponential histograms of OpenTelemetry, which rescale; the range of model calls is known. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BOUNDS_S", "BUCKETS", "quantile_s"]

_A_DECADE: Final = 8

BOUNDS_S: Final = tuple(0.001 * 10 ** (step / _A_DECADE) for step in range(6 * _A_DECADE + 5 + 1))
"""The upper bounds of all buckets but the last, in seconds. ``bisect_left(BOUNDS_S, duration_s)`` is the bucket."""

BUCKETS: Final = len(BOUNDS_S) + 1


def quantile_s(counts: Sequence[int], share: float) -> float | None:
    """The duration below which ``share`` of all lie, in seconds; None if there are none. Between two bounds it is drawn
    evenly; what is longer than the last bound counts as that.
    """
    assert 0 <= share <= 1
    left = share * sum(counts)
    if not any(counts):
        return None
    for bucket, count in enumerate(counts):
        if count and count >= left:
            if bucket >= len(BOUNDS_S):
                break
            lower = BOUNDS_S[bucket - 1] if bucket else 0.0
            return lower + (BOUNDS_S[bucket] - lower) * left / count
        left -= count
    return BOUNDS_S[-1]
