"""What a run keeps of its own course: samples of its resources over time, and totals with those of earlier lives.

Decides nothing. It is asked when the pace is read, a step of its own that no cell pays for, and takes a sample when the
timeline wants one; what it has is written with the record of what was learned (:mod:`headgate.engine.keeping`).
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Final, TypeVar

from ..reports.figures import (
    GAUGES,
    LIVES_MAX,
    RESOURCES_MAX,
    VERSION,
    ResourceFigures,
    RunFigures,
    read_figures,
)
from ..reports.histogram import BUCKETS
from ..reports.timeline import ABSENT, Timeline
from ..storage.codec import encode
from ..values import Outcome, ResourceKey
from .meter import ResourceMeter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..admission.controller import AdmissionController
    from ..storage.ports import RunHandle, RunInfo
    from .core import RunCore
    from .meter import Meter

__all__ = ["Recorder", "recorder_of"]

T = TypeVar("T", int, float)

_ROWS, _CELLS = ("", "rows"), ("", "cells")


class Recorder:
    """The course of one life of a run, after ``earlier`` ones."""

    __slots__ = ("_controller", "_core", "_earlier", "_info", "_keys", "_lives", "_meter", "_timeline")

    def __init__(
        self,
        info: RunInfo,
        core: RunCore,
        meter: Meter,
        controller: AdmissionController,
        resources: Mapping[str, ResourceKey],
        *,
        earlier: RunFigures | None,
        wall_now: float,
    ) -> None:
        self._info = info
        self._core = core
        self._meter = meter
        self._controller = controller
        self._keys = dict(resources)
        self._earlier = earlier
        began = (0.0 if earlier is None else earlier.seconds, wall_now)
        self._lives = [*([] if earlier is None else earlier.lives), began][-LIVES_MAX:]
        self._timeline = Timeline[tuple[str, str]]() if earlier is None else _timeline(earlier)

    @property
    def due_at(self) -> float:
        """When the next sample is wanted, on the run's clock."""
        return self._timeline.due_at - self._lives[-1][0] + self._meter.started_at

    def sample(self, now: float) -> None:
        """Note how things stand."""
        tally, earlier = self._core.tally, self._earlier
        finished = tally.done + tally.failed + tally.skipped - tally.restored
        before = (0.0, 0.0) if earlier is None or not earlier.times else (earlier.rows[-1], earlier.cells[-1])
        values: dict[tuple[str, str], float] = {
            _ROWS: before[0] + max(0, finished),
            _CELLS: before[1] + self._core.cells_closed,
        }
        known: set[str] = set() if earlier is None else set(earlier.resources)
        for name, meter in self._meter.resources.items():
            if name in known or len(known) < RESOURCES_MAX:
                known.add(name)
                for gauge, value in zip(GAUGES, self._gauges(name, meter), strict=True):
                    values[name, gauge] = value
        self._timeline.add(self._clock(now), values)

    def record(self, now: float, wall_now: float) -> str:
        """Everything until ``now``, as JSON that :func:`headgate.reports.figures.read_figures` takes."""
        self.sample(now)
        columns = self._timeline.columns
        names = dict.fromkeys(name for name, _ in columns if name)
        plain = {
            "version": VERSION,
            "run": self._info.run,
            "created_at": self._info.created_at,
            "saved_at": wall_now,
            "seconds": self._clock(now),
            "interval_s": self._timeline.interval_s,
            "lives": self._lives,
            "models": {p.name: "" if p.resource is None else p.lane for p in self._core.plans},
            "times": self._timeline.times,
            "rows": columns[_ROWS],
            "cells": columns[_CELLS],
            "resources": {
                name: {**self._totals(name), **{gauge: columns[name, gauge] for gauge in GAUGES}} for name in names
            },
        }
        return encode(plain).decode()

    def _clock(self, now: float) -> float:
        """Seconds of the run going on, until ``now``."""
        return self._lives[-1][0] + max(0.0, now - self._meter.started_at)

    def _gauges(self, name: str, meter: ResourceMeter) -> tuple[float, ...]:
        key = self._keys.get(name)
        if key is None:  # a model that bodies ask for by themselves
            key = self._keys[name] = ResourceKey.parse(name)
        limit = self._controller.gate.capacity(key)
        return (
            round(limit, 1) if isfinite(limit) else ABSENT,
            meter.in_flight,
            self._core.salvage.held_on(name),
            self._before(name, "rate_limited") + _refused(meter),
            self._before(name, "ended") + meter.requests,
        )

    def _before(self, name: str, counter: str) -> float:
        found = None if self._earlier is None else self._earlier.resources.get(name)
        column: Sequence[float] = () if found is None else getattr(found, counter)
        return max(0, column[-1]) if column else 0

    def _totals(self, name: str) -> dict[str, object]:
        before = _NOTHING if self._earlier is None else self._earlier.resources.get(name, _NOTHING)
        now = self._meter.resources.get(name, _UNUSED)
        return {
            "outcomes": _sum(before.outcomes, {outcome.value: n for outcome, n in now.outcomes.items()}),
            "seconds": _sum(before.seconds, {pace.value: spent for pace, spent in now.seconds.items()}),
            "latencies": [one + other for one, other in zip(before.latencies, now.latencies, strict=True)],
            "input_tokens": before.input_tokens + now.input_tokens,
            "output_tokens": before.output_tokens + now.output_tokens,
            "peak": max(before.peak, now.peak),
            "busy_s": before.busy_s + now.busy_s,
            "queued_s": before.queued_s + now.queued_s,
            "limit_s": before.limit_s + now.limit_s,
            "limited_s": before.limited_s + now.limited_s,
        }


def recorder_of(
    handle: RunHandle,
    core: RunCore,
    meter: Meter,
    controller: AdmissionController,
    resources: Mapping[str, ResourceKey],
    wall_now: float,
) -> Recorder:
    """What records the life of the run that begins with this opening, after those that its record tells of."""
    info = handle.info
    earlier = read_figures(handle.learned, info.run, info.created_at)
    return Recorder(info, core, meter, controller, resources, earlier=earlier, wall_now=wall_now)


_UNUSED: Final = ResourceMeter()
_NOTHING: Final = ResourceFigures(
    outcomes={},
    input_tokens=0,
    output_tokens=0,
    peak=0,
    busy_s=0.0,
    queued_s=0.0,
    limit_s=0.0,
    limited_s=0.0,
    seconds={},
    latencies=[0] * BUCKETS,
    limit=[],
    in_flight=[],
    held=[],
    rate_limited=[],
    ended=[],
)


def _sum(one: Mapping[str, T], other: Mapping[str, T]) -> dict[str, T]:
    both = dict(one)
    for name, amount in other.items():
        both[name] = both[name] + amount if name in both else amount
    return both


def _refused(meter: ResourceMeter) -> int:
    return meter.outcomes.get(Outcome.RATE_LIMITED, 0) + meter.outcomes.get(Outcome.OVERLOADED, 0)


def _timeline(earlier: RunFigures) -> Timeline[tuple[str, str]]:
    columns: dict[tuple[str, str], Sequence[float]] = {_ROWS: earlier.rows, _CELLS: earlier.cells}
    for name, resource in earlier.resources.items():
        for gauge in GAUGES:
            columns[name, gauge] = getattr(resource, gauge)
    return Timeline(earlier.times, columns, interval_s=earlier.interval_s)
