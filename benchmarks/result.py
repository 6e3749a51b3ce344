"""What a benchmark says: values with an exact shape, the same in the JSON file and on standard output.

``Result.model_validate_json`` of a written file gives it back; unknown keys are errors, so the shape cannot drift
without a test that says so. Raise ``FORMAT`` when it changes.
"""

from __future__ import annotations

from enum import StrEnum
from statistics import fmean, median
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "FORMAT",
    "Better",
    "CaseResult",
    "Goal",
    "Judge",
    "Machine",
    "MetricResult",
    "Provenance",
    "Result",
    "ScenarioResult",
]

FORMAT: Final = 3


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Goal(_Value):
    """What a metric is to reach: at most, or at least, so much."""

    at_most: float | None = None
    at_least: float | None = None

    def met(self, value: float) -> bool:
        """Whether ``value`` is good enough."""
        return (self.at_most is None or value <= self.at_most) and (self.at_least is None or value >= self.at_least)

    def __str__(self) -> str:
        parts = (("<=", self.at_most), (">=", self.at_least))
        return " and ".join(f"{sign} {bound:g}" for sign, bound in parts if bound is not None)


class Judge(StrEnum):
    """Which number of several runs is held against a goal: the median of what a machine does on a day, the mean of what
    different seeds give.
    """

    MEDIAN = "median"
    MEAN = "mean"


class Better(StrEnum):
    """Which way a number is to go. NEITHER: it says something, but neither way is better."""

    LOWER = "lower"
    HIGHER = "higher"
    NEITHER = "neither"

    @classmethod
    def by(cls, goal: Goal | None) -> Better:
        """The way that a goal points."""
        if goal is None or (goal.at_most is None) == (goal.at_least is None):
            return cls.NEITHER
        return cls.HIGHER if goal.at_most is None else cls.LOWER


class MetricResult(_Value):
    """One number, measured ``len(values)`` times. ``met`` says whether the median, or the mean where that was to be
    judged, reached the goal; None where nothing was to be reached.

    ``noisy`` numbers depend on the machine's mood: absolute CPU, wall time. ``baseline`` names the metric of the same
    case that was measured in the same minute and is as moody; two results are then compared by the quotient.
    """

    name: str
    unit: str
    better: Better
    noisy: bool
    baseline: str | None
    median: float
    mean: float
    least: float
    most: float
    values: tuple[float, ...]
    goal: Goal | None
    met: bool | None

    @classmethod
    def of(
        cls,
        name: str,
        unit: str,
        values: Sequence[float],
        goal: Goal | None,
        judge: Judge = Judge.MEDIAN,
        *,
        better: Better | None = None,
        noisy: bool = False,
        baseline: str | None = None,
    ) -> MetricResult:
        """Summarise ``values``, of which there is at least one. The goal says what is better if nothing else does."""
        middle, mean = median(values), fmean(values)
        return cls(
            name=name,
            unit=unit,
            better=Better.by(goal) if better is None else better,
            noisy=noisy,
            baseline=baseline,
            median=middle,
            mean=mean,
            least=min(values),
            most=max(values),
            values=tuple(values),
            goal=goal,
            met=None if goal is None else goal.met(mean if judge is Judge.MEAN else middle),
        )


class CaseResult(_Value):
    """One set-up of a scenario and what it gave."""

    name: str
    runs: int
    metrics: tuple[MetricResult, ...]


class ScenarioResult(_Value):
    """One scenario: what was measured, in how many cases. ``pictures`` are files by the name of what they show."""

    name: str
    what: str
    seconds: float
    cases: tuple[CaseResult, ...]
    pictures: dict[str, str] = {}


class Machine(_Value):
    """What it ran on. ``cpu`` is the model as the system names it, ``memory_gib`` all that there is; None: unknown."""

    cpu: str | None
    cpus: int
    memory_gib: float | None
    platform: str
    python: str

    def __str__(self) -> str:
        memory = "" if self.memory_gib is None else f", {self.memory_gib:.0f} GiB of memory"
        return f"{self.cpu or 'unknown CPU'}, {self.cpus} cores{memory}, {self.platform}, {self.python}"


class Provenance(_Value):
    """Where the numbers come from: the exact code, the machine, the libraries, the command.

    ``dirty`` says that the working copy differed from ``revision``; ``diff`` is then a hash of how. All three are None
    outside of a git working copy. ``started_at`` is UTC, ISO 8601.
    """

    revision: str | None
    dirty: bool | None
    diff: str | None
    machine: Machine
    versions: dict[str, str]
    seed: int
    effort: str
    argv: tuple[str, ...]
    started_at: str


class Result(_Value):
    """Everything that one call of the benchmarks measured."""

    format: int
    provenance: Provenance
    scenarios: tuple[ScenarioResult, ...]

    def summary(self) -> dict[str, object]:
        """The medians alone, by scenario, case and metric: one line for machines."""
        return {
            "format": self.format,
            "revision": self.provenance.revision,
            "dirty": self.provenance.dirty,
            "scenarios": {
                scenario.name: {
                    case.name: {metric.name: metric.median for metric in case.metrics} for case in scenario.cases
                }
                for scenario in self.scenarios
            },
            "missed": [
                f"{scenario.name}/{case.name}/{metric.name}"
                for scenario in self.scenarios
                for case in scenario.cases
                for metric in case.metrics
                if metric.met is False
            ],
        }
