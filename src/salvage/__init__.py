"""What a failure means, and when to try again: a classifier, a table, and the machine that brings tasks back.

Pure throughout: no clock, no waiting, no random numbers but from a generator handed in. The engine performs
what is decided here.
"""

from __future__ import annotations

from .classify import Classifier, CustomClassifier, Failure
from .column_guard import ColumnGuard, ColumnStopped
from .decisions import (
    Block,
    Decision,
    Effect,
    Fail,
    HeldItem,
    Hold,
    LaneGivenUp,
    LaneParked,
    Park,
    Reopened,
    SalvageStatistics,
)
from .kinds import TABLE, Action, FailureKind, Rule
from .ledger import FailureEntry, FailureLedger
from .policy import SalvagePolicy
from .salvage import Salvage
from .stall import StallClock, StallVerdict

__all__ = [
    "TABLE",
    "Action",
    "Block",
    "Classifier",
    "ColumnGuard",
    "ColumnStopped",
    "CustomClassifier",
    "Decision",
    "Effect",
    "Fail",
    "Failure",
    "FailureEntry",
    "FailureKind",
    "FailureLedger",
    "HeldItem",
    "Hold",
    "LaneGivenUp",
    "LaneParked",
    "Park",
    "Reopened",
    "Rule",
    "Salvage",
    "SalvagePolicy",
    "SalvageStatistics",
    "StallClock",
    "StallVerdict",
]
