"""Run again, stop, or set the poison aside: one bounded decision for all replicas, made while recovery goes on.

See :class:`RestartCoordinator`. Replicas meet in a :class:`DecisionStore`, which the stores of headgate are; verdicts
come from each :class:`RestartSource`: the rules, an analysis service, a function of yours.
"""

from __future__ import annotations

from .child import ChildReport
from .codec import read_record, reopen
from .config import RestartConfig, load_restart
from .configured import configured_sources
from .coordinator import Entry, RestartCoordinator
from .http import HttpSource
from .lives import LifeEnd, Supervised
from .mcp import McpSource
from .ports import DecisionStore, InvalidAnswer, RestartSource, SourceUnreachable
from .printing import render
from .process import ChildStart, ProcessLives
from .record import Action, Basis, Decision, Heard, RunRecord, SourceAnswer
from .rules import Rules
from .sources import CallableSource, RulesSource
from .supervisor import Life, Supervisor
from .values import (
    Aggregation,
    Answer,
    Blocked,
    Cause,
    Cycle,
    Failure,
    FailureCount,
    LateVerdict,
    Ledger,
    PastCycle,
    Suspect,
    TaskId,
    Verdict,
)

__all__ = [
    "Action",
    "Aggregation",
    "Answer",
    "Basis",
    "Blocked",
    "CallableSource",
    "Cause",
    "ChildReport",
    "ChildStart",
    "Cycle",
    "Decision",
    "DecisionStore",
    "Entry",
    "Failure",
    "FailureCount",
    "Heard",
    "HttpSource",
    "InvalidAnswer",
    "LateVerdict",
    "Ledger",
    "Life",
    "LifeEnd",
    "McpSource",
    "PastCycle",
    "ProcessLives",
    "RestartConfig",
    "RestartCoordinator",
    "RestartSource",
    "Rules",
    "RulesSource",
    "RunRecord",
    "SourceAnswer",
    "SourceUnreachable",
    "Supervised",
    "Supervisor",
    "Suspect",
    "TaskId",
    "Verdict",
    "configured_sources",
    "load_restart",
    "read_record",
    "render",
    "reopen",
]
