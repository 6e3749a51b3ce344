"""The questions that can be asked, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import (
    admission,
    borrow,
    crash,
    growth,
    history,
    isolation,
    lag,
    live_view,
    memory,
    outage,
    overhead,
    parked,
    pressure,
    quality,
    replicas,
    stores,
    unknown_limit,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..measure import Scenario

__all__ = ["BY_DEFAULT", "SCENARIOS"]

SCENARIOS: Mapping[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        overhead.SCENARIO,
        growth.SCENARIO,
        pressure.SCENARIO,
        history.SCENARIO,
        parked.SCENARIO,
        borrow.SCENARIO,
        isolation.SCENARIO,
        quality.SCENARIO,
        outage.SCENARIO,
        lag.SCENARIO,
        live_view.SCENARIO,
        memory.SCENARIO,
        stores.SCENARIO,
        crash.SCENARIO,
        replicas.SCENARIO,
        admission.SCENARIO,
        unknown_limit.SCENARIO,
    )
}
"""Every scenario."""

BY_DEFAULT = SCENARIOS.keys() - {admission.SCENARIO.name, unknown_limit.SCENARIO.name}
"""What is measured when nothing is named: all but the two that take long and write pages of their own."""
