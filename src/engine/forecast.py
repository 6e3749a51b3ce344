"""What the rest of a run will take, from the part of it that is done: tokens, cost and time, each with a range.

Pure: samples in, ranges out. Tokens and cost are resampled from the rows that are done (a bootstrap of the mean,
widened by what the rows to come scatter themselves); the time is what the slots and rates of the busiest limit need for
the work that is left. A limit that nothing has shown yet makes the range wide: that is what is known.

Prior art: Efron's bootstrap; the operational laws of queueing networks (the bottleneck's demand bounds the time).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite, sqrt
from typing import TYPE_CHECKING, Final, Protocol

from ..errors import ConfigError
from ..values import Usage, is_number, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "NORMAL_95",
    "ColumnForecast",
    "Forecast",
    "Price",
    "Range",
    "Rng",
    "ScopeLoad",
    "WorkLeft",
    "finish_time",
    "forecast_usage",
    "thinned",
]

RESAMPLES: Final = 200
ROWS_MOST: Final = 1000
"""Rows that are resampled: more of them would make the range no narrower than it is useful."""

TAIL: Final = 0.05
"""A range is meant to hold the truth in nine cases of ten."""

LATENCY_SPREAD: Final = 1.0
"""Standard deviation of an answer's time over its mean, where only the mean was measured: what models show."""

NORMAL_95: Final = 1.645
"""The same tails of a normal distribution, in standard deviations."""

Price = Callable[[str, Usage], float | None]
"""What a model (``provider/model``) takes for so many tokens, in money; None if nobody knows."""


class Rng(Protocol):
    """Where the resampling is drawn from."""

    def choices(self, population: Sequence[int], *, k: int) -> list[int]:
        """``k`` members, drawn with replacement."""
        ...


@dataclass(frozen=True, slots=True)
class Range:
    """A number that is not known: what it is likely to be, and between what it will be in nine cases of ten."""

    low: float
    likely: float
    high: float

    def __post_init__(self) -> None:
        assert self.low <= self.likely <= self.high, self


@dataclass(frozen=True, slots=True)
class WorkLeft:
    """One model column: ``cells`` yet to end, and what it used in each sampled row, None where it has not ended.

    ``waste`` is what all attempts used over what the last ones did, from 1 on; ``fees`` is what a cell costs beside its
    tokens, in money.
    """

    column: str
    model: str
    cells: int
    sample: tuple[Usage | None, ...]
    waste: float = 1.0
    fees: float = 0.0


@dataclass(frozen=True, slots=True)
class ScopeLoad:
    """What one scope has to carry yet: ``slot_s`` seconds of slots, measured on so many ``requests``.

    ``slots`` is how many there are, and ``rates`` pairs what has to pass with how much of it may in a minute.
    """

    scope: str
    slot_s: float
    requests: int
    slots: Range
    rates: tuple[tuple[str, Range, float], ...] = ()


@dataclass(frozen=True, slots=True)
class ColumnForecast:
    """One model column: ``cells`` yet to end, and the tokens and the money that they will use."""

    column: str
    model: str
    cells: int
    input_tokens: Range
    output_tokens: Range
    cost: Range | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the rest of a run will take. ``seconds`` and ``pace``, which limit sets it, are None and empty where no time
    was measured; ``cost`` is None without prices. ``sampled`` is the number of rows that it stands on.
    """

    sampled: int
    columns: tuple[ColumnForecast, ...]
    input_tokens: Range
    output_tokens: Range
    cost: Range | None
    seconds: Range | None = None
    pace: str = ""
    notices: tuple[str, ...] = ()


def forecast_usage(work: Sequence[WorkLeft], *, rng: Rng, price: Price | None = None) -> Forecast:
    """Tokens and cost of what is left, from at least one sampled row. All columns have the same sampled rows."""
    rows = len(work[0].sample) if work else 0
    assert rows or not work
    assert all(len(one.sample) == rows for one in work)
    everything = range(rows)
    drawn = [everything, *(rng.choices(everything, k=rows) for _ in range(RESAMPLES if rows else 0))]
    totals = [[_total(one, rows_drawn) for one in work] for rows_drawn in drawn]
    columns = tuple(
        ColumnForecast(
            column=one.column,
            model=one.model,
            cells=one.cells,
            input_tokens=_range([total[place][0] for total in totals], rows, one.cells),
            output_tokens=_range([total[place][1] for total in totals], rows, one.cells),
            cost=_cost([work[place]], [[total[place]] for total in totals], rows, one.cells, price),
        )
        for place, one in enumerate(work)
    )
    most = max((one.cells for one in work), default=0)
    return Forecast(
        sampled=rows,
        columns=columns,
        input_tokens=_range([sum(one[0] for one in total) for total in totals], rows, most),
        output_tokens=_range([sum(one[1] for one in total) for total in totals], rows, most),
        cost=_cost(work, totals, rows, most, price),
    )


def finish_time(loads: Sequence[ScopeLoad]) -> tuple[Range, str]:
    """How long the work takes where each scope is kept full, in seconds, and which limit sets that."""
    likely, pace, low, high = 0.0, "", 0.0, 0.0
    for name, span in (pair for load in loads for pair in _spans(load)):
        low, high = max(low, span.low), max(high, span.high)
        if span.likely > likely or not pace:
            likely, pace = span.likely, name
    return Range(low, likely, high), pace


def _spans(load: ScopeLoad) -> Iterator[tuple[str, Range]]:
    """How long the work of one scope takes by each of its limits."""
    unsure = NORMAL_95 * LATENCY_SPREAD / sqrt(max(1, load.requests))
    slots = load.slots
    yield (
        f"{load.scope}: concurrency",
        Range(
            load.slot_s * max(0.0, 1.0 - unsure) / slots.high if slots.high < inf else 0.0,
            load.slot_s / slots.likely,
            load.slot_s * (1.0 + unsure) / slots.low,
        ),
    )
    for kind, amount, per_minute in load.rates:
        minutes = (value / per_minute for value in (amount.low, amount.likely, amount.high))
        yield f"{load.scope}: {kind} a minute", Range(*(60.0 * one for one in minutes))


def _total(work: WorkLeft, rows: Sequence[int]) -> tuple[float, float]:
    """What the cells that are left will use if they are like these rows; like all of them, if none of these ended."""
    found = [usage for row in rows if (usage := work.sample[row]) is not None]
    if not found:
        found = [usage for usage in work.sample if usage is not None]
    if not found:
        return 0.0, 0.0
    scale = work.cells * work.waste / len(found)
    return scale * sum(one.input_tokens for one in found), scale * sum(one.output_tokens for one in found)


def _cost(
    work: Sequence[WorkLeft],
    totals: Sequence[Sequence[tuple[float, float]]],
    rows: int,
    cells: int,
    price: Price | None,
) -> Range | None:
    """The money for them; None if the price of one is not known."""
    if price is None:
        return None
    sums: list[float] = []
    for total in totals:
        prices = [
            _money(one.model, price(one.model, Usage(round(read), round(written))))
            for one, (read, written) in zip(work, total, strict=True)
        ]
        known = [one for one in prices if one is not None]
        if len(known) < len(prices):
            return None
        sums.append(sum(known) + sum(one.cells * one.fees for one in work))
    return _range(sums, rows, cells)


def _money(model: str, said: object) -> float | None:
    """What somebody's own function said. Raises ConfigError if that is no money."""
    if said is None or (is_number(said) and isfinite(said) and said >= 0):
        return said
    raise ConfigError(
        f"price= said {shown(said)} for {model}: give dollars, zero or more, or None if they are not known"
    )


def _range(values: Sequence[float], rows: int, cells: int) -> Range:
    """The first value is that of the sample itself, the others are resampled: means of it, so that what the cells to
    come scatter themselves is added.
    """
    likely, resampled = values[0], sorted(values[1:]) or [values[0]]
    wider = sqrt(1.0 + rows / cells) if cells else 1.0
    low = resampled[int(TAIL * (len(resampled) - 1))]
    high = resampled[-1 - int(TAIL * (len(resampled) - 1))]
    return Range(
        max(0.0, min(likely, likely - wider * (likely - low))), likely, max(likely, likely + wider * (high - likely))
    )


def thinned(rows: Sequence[Mapping[str, Usage]]) -> Sequence[Mapping[str, Usage]]:
    """At most as many rows as are resampled, evenly spread over all."""
    step = -(-len(rows) // ROWS_MOST)
    return rows[::step] if step > 1 else rows
