"""What ``--json`` shows: results of the library as plain data. Names are those of the library; times in seconds."""

from __future__ import annotations

from dataclasses import asdict
from math import isfinite
from typing import TYPE_CHECKING, Any, cast

from pydantic_core import to_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ..engine.planned import RunPlan
    from ..engine.report import RunReport
    from ..export import Export
    from ..reports import StoredReport
    from ..restart import Supervised
    from ..storage.overview import RunOverview
    from ..storage.ports import RunInfo, Swept
    from ..testing.simulation import SimulatedRun

__all__ = [
    "as_json",
    "of_export",
    "of_info",
    "of_page",
    "of_plan",
    "of_report",
    "of_simulation",
    "of_status",
    "of_supervised",
    "of_swept",
]

Data = dict[str, Any]


def as_json(value: Data) -> str:
    """``value`` as JSON that every parser takes: what is not finite is null."""
    return to_json(_finite(value), indent=2).decode()


def of_plan(plan: RunPlan) -> Data:
    """What ``headgate plan`` found."""
    return {**asdict(plan), "to_run": plan.to_run, "model_cells": plan.model_cells}


def of_report(report: RunReport, export: Export | None = None) -> Data:
    """How a run ended."""
    names = ("run", "status", "exit_code", "accepted", "done", "failed", "held", "skipped", "restored", "seconds")
    usage = report.usage
    return {
        **{name: getattr(report, name) for name in names},
        "spent": None if report.spent is None else report.spent._asdict(),
        "columns": [asdict(column) for column in report.columns],
        "resources": [
            {**_fields(resource, "resource requests peak_in_flight mean_limit busy_s queued_s wasted bound_s"),
             "rate_limited": resource.rate_limited,
             "outcomes": dict(resource.outcomes), "usage": asdict(resource.usage), "seconds": dict(resource.seconds)}
            for resource in report.resources
        ],
        "usage": asdict(usage),
        "wasted": report.wasted,
        "failure_counts": _counts(report.failure_counts),
        "failures": [asdict(entry) for entry in report.failures],
        "advice": report.advice,
        "notices": list(report.notices),
        "resume": report.resume_hint.partition(": ")[2],
        "export": None if export is None else of_export(export),
    }  # fmt: skip


def of_simulation(run: SimulatedRun) -> Data:
    """What ``headgate simulate`` forecasts."""
    resources = [{**asdict(one), "rejected_share": one.rejected_share, "limit": one.limit} for one in run.resources]
    return {
        "seconds": run.seconds,
        "resources": resources,
        "knobs": [asdict(knob) for knob in run.knobs],
        "assumed": list(run.assumed),
        "took_s": run.took_s,
        "report": of_report(run.report),
    }


def of_export(export: Export) -> Data:
    """What was written."""
    beside = export.unfinished_path
    return {
        "path": str(export.path),
        "rows": export.rows,
        "unfinished": export.unfinished,
        "unfinished_path": None if beside is None else str(beside),
    }


def of_info(info: RunInfo) -> Data:
    """A run in a line."""
    found = _fields(info, "run status epoch rows created_at finished_at")
    return {**found, "durability": info.durability.value, "columns": list(info.fingerprints)}


def of_status(overview: RunOverview) -> Data:
    """A run and its columns."""
    return {
        **of_info(overview.info),
        **_fields(overview, "whole failed held pending next_at last_at"),
        "shared": None if overview.shared is None else overview.shared._asdict(),
        "columns": [asdict(column) for column in overview.columns],
    }


def of_page(path: Path, report: StoredReport) -> Data:
    """Where the page about a run is."""
    return {"run": report.overview.info.run, "path": str(path)}


def of_supervised(run: str, ended: Supervised, restarts: Data, report: Mapping[str, object] | None) -> Data:
    """How a run under a supervisor ended; ``report`` is what its last life said, if it said anything."""
    return {
        "run": run,
        **_fields(ended, "status exit_code lives"),
        "told_by": None if ended.decision is None else ended.decision.cycle,
        "report": report,
        "restarts": restarts,
    }


def of_swept(swept: Swept, *, dry_run: bool) -> Data:
    """What a sweep removed, or would remove."""
    return {"dry_run": dry_run, "runs": list(swept.runs), "leftovers": swept.leftovers}


def _counts(counts: Mapping[tuple[str, str], int]) -> list[Data]:
    return [{"column": column, "reason": reason, "count": count} for (column, reason), count in sorted(counts.items())]


def _fields(value: object, names: str) -> Data:
    return {name: getattr(value, name) for name in names.split()}


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in cast("dict[str, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in cast("list[object]", value)]
    return value
