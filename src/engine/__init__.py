"""The engine: pipelines over rows, under limits, every row accounted for.

Most of this is offered by :mod:`headgate` itself.
"""

from __future__ import annotations

from .engine import Engine, StoreSource
from .faces import amap, aplan, arun, map, run
from .forecast import ColumnForecast, Forecast, Range
from .options import RunOptions
from .pipeline import Column, Pipeline
from .planned import PlannedColumn, RunPlan
from .report import ColumnReport, ResourceReport, RunReport, RunStatus
from .requests import ActiveLease, current_lease, request
from .runs import Run
from .statistics import ResourceStatistics, RunStatistics
from .supervised import SupervisedRun, asupervise, supervise
from .values import FinishedRow

__all__ = [
    "ActiveLease",
    "Column",
    "ColumnForecast",
    "ColumnReport",
    "Engine",
    "FinishedRow",
    "Forecast",
    "Pipeline",
    "PlannedColumn",
    "Range",
    "ResourceReport",
    "ResourceStatistics",
    "Run",
    "RunOptions",
    "RunPlan",
    "RunReport",
    "RunStatistics",
    "RunStatus",
    "StoreSource",
    "SupervisedRun",
    "amap",
    "aplan",
    "arun",
    "asupervise",
    "current_lease",
    "map",
    "request",
    "run",
    "supervise",
]
