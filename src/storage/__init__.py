"""Runs that survive: rows, outcomes of cells, held-back cells, committed durably and fenced by epoch.

:class:`RunStore` says what a store promises. :class:`SqliteStore` is the default for work that matters,
:class:`FileStore` for several processes or hosts that share a directory, :class:`PostgresStore` for those that share a
database, :class:`MemoryStore` the one for tests and throw-away runs; ``open_store`` picks by what the user gave.
"""

from __future__ import annotations

from .codec import decode, digest_of, encode, encode_row, stored_form
from .files import FileStore
from .group_work import work_on_groups
from .memory import MemoryStore
from .opening import find_store, open_store
from .overview import ColumnOverview, FailedCell, RunOverview, read_overview
from .ports import (
    NOT_RENEWED,
    RUNNING,
    TERMINAL,
    Batch,
    CellRecord,
    CellStatus,
    Durability,
    HeldRecord,
    RowRecord,
    RunHandle,
    RunInfo,
    RunStore,
    SpentRecord,
    StoredRow,
    Swept,
)
from .postgres import PostgresStore
from .sharing import Claim, Progress, SharedRun, SharedState, SharingStore
from .sqlite import SqliteStore

__all__ = [
    "NOT_RENEWED",
    "RUNNING",
    "TERMINAL",
    "Batch",
    "CellRecord",
    "CellStatus",
    "Claim",
    "ColumnOverview",
    "Durability",
    "FailedCell",
    "FileStore",
    "HeldRecord",
    "MemoryStore",
    "PostgresStore",
    "Progress",
    "RowRecord",
    "RunHandle",
    "RunInfo",
    "RunOverview",
    "RunStore",
    "SharedRun",
    "SharedState",
    "SharingStore",
    "SpentRecord",
    "SqliteStore",
    "StoredRow",
    "Swept",
    "decode",
    "digest_of",
    "encode",
    "encode_row",
    "find_store",
    "open_store",
    "read_overview",
    "stored_form",
    "work_on_groups",
]
