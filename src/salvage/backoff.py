"""How long a task that failed waits before its next try: full jitter under a cap.

Prior art: "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015), where full jitter finished with the
least work of the variants compared. The generator is handed in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..values import Rng

__all__ = ["ceiling_s", "full_jitter_s"]

_MAX_EXPONENT = 62
"""Doubling further cannot matter under any cap, and would overflow a float."""


def ceiling_s(failures: int, *, base_s: float, cap_s: float) -> float:
    """Seconds that a task with so many failures waits at most. ``failures`` counts from 1."""
    assert failures >= 1
    return float(min(cap_s, base_s * 2 ** min(failures - 1, _MAX_EXPONENT)))


def full_jitter_s(failures: int, *, base_s: float, cap_s: float, rng: Rng) -> float:
    """Seconds to wait after the ``failures``-th failure: uniform between 0 and :func:`ceiling_s`."""
    return rng.uniform(0.0, ceiling_s(failures, base_s=base_s, cap_s=cap_s))
