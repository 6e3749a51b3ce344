"""The charts of a report, as the traces and layouts that plotly.js draws. Pure: plain data in, plain data out.

Colours are names of the page's own (``"@1"``), which it looks up for light and dark. Names from outside are escaped for
plotly.js, which reads a little HTML in texts.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

from .histogram import BOUNDS_S, BUCKETS
from .series import present, rates, time_unit
from .wording import shortened

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .figures import ResourceFigures, RunFigures
    from .reading import StoredReport

__all__ = ["Chart", "by_requests", "held_back", "latency", "load", "pace", "throughput", "tokens"]

Chart = dict[str, Any]
"""``data``, ``layout`` and ``label``, which says what is seen to those who cannot."""

TICKS_MAX: Final = 5

LINES_MAX: Final = 8
"""Resources with a line of their own in a chart of several: as many as there are colours."""

_PACES: Final[Mapping[str, str]] = {
    "provider latency": "@2",
    "concurrency limit": "@1",
    "request limit": "@3",
    "token limit": "@5",
    "cooldown": "@bad",
    "held back": "@4",
    "store": "@6",
    "workers": "@7",
    "budget": "@8",
    "no ready work": "@faint",
}


def throughput(figures: RunFigures) -> Chart | None:
    """Rows that came to an end, and requests by resource, each second; None before there are two samples."""
    if len(figures.times) < 2:
        return None
    data = [_rate_line("rows finished", figures.times, figures.rows, "@ink", figures, width=2.5)]
    data += [
        _rate_line(_name(name), figures.times, resource.ended, _colour(place), figures)
        for place, (name, resource) in enumerate(_busiest(figures))
    ]
    layout = {"xaxis": _time_axis(figures), "yaxis": {"title": {"text": "per second"}, "rangemode": "tozero"}}
    return _chart(data, layout, "Rows finished and requests ended per second over the time of the run", figures)


def load(name: str, resource: ResourceFigures, figures: RunFigures) -> Chart:
    """One resource: its limit, what was in flight, and below the 429s."""
    unit = _unit(figures)
    x = [at / unit for at in figures.times]
    steps = {"type": "scatter", "mode": "lines", "x": x}
    refused = rates(figures.times, resource.rate_limited)
    data = [
        {**steps, "name": "in flight", "y": present(resource.in_flight), "fill": "tozeroy", "fillcolor": "@1soft",
         "line": {"color": "@1", "width": 1.5, "shape": "hv"}, "hovertemplate": "%{y} in flight<extra></extra>"},
        {**steps, "name": "limit", "y": present(resource.limit), "line": {"color": "@ink", "width": 1.5, "shape": "hv"},
         "hovertemplate": "limit %{y}<extra></extra>"},
        {"type": "bar", "name": "429s", "x": [(end - width / 2) / unit for end, width in
         zip(refused.ends_s, refused.widths_s, strict=True)], "width": [width / unit for width in refused.widths_s],
         "y": refused.counts, "yaxis": "y2", "marker": {"color": "@bad"},
         "hovertemplate": "%{y} refused<extra></extra>"},
    ]  # fmt: skip
    most = max(refused.counts, default=0)
    layout = {
        "xaxis": {**_time_axis(figures), "anchor": "y2"},
        "yaxis": {"domain": [0.34, 1], "title": {"text": "requests"}, "rangemode": "tozero"},
        "yaxis2": {"domain": [0, 0.22], "title": {"text": "429s"}, "rangemode": "tozero", "nticks": 3,
                   **({} if most > 3 else {"dtick": 1, "range": [0, max(1, most) * 1.05]})},
        "height": 340,
    }  # fmt: skip
    return _chart(data, layout, f"{name}: concurrency limit, requests in flight and 429s over time", figures)


def held_back(figures: RunFigures) -> Chart | None:
    """Tasks held back on each resource; None if there never were any."""
    unit = _unit(figures)
    held = [(name, one) for name, one in _busiest(figures) if max(one.held, default=0) > 0]
    if not held:
        return None
    data = [
        {"type": "scatter", "mode": "lines", "name": _name(name), "x": [at / unit for at in figures.times],
         "y": present(one.held), "line": {"color": _colour(place), "width": 1.5, "shape": "hv"},
         "hovertemplate": "%{y} held back<extra>%{fullData.name}</extra>"}
        for place, (name, one) in enumerate(held)
    ]  # fmt: skip
    layout = {"xaxis": _time_axis(figures), "yaxis": {"title": {"text": "tasks"}, "rangemode": "tozero"}}
    return _chart(data, layout, "Tasks held back over time, by resource", figures)


def pace(figures: RunFigures) -> Chart | None:
    """What set the pace of each resource, in shares of the time; None if that is not known of any."""
    known = [(name, one) for name, one in by_requests(figures) if sum(one.seconds.values()) > 0]
    reasons = dict.fromkeys((*_PACES, *(reason for _, one in known for reason in one.seconds)))
    seen = [reason for reason in reasons if any(one.seconds.get(reason) for _, one in known)]
    data = [
        _bar(reason, [100 * one.seconds.get(reason, 0) / sum(one.seconds.values()) for _, one in known],
             _PACES.get(reason, "@8"), "%{x:.1f} %")
        for reason in seen
    ]  # fmt: skip
    axis = {"ticksuffix": " %", "range": [0, 100]}
    label = "Share of the time by what set the pace of each resource"
    return _bars(data, [name for name, _ in known], axis, label) if known else None


def latency(figures: RunFigures) -> Chart | None:
    """How long successful attempts took, by resource; None if there were none."""
    known = [(name, one) for name, one in _busiest(figures) if any(one.latencies)]
    if not known:
        return None
    used = [place for place in range(BUCKETS) if any(one.latencies[place] for _, one in known)]
    span = range(max(0, used[0] - 1), min(BUCKETS, used[-1] + 2))
    centres = [_centre(place) for place in span]
    data = [
        {"type": "scatter", "mode": "lines", "name": _name(name), "x": centres,
         "y": [100 * one.latencies[place] / sum(one.latencies) for place in span],
         "line": {"color": _colour(place), "width": 2, "shape": "hvh"},
         "hovertemplate": "%{y:.1f} % around %{x:.3g} s<extra>%{fullData.name}</extra>"}
        for place, (name, one) in enumerate(known)
    ]  # fmt: skip
    ticks = _ticks(centres[0], centres[-1])
    layout = {
        "xaxis": {"type": "log", "title": {"text": "time to the answer, logarithmic"}, "tickvals": ticks,
                  "ticktext": [_tick(tick) for tick in ticks]},
        "yaxis": {"title": {"text": "of the answers"}, "ticksuffix": " %", "rangemode": "tozero"},
        "hovermode": "closest",
    }  # fmt: skip
    return _chart(data, layout, "Distribution of the time to an answer, by resource")


def tokens(report: StoredReport) -> Chart | None:
    """Tokens of each column, input and output; None if none are on record."""
    columns = [one for one in report.overview.columns if one.usage.input_tokens or one.usage.output_tokens]
    if not columns:
        return None
    data = [
        _bar("input", [one.usage.input_tokens for one in columns], "@1", "%{x:,.0f} tokens in"),
        _bar("output", [one.usage.output_tokens for one in columns], "@2", "%{x:,.0f} tokens out"),
    ]
    return _bars(data, [one.column for one in columns], {"rangemode": "tozero"}, "Tokens by column")


def _ticks(first_s: float, last_s: float) -> list[float]:
    """Round durations between the two, few enough for the width of a phone."""
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [step * 10.0**power for power in range(-3, 4) for step in steps]
        ticks = [round(tick, 9) for tick in found if first_s <= tick <= last_s]
        if len(ticks) <= TICKS_MAX:
            break
    return ticks


def _tick(seconds: float) -> str:
    return f"{1000 * seconds:g} ms" if seconds < 1 else f"{seconds:g} s"


def _centre(bucket: int) -> float:
    lower = BOUNDS_S[bucket - 1] if bucket else BOUNDS_S[0] ** 2 / BOUNDS_S[1]
    upper = BOUNDS_S[bucket] if bucket < len(BOUNDS_S) else BOUNDS_S[-1] ** 2 / BOUNDS_S[-2]
    return float((lower * upper) ** 0.5)


def by_requests(figures: RunFigures) -> list[tuple[str, ResourceFigures]]:
    """The resources by name, the busiest first."""
    return sorted(figures.resources.items(), key=lambda item: -item[1].requests)


def _busiest(figures: RunFigures) -> list[tuple[str, ResourceFigures]]:
    return by_requests(figures)[:LINES_MAX]


def _name(name: str) -> str:
    return escape(shortened(name, 30), quote=False)


def _colour(place: int) -> str:
    return f"@{place + 1}"


def _unit(figures: RunFigures) -> float:
    return time_unit(figures.seconds).seconds


def _rate_line(
    name: str, times: Sequence[float], counter: Sequence[float], colour: str, figures: RunFigures, width: float = 1.5
) -> Chart:
    found, unit = rates(times, counter), _unit(figures)
    starts = [(end - size) / unit for end, size in zip(found.ends_s, found.widths_s, strict=True)]
    ends = [found.ends_s[-1] / unit] if found.ends_s else []
    return {
        "type": "scatter", "mode": "lines", "name": name, "x": [*starts, *ends],
        "y": [*found.per_s, *found.per_s[-1:]], "line": {"color": colour, "width": width, "shape": "hv"},
        "hovertemplate": "%{y:.3g} per second<extra>%{fullData.name}</extra>",
    }  # fmt: skip


def _bar(name: str, values: Sequence[float], colour: str, told: str) -> Chart:
    return {
        "type": "bar", "orientation": "h", "name": name, "x": list(values), "y": list(range(len(values))),
        "width": 0.42, "marker": {"color": colour}, "hovertemplate": f"{told}<extra>{name}</extra>",
    }  # fmt: skip


def _bars(data: list[Chart], names: Sequence[str], axis: Mapping[str, object], label: str) -> Chart:
    """Stacked bars, each below its name: at the side a long one would leave no room for the bars of a phone."""
    above = [
        {"text": escape(shortened(name), quote=False), "x": 0, "xref": "paper", "xanchor": "left",
         "y": place, "yanchor": "bottom", "yshift": 12, "showarrow": False, "align": "left"}
        for place, name in enumerate(names)
    ]  # fmt: skip
    layout = {
        "barmode": "stack",
        "xaxis": dict(axis),
        "yaxis": {"range": [len(names) - 0.6, -0.9], "showticklabels": False, "showgrid": False, "zeroline": False},
        "annotations": above,
        "margin": {"l": 20, "r": 24, "t": 8, "b": 8},
        "height": 110 + 44 * len(names),
        "hovermode": "closest",
    }
    return _chart(data, layout, label)


def _time_axis(figures: RunFigures) -> Chart:
    seconds = max(figures.seconds, 1e-3)
    unit = time_unit(seconds)
    return {"title": {"text": f"{unit.name} of the run"}, "range": [0, seconds / unit.seconds], "zeroline": False}


def _chart(data: list[Chart], layout: Chart, label: str, figures: RunFigures | None = None) -> Chart:
    shapes = [] if figures is None else list(_resumed(figures))
    return {
        "label": label,
        "data": data,
        "layout": {"height": 300, "hovermode": "x unified", **layout, "shapes": shapes},
    }


def _resumed(figures: RunFigures) -> Iterator[Chart]:
    """A line where each later life began."""
    for began, _ in figures.lives:
        if began > 0:
            yield {"type": "line", "x0": began / _unit(figures), "x1": began / _unit(figures), "yref": "paper", "y0": 0,
                   "y1": 1, "line": {"color": "@muted", "width": 1, "dash": "dot"}}  # fmt: skip
