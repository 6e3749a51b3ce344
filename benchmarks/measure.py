"""The tools of every scenario: cases, samples, CPU time."""

from __future__ import annotations

import gc
import time
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from .result import Better, Goal, Judge

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping
    from pathlib import Path

    from .result import ScenarioResult

__all__ = ["Better", "Case", "Effort", "Plan", "Sample", "Scenario", "Stopwatch", "at_least", "at_most", "measured"]


class Effort(StrEnum):
    """How much to do: ``full`` gives the numbers to quote, ``quick`` a look, ``smoke`` shows only that it works."""

    SMOKE = "smoke"
    QUICK = "quick"
    FULL = "full"

    def pick(self, smoke: int, quick: int, full: int) -> int:
        """The size that goes with this effort."""
        return {Effort.SMOKE: smoke, Effort.QUICK: quick, Effort.FULL: full}[self]


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured number of one run of a case. ``judge`` says what of several runs is held against the goal;
    ``better``, ``noisy`` and ``baseline`` how two results are compared: see :class:`~benchmarks.result.MetricResult`.
    """

    name: str
    unit: str
    value: float
    goal: Goal | None = None
    judge: Judge = Judge.MEDIAN
    better: Better | None = None
    noisy: bool = False
    baseline: str | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One set-up. ``measure`` performs it once and gives its samples; ``runs`` overrides how often, where one says
    it all (virtual time repeats exactly).
    """

    name: str
    measure: Callable[[], Iterable[Sample]]
    runs: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured, and how much of it.

    ``runs`` is how often each case is measured. ``only`` are parts of the names of cases, ``clients`` those of clients
    where a scenario compares several (empty: all). ``minutes`` is the length of virtual runs, ``jobs`` how many
    processes may share work that is not timed, ``pictures`` a folder for drawings; only some scenarios can use these.
    """

    effort: Effort
    seed: int
    runs: int
    only: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()
    minutes: float | None = None
    jobs: int = 1
    pictures: Path | None = None

    def wants(self, case: str) -> bool:
        """Whether a case of that name was asked for."""
        return not self.only or any(part.lower() in case.lower() for part in self.only)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A named question. ``table`` writes its results as Markdown where a row per metric would hide the answer; ``draw``
    makes pictures of them into the plan's folder and returns the files by what they show. ``in_turns``: the runs of a
    case do not follow each other, else a machine that is slow for some seconds is taken for a slow case.
    """

    name: str
    what: str
    cases: Callable[[Plan], Iterable[Case]]
    table: Callable[[ScenarioResult], Iterable[str]] | None = None
    draw: Callable[[Plan, ScenarioResult], Mapping[str, Path]] | None = None
    in_turns: bool = False


@dataclass(slots=True)
class Stopwatch:
    """What happened inside ``measured``: seconds of CPU of this process with all its threads, and of wall time."""

    cpu_s: float = 0.0
    wall_s: float = 0.0


@contextmanager
def measured(watch: Stopwatch | None = None) -> Generator[Stopwatch]:
    """Measure the block into ``watch``. What was there before, imported libraries above all, is garbage collected first
    and then left out of the collections in the block: a full one takes 70 ms over OpenAI's client alone.
    """
    gc.collect()
    mine = gc.get_freeze_count() == 0  # what somebody else has frozen stays so
    gc.freeze()
    watch = Stopwatch() if watch is None else watch
    cpu, wall = time.process_time(), time.perf_counter()
    try:
        yield watch
    finally:
        watch.cpu_s, watch.wall_s = time.process_time() - cpu, time.perf_counter() - wall
        if mine:
            gc.unfreeze()


def at_most(bound: float) -> Goal:
    """A goal that is met below."""
    return Goal(at_most=bound)


def at_least(bound: float) -> Goal:
    """A goal that is met above."""
    return Goal(at_least=bound)
