"""Numbers of a run, next to those of the oracle in the same simulator with the same seed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean
from typing import TYPE_CHECKING

from .cases import Work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .cases import AdmissionCase
    from .simulation import Record

__all__ = ["Figures", "figures", "jain", "work_by_second"]

MINUTE_S = 60


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run came to.

    ``utilisation``: work of all clients over the oracle's. ``refused`` and ``late``: rejected over sent, in all and
    among requests sent after two minutes. ``to_95_s``: for the start and each change of the provider, how long until
    the mean over the next few seconds is 95 % of the oracle's in the same seconds (all that was left if it never is).
    ``jain``: over clients or flows and the whole run, 1 is fair; ``jain_by_minute``: over clients, the mean of the
    minutes, because shares that swing are fair in the end too. ``makespan``: of all rows, over the oracle's; 0 for
    endless demand.
    """

    utilisation: float
    refused: float
    late: float
    to_95_s: tuple[float, ...]
    jain: float
    jain_by_minute: float
    makespan: float
    wasted: int


def figures(case: AdmissionCase, records: Sequence[Record], oracle: Record, seconds: float) -> Figures:
    """Compare ``records`` with the oracle's."""
    own = [work_by_second(case.work, record) for record in records]
    total = [sum(parts) for parts in zip(*own, strict=True)]
    best = work_by_second(case.work, oracle)
    begins = [0, *(int(at) for at in case.rule.changes() if at != case.rule.refuses[0])]
    ends = [*begins[1:], int(seconds)]
    return Figures(
        utilisation=sum(total) / sum(best),
        refused=sum(record.refused for record in records) / max(1, sum(record.sent for record in records)),
        late=sum(record.late_refused for record in records) / max(1, sum(record.late_sent for record in records)),
        to_95_s=tuple(_to_95(total, best, begin, end, case.window_s) for begin, end in zip(begins, ends, strict=True)),
        jain=_fairness(case, records, own),
        jain_by_minute=_fairness_by_minute(own),
        makespan=max(record.last_answer for record in records) / oracle.last_answer if case.rows else 0.0,
        wasted=sum(record.refused for record in records),
    )


def work_by_second(work: Work, record: Record) -> Sequence[float]:
    """The work of each second."""
    match work:
        case Work.SLOTS:
            return record.busy_by_second()
        case Work.REQUESTS:
            return record.accepted
        case Work.TOKENS:
            return record.tokens


def jain(shares: Sequence[float]) -> float:
    """Jain's index: 1 when all shares are equal, 1/n when one has all."""
    squares = len(shares) * sum(share * share for share in shares)
    return sum(shares) ** 2 / squares if squares else 1.0


def _fairness(case: AdmissionCase, records: Sequence[Record], own: Sequence[Sequence[float]]) -> float:
    if len(records) > 1:
        return jain([sum(work) for work in own])
    served = records[0].flows
    return jain([served.get(flow, 0) / weight for flow, weight in enumerate(case.weights)])


def _fairness_by_minute(own: Sequence[Sequence[float]]) -> float:
    minutes = range(0, len(own[0]) - MINUTE_S, MINUTE_S)
    indices = [jain([sum(work[begin : begin + MINUTE_S]) for work in own]) for begin in minutes]
    return fmean(indices) if indices else 1.0


def _to_95(total: Sequence[float], best: Sequence[float], begin: int, end: int, window: int) -> float:
    mine, bound = [0.0, *accumulate(total)], [0.0, *accumulate(best)]
    for second in range(begin, end - window + 1):
        if mine[second + window] - mine[second] >= 0.95 * (bound[second + window] - bound[second]):
            return float(second - begin)
    return float(end - begin)
