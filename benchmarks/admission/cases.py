"""The table: what the provider allows and says, who asks, and what is to be reached.

The goals are those of the project's design; a case that it does not name has the goals of its nearest neighbour. Every
rejection is unlabelled, whatever the case, except where the case says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random
from typing import Final

from .provider import Hint, Rule

__all__ = ["CASES", "AdmissionCase", "Goals", "Work", "case_named"]


class Work(StrEnum):
    """What is counted as work, and so what the limit is a limit of."""

    SLOTS = "slot seconds"
    REQUESTS = "requests"
    TOKENS = "tokens"


@dataclass(frozen=True, slots=True)
class Goals:
    """What headgate is to reach; None: nothing in particular.

    ``utilisation`` and ``makespan`` are relative to the oracle, ``late`` is the share of rejected requests among those
    sent after two minutes, ``to_95_s`` holds for the start and for each step.
    """

    utilisation: float | None = None
    late: float | None = None
    to_95_s: float | None = None
    jain: float | None = None
    makespan: float | None = None


@dataclass(frozen=True, slots=True)
class AdmissionCase:
    """``cap`` is the concurrency that the user allows at most, ``window_s`` over how many seconds a mean is
    taken before it is compared with the oracle's: long enough for the grain of the work.
    """

    name: str
    what: str
    rule: Rule
    goals: Goals
    work: Work = Work.SLOTS
    cap: int | None = None
    clients: int = 1
    weights: tuple[float, ...] = (1.0,)
    rows: int | None = None
    window_s: int = 5

    @property
    def shared(self) -> bool:
        """Whether several clients or flows share it."""
        return self.clients > 1 or len(self.weights) > 1

    def phase_s(self, seed: int) -> float:
        """Where the edges of fixed windows are."""
        return Random(f"{seed} phase").uniform(0.0, 60.0) if self.rule.fixed_window else 0.0

    def lasting(self, seconds: float) -> AdmissionCase:
        """The same case in another time: what is scripted for half an hour happens at the same share of it."""
        scale = seconds / FULL_S
        slots = tuple((at * scale, count) for at, count in self.rule.slots)
        begin = self.rule.refuses[0] * scale
        refuses = (begin, begin + REFUSED_S)
        rows = None if self.rows is None else max(50, round(self.rows * min(1.0, scale * 3)))
        return replace(self, rule=replace(self.rule, slots=slots, refuses=refuses), rows=rows)


FULL_S: Final = 1800.0
REFUSED_S: Final = 3.0
STEPS: Final = ((0.0, 64), (600.0, 32), (1200.0, 64))
MINUTE_600: Final = Rule(per_minute=600, burst=10)
BOTH: Final = Rule(slots=((0.0, 32),), per_minute=240, burst=240)
TOKENS: Final = Rule(tokens_per_minute=600_000)
WEIGHTS: Final = tuple([float(1 + flow % 4) for flow in range(64)])


def _slots(count: int) -> Rule:
    return Rule(slots=((0.0, count),))


CASES: Final = (
    AdmissionCase("concurrency 32", "nothing is said", _slots(32), Goals(0.99, 0.003, 10)),
    AdmissionCase(
        "concurrency 200", "nothing is said, the user's cap is 256", _slots(200), Goals(0.98, 0.003, 17), cap=256
    ),
    AdmissionCase("steps 64-32-64", "ten minutes each", Rule(slots=STEPS), Goals(0.98, 0.004, 25)),
    AdmissionCase(
        "600 a minute, silent",
        "burst 10, nothing is said",
        MINUTE_600,
        Goals(0.98, 0.001),
        Work.REQUESTS,
        window_s=10,
    ),
    AdmissionCase(
        "600 a minute, Retry-After",
        "burst 10, rejections carry Retry-After in whole seconds",
        replace(MINUTE_600, hint=Hint.SECONDS),
        Goals(0.975, 0.001),
        Work.REQUESTS,
        window_s=10,
    ),
    AdmissionCase(
        "600 a minute, Retry-After in ms",
        "burst 10, rejections carry the exact wait (retry-after-ms)",
        replace(MINUTE_600, hint=Hint.MS),
        Goals(0.975, 0.001),
        Work.REQUESTS,
        window_s=10,
    ),
    AdmissionCase(
        "600 a minute, headers",
        "burst 10, every response states limit, remaining and reset",
        replace(MINUTE_600, states=True),
        Goals(0.998, 0.0001),
        Work.REQUESTS,
        window_s=10,
    ),
    AdmissionCase(
        "600 a minute, labelled",
        "burst 10, rejections name their limit and say nothing else",
        replace(MINUTE_600, labelled=True),
        Goals(0.98, 0.001),
        Work.REQUESTS,
        window_s=10,
    ),
    AdmissionCase(
        "rejected count, Retry-After",
        "600 a minute, rejected requests use the quota up too",
        replace(MINUTE_600, rejected_count=True, hint=Hint.SECONDS),
        Goals(0.985, 0.002),
        Work.REQUESTS,
        window_s=10,
    ),
    AdmissionCase(
        "rejected count, silent",
        "600 a minute, rejected requests use the quota up too, nothing is said",
        replace(MINUTE_600, rejected_count=True),
        Goals(0.95, 0.01),
        Work.REQUESTS,
        window_s=10,
    ),
    AdmissionCase(
        "fixed window 40",
        "40 requests in each minute by the clock, nothing is said",
        Rule(per_minute=40, fixed_window=True),
        Goals(0.98, 0.01),
        Work.REQUESTS,
        window_s=60,
    ),
    AdmissionCase(
        "32 and 240 a minute",
        "32 slots and 240 requests a minute (burst 240), nothing is said",
        BOTH,
        Goals(0.98, 0.005),
        Work.REQUESTS,
        window_s=20,
    ),
    AdmissionCase(
        "32 and 240 a minute, labelled",
        "32 slots and 240 requests a minute (burst 240), rejections name their limit",
        replace(BOTH, labelled=True),
        Goals(0.98, 0.005),
        Work.REQUESTS,
        window_s=20,
    ),
    AdmissionCase(
        "600k tokens, headers",
        "estimates wrong by up to half, every response states the quota",
        replace(TOKENS, states=True),
        Goals(0.98, 0.002),
        Work.TOKENS,
        window_s=30,
    ),
    AdmissionCase(
        "600k tokens, silent",
        "estimates wrong by up to half, nothing is said",
        TOKENS,
        Goals(0.98, 0.002),
        Work.TOKENS,
        window_s=30,
    ),
    AdmissionCase(
        "600k tokens, labelled",
        "estimates wrong by up to half, rejections name their limit",
        replace(TOKENS, labelled=True),
        Goals(0.98, 0.002),
        Work.TOKENS,
        window_s=30,
    ),
    AdmissionCase(
        "two clients on 64",
        "64 slots, clients that know nothing of each other",
        _slots(64),
        Goals(0.97, 0.008, jain=0.97),
        clients=2,
    ),
    AdmissionCase(
        "64 flows on 32",
        "32 slots, flows with weights 1 to 4",
        _slots(32),
        Goals(0.99, 0.003, 10, jain=0.97),
        weights=WEIGHTS,
    ),
    AdmissionCase(
        "3 s of refusals",
        "32 slots; halfway everything is refused for three seconds",
        replace(_slots(32), refuses=(900.0, 900.0 + REFUSED_S)),
        Goals(0.98, 0.004, 25),
    ),
    AdmissionCase(
        "Retry-After 5 on 32",
        "32 slots; every rejection carries Retry-After: 5",
        replace(_slots(32), hint=Hint.SECONDS, retry_after_s=5.0),
        Goals(0.975, 0.003, 25),
    ),
    AdmissionCase("1,000 rows", "32 slots, nothing is said", _slots(32), Goals(makespan=1.03), rows=1000),
)
"""Every case, in the order of the report."""


def case_named(name: str) -> AdmissionCase:
    """The case of that exact name."""
    return next(case for case in CASES if case.name == name)
