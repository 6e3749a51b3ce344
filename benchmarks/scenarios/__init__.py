"""The questions that can be asked, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import admission, history, lag, memory, outage, overhead, parked, pressure, unknown_limit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..measure import Scenario

__all__ = ["SCENARIOS"]

SCENARIOS: Mapping[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        overhead.SCENARIO,
        pressure.SCENARIO,
        history.SCENARIO,
        parked.SCENARIO,
        outage.SCENARIO,
        lag.SCENARIO,
        memory.SCENARIO,
        admission.SCENARIO,
        unknown_limit.SCENARIO,
    )
}
"""Every scenario."""
