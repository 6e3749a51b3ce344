"""Admission control, scheduling and salvage for programs that build data sets with model APIs.

Two lines to start::

    import headgate
    report = headgate.map(ask, rows, model="openai/gpt-x", store="answers.db")

See :class:`Pipeline` for several columns, :class:`Engine` for full control, :mod:`headgate.testing` for a provider to
test against.
"""

from __future__ import annotations

from .admission import AdmissionController, Limits, load_limits
from .clients import attach
from .engine import (
    ActiveLease,
    Engine,
    FinishedRow,
    Forecast,
    Pipeline,
    PlannedColumn,
    Run,
    RunOptions,
    RunPlan,
    RunReport,
    RunStatistics,
    RunStatus,
    SupervisedRun,
    amap,
    aplan,
    arun,
    asupervise,
    current_lease,
    map,
    request,
    run,
    supervise,
)
from .engine.faces import plan  # beside `headgate.engine.plan`, which is a module
from .errors import (
    AdmissionDenied,
    AdmissionTimeout,
    ConfigError,
    HeadgateError,
    InputError,
    ModelTimeout,
    PipelineError,
    ProviderTimeout,
    RowFailed,
    StoreError,
)
from .export import Export, aexport_run, export_run, write_jsonl, write_parquet
from .prices import Budget, Price
from .salvage import FailureKind
from .storage import FileStore, MemoryStore, SqliteStore
from .values import Outcome, Pressure, ResourceKey, Usage

__version__ = "0.1.0"

__all__ = [
    "ActiveLease",
    "AdmissionController",
    "AdmissionDenied",
    "AdmissionTimeout",
    "Budget",
    "ConfigError",
    "Engine",
    "Export",
    "FailureKind",
    "FileStore",
    "FinishedRow",
    "Forecast",
    "HeadgateError",
    "InputError",
    "Limits",
    "MemoryStore",
    "ModelTimeout",
    "Outcome",
    "Pipeline",
    "PipelineError",
    "PlannedColumn",
    "Pressure",
    "Price",
    "ProviderTimeout",
    "ResourceKey",
    "RowFailed",
    "Run",
    "RunOptions",
    "RunPlan",
    "RunReport",
    "RunStatistics",
    "RunStatus",
    "SqliteStore",
    "StoreError",
    "SupervisedRun",
    "Usage",
    "__version__",
    "aexport_run",
    "amap",
    "aplan",
    "arun",
    "asupervise",
    "attach",
    "current_lease",
    "export_run",
    "load_limits",
    "map",
    "plan",
    "request",
    "run",
    "supervise",
    "write_jsonl",
    "write_parquet",
]
