"""The numbers and words of rate limits: what the learned law goes by, each number with its reason, and its values.

Decides nothing. The law is in :mod:`headgate.admission.rate_learned`, the limit as a whole in
:mod:`headgate.admission.rate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = [
    "EXTENDED_S",
    "FALLEN",
    "FALLEN_HOLD_S",
    "FALLEN_S",
    "FALL_MOST",
    "FIXED_WINDOW_BLOCK_S",
    "HOLD_GROWTH",
    "HOLD_JITTER",
    "HOLD_MAX_S",
    "HOLD_MIN_S",
    "LATE_S",
    "LATE_SHARE",
    "MEASURE_LONG_S",
    "MEASURE_REQUESTS",
    "PAUSE_INTERVALS",
    "PROBE",
    "PROBE_MAX_S",
    "PROBE_SCALE_S",
    "PROBE_SLOPE",
    "RATE_MIN",
    "SLOWEST_S",
    "STEP_DOWN",
    "WINDOW_HOLD_S",
    "WINDOW_MARGIN",
    "LearnedSnapshot",
    "RateMode",
    "RateOrigin",
    "RateSnapshot",
    "RateStamp",
]

MEASURE_LONG_S: Final = 60.0
MEASURE_REQUESTS: Final = 20
"""The span of a measurement that would hold fewer requests than this, or a block."""

HOLD_MIN_S: Final = 10.0
HOLD_MAX_S: Final = 600.0
HOLD_GROWTH: Final = 4.0
HOLD_JITTER: Final = 0.25
"""How long a rate is held before the next probe, and how that grows while the quota repeats."""

STEP_DOWN: Final = 0.97
"""A rejection while holding lowers the rate at least so much."""

FALL_MOST: Final = 0.5
"""One rejection while holding at most halves the rate: when a provider refuses everything for a while, what little it
accepts says nothing about its rate, and the way back up is slow."""

FALLEN: Final = 0.8
FALLEN_S: Final = 900.0
FALLEN_HOLD_S: Final = 120.0
"""What fell below this share of itself, after it had repeated, is likely to come back: for so long it is held no longer
than the last of these."""

PROBE_SLOPE: Final = 0.002
PROBE_SCALE_S: Final = 120.0
"""A probe of x seconds runs at (1 + 0.002 x)(1 + (x/120)^2) times the held rate: by 5 % in 20 s, doubled in 100 s."""

PROBE_MAX_S: Final = 3600.0
"""A probe that ran this long has multiplied the rate by thousands: it stops there."""

EXTENDED_S: Final = 1.5
"""A block that went on for longer than this after the promised moment was no wait for a window."""

FIXED_WINDOW_BLOCK_S: Final = 5.0
"""A block at least this long was the wait for the provider's next window."""

WINDOW_MARGIN: Final = 0.995
"""An even pace this far below a window's quota never sends more than that in any window, wherever it begins."""

WINDOW_HOLD_S: Final = 1200.0
"""The pace of a window is held for this long: a probe into it costs a chain of canaries until its end."""

LATE_S: Final = 0.1
LATE_SHARE: Final = 0.5
"""A send later than this, and than this share of the interval between sends, was not held up by the rate."""

PAUSE_INTERVALS: Final = 3.0
"""So many intervals between sends without one are still the pace, not idleness."""

SLOWEST_S: Final = 60.0
"""No rejection leads below one request in this time: only a send can show that a guess was too low."""

RATE_MIN: Final = 1e-4
"""No measurement leads below this rate (units a second)."""


class RateMode(StrEnum):
    """What the learned law is doing."""

    OPEN = "open"
    """No rejection yet: nothing is limited."""
    HOLD = "hold"
    PROBE = "probe"


PROBE: Final = RateMode.PROBE  # asked for every request, and looking up an enum's member is slow


@dataclass(frozen=True, slots=True)
class LearnedSnapshot:
    """What is worth keeping across a restart: the held rate (units a second, None: none) and the hold (seconds)."""

    base: float | None = None
    hold_s: float = HOLD_MIN_S


class RateOrigin(StrEnum):
    """Where the rate in force comes from."""

    UNKNOWN = "unknown"
    CONFIGURED = "configured"
    STATED = "stated"
    LEARNED = "learned"


@dataclass(slots=True, init=False)
class RateStamp:
    """What one send took, kept until its fate is known. To be read only, but not frozen: up to four are made for every
    request, and without a constructor, which would take most of the time.

    ``cost`` in units, ``sent_at`` in seconds (monotonic), ``seq`` its number, ``units_before`` what was sent before
    it, ``generation`` the learned law's, ``expected`` what the provider should have left after it less the
    corrections until then (nan: unknown).
    """

    cost: float
    sent_at: float
    seq: int
    units_before: float
    generation: int
    expected: float


@dataclass(frozen=True, slots=True)
class RateSnapshot:
    """One look at a limiter. Rates are per minute (``inf``: unlimited), ``owed`` is in units."""

    per_minute: float
    origin: RateOrigin
    mode: RateMode
    configured: float | None
    stated: float | None
    learned: LearnedSnapshot
    owed: float
    rejections: int
    ignored: int
