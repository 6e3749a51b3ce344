"""Tells at the end of a session how much virtual time its simulations covered."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.simulation.simulated import covered

if TYPE_CHECKING:
    from collections.abc import Generator

WHAT = "simulated"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """Put what the test covered into its report, which also reaches the session when tests run in other processes."""
    if covered:
        item.user_properties.append((WHAT, dict(covered)))
        covered.clear()
    return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    total: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "teardown":
                for name, value in report.user_properties:
                    total.update(value if name == WHAT else {})
    if total:
        terminalreporter.write_line(
            f"simulated: {total['seconds'] / 3600:.1f} virtual hours in {total['runs']} runs, {total['starts']} body "
            f"calls, {total['checks']} times every invariant checked"
        )
