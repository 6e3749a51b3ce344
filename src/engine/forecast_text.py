"""A forecast as lines for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..reports.wording import money
from .spans import span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .forecast import Forecast, Range

__all__ = ["forecast_lines"]


def forecast_lines(forecast: Forecast) -> Iterator[str]:
    """Tokens, cost and time of what is left, each with the range that holds in nine cases of ten."""
    if not forecast.sampled and forecast.notices:
        yield from forecast.notices
        return
    yield f"forecast of the rest, from {forecast.sampled} rows:"
    for column in forecast.columns:
        cost = "" if column.cost is None else f", cost {_told(column.cost, money)}"
        yield (
            f"  {column.column}: {column.cells} cells, tokens in {_told(column.input_tokens, _count)}, "
            f"out {_told(column.output_tokens, _count)}{cost}"
        )
    if len(forecast.columns) > 1:
        yield f"  tokens in {_told(forecast.input_tokens, _count)}, out {_told(forecast.output_tokens, _count)}"
    if forecast.cost is not None:
        yield f"  cost {_told(forecast.cost, money)}"
    if forecast.seconds is not None:
        by = f"; {forecast.pace} sets the pace" if forecast.pace else ""
        yield f"  time {_told(forecast.seconds, span)}{by}"
    yield from (f"  notice: {notice}" for notice in forecast.notices)


def _told(value: Range, show: Callable[[float], str]) -> str:
    likely, low, high = show(value.likely), show(value.low), show(value.high)
    return likely if low == likely == high else f"{likely} ({low} to {high})"


def _count(number: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= size:
            scaled = number / (1e3 if unit == "k" else size)
            return f"{scaled:.3g} {unit}"
    return f"{number:.0f}"
