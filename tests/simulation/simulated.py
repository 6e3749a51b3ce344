"""Simulations of a test session: runs them, and adds up the virtual time that they cover (see conftest.py)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal

import headgate.testing

if TYPE_CHECKING:
    from headgate.testing import Scenario, SimulationReport

covered: Counter[str] = Counter()
"""Since the last test ended: virtual seconds, body calls, full checks, simulations."""


def count(report: SimulationReport, runs: int = 1) -> SimulationReport:
    covered.update(
        seconds=round(runs * report.seconds), starts=runs * report.starts, checks=runs * report.checks, runs=runs
    )
    return report


def check_scenario(scenario: Scenario, *, backend: Literal["asyncio", "trio"] = "asyncio") -> SimulationReport:
    """Check a scenario, and count the time that it covers: on asyncio twice, since it is replayed (S8)."""
    try:
        found = headgate.testing.check_scenario(scenario, backend=backend)
    except BaseException:
        print(f"replay with: check_scenario({scenario!r}, backend={backend!r})")
        raise
    return count(found, 2 if backend == "asyncio" else 1)
