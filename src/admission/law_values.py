"""The numbers and words of the concurrency law: every threshold once, with its reason.

Decides nothing. The law that uses them is in :mod:`headgate.admission.concurrency`. Times are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = [
    "CANARY_CONSECUTIVE",
    "CLIMB_PER_S",
    "CLIMB_SHARE",
    "CONTENDED_APART_S",
    "CONTENDED_CUT",
    "CONTENDED_CUT_ROOT",
    "CONTENDED_S",
    "CREEP_LATENCIES",
    "CREEP_MAX_S",
    "CREEP_MIN_S",
    "CREEP_SLOTS",
    "CREEP_SMALL",
    "CUT",
    "DOUBLING_S",
    "FALL",
    "FALLEN_PROBE_CAP_S",
    "FALLEN_REJECTED_SHARE",
    "FALLEN_S",
    "FRESH_S",
    "GAIN",
    "NOISE_CONSECUTIVE",
    "NOISE_CONSECUTIVE_SHARE",
    "NOISE_SHARE",
    "NOISE_TAUS",
    "OLD_SHARE",
    "PROBE_CAP_S",
    "PROBE_COST_WEIGHT",
    "PROBE_HINTS",
    "PROBE_JITTER",
    "PROBE_MAX_AT_LEAST_S",
    "PROBE_MIN_S",
    "RECOVERY_MAX_S",
    "RECOVERY_MIN_S",
    "REJECTED_SHARE",
    "RESTART_SHARE",
    "STEP_MAX_S",
    "STRANGE_SHARE",
    "TAU_HALF_LIFE_S",
    "TAU_MAX_S",
    "TAU_MIN_S",
    "TAU_ROUND_TRIPS",
    "TICK_MIN_S",
    "WHOLE",
    "LawMemory",
    "LawSnapshot",
    "Mode",
    "Stamp",
    "Verdict",
]


class Mode(StrEnum):
    """What the adaptive law is doing with its limit."""

    RAMP = "ramp"
    HOLD = "hold"
    PROBE = "probe"
    CLIMB = "climb"
    FALL = "fall"


class Verdict(StrEnum):
    """What one rejection meant to the law."""

    COUNTED = "counted"
    """The limit is fixed: only counted."""
    STALE = "stale"
    """It belongs to a burst that was already answered; only counted."""
    MEASURED = "measured"
    """(a) Expected while growing: the limit is now what was in flight."""
    NOISE = "noise"
    """(b) A measurement was off by what was in transit."""
    CUT = "cut"
    """(c) Unexpected: the capacity fell, or somebody else uses it."""
    FALLING = "falling"
    """(d) Rejected again and nothing got through in between: searching downwards."""


@dataclass(slots=True, init=False)
class Stamp:
    """What the law must know of one request when its fate is known. To be read only, but not frozen: one is made for
    every request, and without a constructor, which would take most of the time.

    ``generation`` is the law's when it was sent, ``others`` how many others were in flight then, ``sent_at``
    in seconds (monotonic), ``seq`` its number within the law.
    """

    generation: int
    others: int
    sent_at: float
    seq: int


@dataclass(frozen=True, slots=True)
class LawSnapshot:
    """One look at a law, for people and for the journal. Times are in seconds, moments monotonic."""

    mode: Mode
    limit: float
    generation: int
    consecutive: int
    contended: bool
    tau: float
    probe_every_s: float
    next_probe: float
    rejections: int
    stale: int


@dataclass(frozen=True, slots=True)
class LawMemory:
    """What of a law outlives its process: the limit, the seconds between its probes, and ``tau``."""

    limit: float
    probe_every_s: float
    tau: float


DOUBLING_S: Final = 1.0
"""A ramp doubles the limit in this time: acceptance shows within about a second, so why wait longer."""

TAU_MIN_S: Final = 1.0
TAU_MAX_S: Final = 30.0
"""Bounds of the time after which silence means acceptance; also the first is assumed before any rejection."""

TAU_ROUND_TRIPS: Final = 2.5
"""Silence for so many of the slowest rejection round trips is acceptance."""

TAU_HALF_LIFE_S: Final = 60.0
"""One slow rejection is forgotten at this pace."""

REJECTED_SHARE: Final = 0.0023
"""Probes may cost this share of all completions as rejections (eps)."""

PROBE_COST_WEIGHT: Final = 0.2
"""How much the latest probe counts in the mean of what a probe costs: with many answers in transit it is more
than one rejection, and the share above is of all."""

FALLEN_S: Final = 900.0
FALLEN_REJECTED_SHARE: Final = 0.007
FALLEN_PROBE_CAP_S: Final = 60.0
"""What fell is likely to come back: for so long after a fall probes may cost this share, and are at most so far
apart."""

CUT: Final = 0.9
"""An unexpected rejection cuts to this share of what was in flight (beta): room for whoever else came."""

FALL: Final = 0.8
"""A rejection without a survivor in between cuts to this share (phi): a geometric search downwards."""

PROBE_MIN_S: Final = 2.0
PROBE_CAP_S: Final = 300.0
"""Bounds of the time between probes."""

PROBE_MAX_AT_LEAST_S: Final = 5.0
"""However fast completions come, the longest time between probes is at least this."""

CREEP_LATENCIES: Final = 1.6
CREEP_MIN_S: Final = 5.0
CREEP_MAX_S: Final = 16.0
"""With other tenants about, a hold grows by one slot in so many mean latencies, within these bounds. Never a function
of one's own share: equal steps up and cuts in proportion are what makes shares equal. Faster costs rejections
(two clients on 64: 0.57 % at 1.6, 0.73 % at 1.3, 0.9 % at 1.0), slower lets unequal shares last longer."""

CREEP_SMALL: Final = 16.0
"""Below so many slots the steps up are rarer in proportion: one slot is much of them, and each ends in a rejection."""

CREEP_SLOTS: Final = 5.0
"""A limit that crept up by so many slots should have met the others long ago: somebody left, so it hurries."""

CONTENDED_CUT: Final = 0.06
CONTENDED_CUT_ROOT: Final = 0.6
"""What a rejection takes away with other tenants about: this share of what was in flight, or so many times its root,
whichever is less (100 slots are where they meet), but a slot. A tenth makes shares equal sooner and leaves 3 % of 64
slots idle instead of 2 %; a share alone costs a large limit too much, which takes minutes to creep back."""

STRANGE_SHARE: Final = 0.05
"""A rejection further than this from the one before was not about a limit of one's own: others are still there."""

PROBE_HINTS: Final = 50.0
"""A probe that costs a pause of Retry-After is worth it only every so many such pauses (2 % of the time)."""

PROBE_JITTER: Final = 0.1
"""Probes of several processes must not fall into step."""

CLIMB_PER_S: Final = 1.0
CLIMB_SHARE: Final = 0.02
"""A climb starts with the larger of one slot and this share of the limit a second, and doubles its pace each tau."""

GAIN: Final = 1.1
"""A climb beyond this factor found new capacity: the next probe comes soon."""

NOISE_CONSECUTIVE: Final = 3
NOISE_CONSECUTIVE_SHARE: Final = 0.03
NOISE_TAUS: Final = 5.0
NOISE_SHARE: Final = 0.93
"""So many rejections, so soon after a measurement and so close to it, only correct it: answers in transit
made the measurement a little too high."""

CANARY_CONSECUTIVE: Final = 3
"""From so many rejections in a row without a survivor on, requests stop but for one canary."""

RECOVERY_MIN_S: Final = 3.0
RECOVERY_MAX_S: Final = 20.0
"""Bounds of the time in which a cut is grown back."""

CONTENDED_S: Final = 300.0
CONTENDED_APART_S: Final = 5.0
"""Two unexpected rejections within the first, further apart than the second: others share the limit."""

FRESH_S: Final = 3600.0
"""A limit that was learned within this time is likely to hold still; quotas are changed by the day, tenants come and
go by the hour."""

RESTART_SHARE: Final = 0.9
"""A fresh memory begins here, and is back within seconds: a restart is also when others start."""

OLD_SHARE: Final = 0.25
"""An old memory is only where the ramp begins: two doublings, so two seconds, below what once held."""

STEP_MAX_S: Final = 0.1
"""A law that nobody asked for longer than this, and longer than its next whole slot takes, was not in use:
whoever waits asks again at ``next_tick``."""

TICK_MIN_S: Final = 0.001
"""Time alone is not worth a wake-up more often than this."""

WHOLE: Final = 1e-6
"""A limit this close below a whole number is that number: it got there by floating point steps."""
