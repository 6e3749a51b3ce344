"""Test your pipelines, and ours, without a provider: virtual time, a virtual provider, every promise checked.

:func:`simulate` forecasts a run of your pipeline under limits that you name. :func:`check_pipeline` simulates it with
the faults, stops and restarts that you ask for, and checks every promise of the engine on the way. Both go on in
virtual time; :class:`VirtualProvider` and :func:`run_virtual` are their parts.
:class:`ProviderProcess` serves the same provider over HTTP. :mod:`headgate.testing.strategies` makes up cases for
hypothesis, which it needs; trio and aiohttp are needed only where they are asked for.
"""

from __future__ import annotations

from .assumed import Assumptions, ColumnAssumption, ModelAssumption, load_assumptions
from .clock import DeadlockError, LivelockError, VirtualLoop, run_virtual
from .harness import SimulationReport, check_pipeline, check_scenario
from .ledger import assert_ledger
from .provider import (
    Capacity,
    Change,
    Dialect,
    Fault,
    Faults,
    Latency,
    ModelSpec,
    OutputTokens,
    ProviderProcess,
    ProviderResponseError,
    ProviderSpec,
    RetryAfter,
    VirtualProvider,
)
from .scenario import Cancel, ColumnShape, Leave, Scenario, Stop, Surroundings
from .simulation import Knob, SimulatedResource, SimulatedRun, simulate
from .witness import PromiseBroken

__all__ = [
    "Assumptions",
    "Cancel",
    "Capacity",
    "Change",
    "ColumnAssumption",
    "ColumnShape",
    "DeadlockError",
    "Dialect",
    "Fault",
    "Faults",
    "Knob",
    "Latency",
    "Leave",
    "LivelockError",
    "ModelAssumption",
    "ModelSpec",
    "OutputTokens",
    "PromiseBroken",
    "ProviderProcess",
    "ProviderResponseError",
    "ProviderSpec",
    "RetryAfter",
    "Scenario",
    "SimulatedResource",
    "SimulatedRun",
    "SimulationReport",
    "Stop",
    "Surroundings",
    "VirtualLoop",
    "VirtualProvider",
    "assert_ledger",
    "check_pipeline",
    "check_scenario",
    "load_assumptions",
    "run_virtual",
    "simulate",
]
