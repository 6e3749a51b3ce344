"""The tools of every scenario: cases, samples, CPU time."""

from __future__ import annotations

import gc
import time
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from .result import Goal

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

__all__ = ["Case", "Effort", "Sample", "Scenario", "Stopwatch", "at_least", "at_most", "measured"]


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
    """One measured number of one run of a case."""

    name: str
    unit: str
    value: float
    goal: Goal | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One set-up. ``measure`` performs it once and gives its samples; ``runs`` overrides how often, where one says
    it all (virtual time repeats exactly).
    """

    name: str
    measure: Callable[[], Iterable[Sample]]
    runs: int | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """A named question. ``cases`` are made for an effort and a seed."""

    name: str
    what: str
    cases: Callable[[Effort, int], Iterable[Case]]


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
    gc.freeze()
    watch = Stopwatch() if watch is None else watch
    cpu, wall = time.process_time(), time.perf_counter()
    try:
        yield watch
    finally:
        watch.cpu_s, watch.wall_s = time.process_time() - cpu, time.perf_counter() - wall
        gc.unfreeze()


def at_most(bound: float) -> Goal:
    """A goal that is met below."""
    return Goal(at_most=bound)


def at_least(bound: float) -> Goal:
    """A goal that is met above."""
    return Goal(at_least=bound)
