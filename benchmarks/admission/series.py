"""What a picture shows of a run, as a few hundred points: the provider's limit, the client's, what it did, its 429s."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate
from math import inf
from typing import TYPE_CHECKING

from .cases import Work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .cases import AdmissionCase
    from .play import Played
    from .simulation import Record

__all__ = ["Curve", "Series", "refused_share", "series", "unit_of"]

Curve = list[tuple[float, float]]
"""(second, value), in order."""

LOOKS = 300
BINS = 120
ABOVE = 1.5
"""Limits of a client that are further above the provider's than this are not drawn: they limit nothing."""


@dataclass(frozen=True, slots=True)
class Series:
    """One client in one case. ``done`` is in flight, or work a minute; ``refused`` is the share of 429s by time."""

    unit: str
    done: tuple[Curve, ...]
    limit: Curve
    refused: Curve

    def thinned(self) -> Series:
        """The same with half of the points, for a panel that is no wider."""
        return replace(self, done=tuple([curve[::2] for curve in self.done]), limit=self.limit[::2])


def unit_of(case: AdmissionCase) -> str:
    """What the vertical axis counts."""
    return {
        Work.SLOTS: "requests in flight",
        Work.REQUESTS: "requests a minute",
        Work.TOKENS: "thousand tokens a minute",
    }[case.work]


def series(case: AdmissionCase, played: Played, seconds: float) -> Series:
    """What ``played`` did in ``case``: several clients give several curves, and share one of 429s."""
    if case.work is Work.SLOTS:
        done = tuple([[(look.at, float(look.in_flight)) for look in record.trace] for record in played.records])
    else:
        done = tuple([_per_minute(case, record, seconds) for record in played.records])
    limit, refused = _limit(case, played.records), refused_share(played.records, seconds, seconds / BINS)
    return Series(unit_of(case), done, limit, refused)


def provider_curve(case: AdmissionCase, seconds: float) -> Curve:
    """What the provider allows, over time."""
    rule = case.rule
    if case.work is Work.TOKENS:
        allowed = (rule.tokens_per_minute or inf) / 1000
        return [(0.0, allowed), (seconds, allowed)]
    if case.work is Work.REQUESTS:
        allowed = rule.per_minute or inf
        return [(0.0, allowed), (seconds, allowed)]
    steps = [(at, float(slots)) for at, slots in rule.slots]
    begin, end = rule.refuses
    if begin < inf:
        steps = sorted([*steps, (begin, 0.0), (end, rule.slots_at(end))])
    return [*steps, (seconds, steps[-1][1])]


def refused_share(records: Sequence[Record], seconds: float, bin_s: float) -> Curve:
    """The share of rejected requests among those that arrived in each bin."""
    refused = _sums([record.refusals for record in records])
    accepted = _sums([record.accepted for record in records])
    out: Curve = []
    for number in range(round(seconds / bin_s)):
        begin, end = round(number * bin_s), round((number + 1) * bin_s)
        no, yes = refused[end] - refused[begin], accepted[end] - accepted[begin]
        out.append((number * bin_s, no / max(1.0, no + yes)))
    return [*out, (seconds, 0.0)]


def _limit(case: AdmissionCase, records: Sequence[Record]) -> Curve:
    """The client's own limit, of the kind that is drawn, in steps; nothing where it knows none."""
    looks = records[0].trace
    if case.work is Work.SLOTS:
        bound = max(slots for _, slots in case.rule.slots) * ABOVE
        return [(look.at, look.limit) for look in looks if look.limit <= bound]
    scale, allowed = (1000, case.rule.tokens_per_minute) if case.work is Work.TOKENS else (1, case.rule.per_minute)
    assert allowed is not None
    return [(look.at, look.per_minute / scale) for look in looks if look.per_minute <= allowed * ABOVE]


def _per_minute(case: AdmissionCase, record: Record, seconds: float) -> Curve:
    """The mean rate over a while that is long enough for the grain of the work, around each moment."""
    work = _sums([record.tokens if case.work is Work.TOKENS else record.accepted])
    scale = 60 / 1000 if case.work is Work.TOKENS else 60
    half = max(case.window_s, seconds / LOOKS) / 2
    out: Curve = []
    for number in range(LOOKS):
        at = seconds * number / LOOKS
        begin, end = max(0, round(at - half)), min(int(seconds), round(at + half))
        out.append((at, (work[end] - work[begin]) * scale / (end - begin)))
    return out


def _sums(parts: Sequence[Sequence[float]]) -> list[float]:
    """The running sum over seconds, over all ``parts`` together."""
    return [0.0, *accumulate(sum(second) for second in zip(*parts, strict=True))]
