"""A report as plain data for JSON: everything that the page shows, and what it is drawn from."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from .figures import GAUGES
from .histogram import BOUNDS_S, quantile_s
from .series import present

if TYPE_CHECKING:
    from .figures import ResourceFigures, RunFigures
    from .reading import StoredReport

__all__ = ["as_data", "as_json"]

Data = dict[str, Any]


def as_data(report: StoredReport) -> Data:
    """The report. ``figures`` is None for a run that kept none; times are seconds, a missing sample is None."""
    overview, info = report.overview, report.overview.info
    names = ("whole", "failed", "held", "pending", "next_at", "last_at")
    return {
        "run": info.run,
        "status": info.status,
        "epoch": info.epoch,
        "rows": info.rows,
        "created_at": info.created_at,
        "finished_at": info.finished_at,
        "durability": info.durability.value,
        **{name: getattr(overview, name) for name in names},
        "shared": None if overview.shared is None else overview.shared._asdict(),
        "columns": [{**asdict(one), "cost": report.costs.get(one.column)} for one in overview.columns],
        "currency": report.currency,
        "failed_cells": report.failed_cells,
        "failure_counts": [
            {"column": column, "reason": reason, "count": n}
            for (column, reason), n in sorted(overview.failure_counts.items())
        ],
        "failures": [asdict(cell) for cell in overview.failures],
        "figures": None if report.figures is None else _figures(report.figures),
    }


def as_json(report: StoredReport) -> str:
    """The same as JSON that every parser takes: what is not finite is null."""
    return to_json(as_data(report), indent=2, inf_nan_mode="null").decode()


def _figures(figures: RunFigures) -> Data:
    return {
        "saved_at": figures.saved_at,
        "seconds": figures.seconds,
        "interval_s": figures.interval_s,
        "lives": [{"began_s": began, "wall": wall} for began, wall in figures.lives],
        "models": figures.models,
        "times_s": figures.times,
        "rows": present(figures.rows),
        "cells": present(figures.cells),
        "latency_bounds_s": list(BOUNDS_S),
        "resources": [_resource(name, one) for name, one in figures.resources.items()],
    }


def _resource(name: str, one: ResourceFigures) -> Data:
    totals = one.model_dump(exclude=set(GAUGES))
    return {
        "resource": name,
        **totals,
        "requests": one.requests,
        "rate_limited_total": one.refused,
        "mean_limit": one.mean_limit,
        "latency_s": {told: quantile_s(one.latencies, part) for told, part in _QUANTILES},
        "samples": {gauge: present(getattr(one, gauge)) for gauge in GAUGES},
    }


_QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99))
