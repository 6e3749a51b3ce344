"""The figures of a run over time and per resource, as they are kept with it and as they come back.

They are written by the process that runs (:mod:`headgate.engine.recording`) and read in another life, so what comes
back is validated: what does not fit is as good as never written, since nobody but a report depends on it.
"""

from __future__ import annotations

from itertools import pairwise
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..storage.codec import decode
from .histogram import BUCKETS
from .timeline import ABSENT, POINTS_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["GAUGES", "LIVES_MAX", "RESOURCES_MAX", "VERSION", "ResourceFigures", "RunFigures", "read_figures"]

VERSION: Final = 1
"""Of the shape below. Another one is not read."""

RESOURCES_MAX: Final = 32
"""Resources whose figures are kept: those that were used first."""

LIVES_MAX: Final = 64
"""Openings of a run of which the beginning is kept: the latest."""

GAUGES: Final = ("limit", "in_flight", "held", "rate_limited", "ended")
"""What is sampled of each resource. The last two are counters."""

_Count = Annotated[int, Field(ge=0)]
_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Value = Annotated[float, Field(ge=ABSENT, allow_inf_nan=False)]
_Column = Annotated[list[_Value], Field(max_length=POINTS_MAX)]

_STRICT: Final = ConfigDict(frozen=True, extra="forbid", strict=True)


class ResourceFigures(BaseModel):
    """One resource. Totals over all lives of the run, then what was sampled at ``RunFigures.times``.

    ``latencies`` are counts of successful attempts by their duration, in the buckets of :mod:`.histogram`; ``seconds``
    is by what set the pace. In the samples -1 is absent: no limit, or not in use yet. ``limit``, ``in_flight`` and
    ``held`` are gauges; ``rate_limited`` and ``ended`` count attempts and only rise.
    """

    model_config = _STRICT

    outcomes: dict[str, _Count]
    input_tokens: _Count
    output_tokens: _Count
    peak: _Count
    busy_s: _Seconds
    queued_s: _Seconds
    limit_s: _Seconds
    limited_s: _Seconds
    seconds: dict[str, _Seconds]
    latencies: Annotated[list[_Count], Field(min_length=BUCKETS, max_length=BUCKETS)]
    limit: _Column
    in_flight: _Column
    held: _Column
    rate_limited: _Column
    ended: _Column

    @property
    def requests(self) -> int:
        """Attempts that came to an end."""
        return sum(self.outcomes.values())

    @property
    def refused(self) -> int:
        """Attempts that the provider answered with 429 or as overloaded."""
        return self.outcomes.get("rate_limited", 0) + self.outcomes.get("overloaded", 0)

    @property
    def mean_limit(self) -> float | None:
        """The concurrency limit averaged over the time in which there was one."""
        return self.limit_s / self.limited_s if self.limited_s else None


class RunFigures(BaseModel):
    """One run. ``times`` are seconds of the run going on, the gaps between its lives left out.

    ``lives`` are the latest openings: when each began on that clock, and in wall-clock time. ``rows`` counts those that
    came to an end, ``cells`` too. ``models`` names the resource of each column, empty for one without.
    """

    model_config = _STRICT

    version: Literal[1]
    run: str
    created_at: _Seconds
    saved_at: _Seconds
    seconds: _Seconds
    interval_s: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    lives: Annotated[list[tuple[_Seconds, _Seconds]], Field(max_length=LIVES_MAX)]
    models: dict[str, str]
    times: Annotated[list[_Seconds], Field(max_length=POINTS_MAX)]
    rows: _Column
    cells: _Column
    resources: Annotated[dict[str, ResourceFigures], Field(max_length=RESOURCES_MAX)]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if any(later <= earlier for earlier, later in pairwise(self.times)):
            raise ValueError("times have to rise")
        if any(len(column) != len(self.times) for column in self._columns()):
            raise ValueError("as many samples as times")
        return self

    def _columns(self) -> Iterator[Sequence[float]]:
        yield self.rows
        yield self.cells
        for resource in self.resources.values():
            for name in GAUGES:
                yield getattr(resource, name)


def read_figures(record: bytes | None, run: str, created_at: float) -> RunFigures | None:
    """The figures in what was kept with ``run``, if they are its own. Never raises for what ``record`` holds.

    A run that was swept and begun anew has another time of creation: those of the earlier one do not count for it.
    """
    if record is None:
        return None
    try:
        plain: object = decode(record)
        text = cast("dict[object, object]", plain).get("figures") if isinstance(plain, dict) else None
        figures = RunFigures.model_validate_json(text) if isinstance(text, str) else None
    except (ValidationError, ValueError):
        return None
    if figures is None or figures.run != run or not isfinite(created_at) or figures.created_at != created_at:
        return None
    return figures
