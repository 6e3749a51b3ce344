"""Test your pipelines, and ours, without a provider: virtual time, a virtual provider, every promise checked.

:func:`check_pipeline` simulates a pipeline of yours in virtual time, with the faults, stops and restarts that you ask
for, and checks every promise of the engine on the way. :class:`VirtualProvider` and :func:`run_virtual` are its parts;
:class:`ProviderProcess` serves the same provider over HTTP. :mod:`headgate.testing.strategies` makes up cases for
hypothesis, which it needs; trio and aiohttp are needed only where they are asked for.
"""

from __future__ import annotations

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
from .witness import PromiseBroken

__all__ = [
    "Cancel",
    "Capacity",
    "Change",
    "ColumnShape",
    "DeadlockError",
    "Dialect",
    "Fault",
    "Faults",
    "Latency",
    "Leave",
    "LivelockError",
    "ModelSpec",
    "OutputTokens",
    "PromiseBroken",
    "ProviderProcess",
    "ProviderResponseError",
    "ProviderSpec",
    "RetryAfter",
    "Scenario",
    "SimulationReport",
    "Stop",
    "Surroundings",
    "VirtualLoop",
    "VirtualProvider",
    "assert_ledger",
    "check_pipeline",
    "check_scenario",
    "run_virtual",
]
