"""The whole engine against made-up providers, in virtual time: every promise, in cases that hypothesis chooses.

A failing case prints itself as code; put ``check_scenario(Scenario(...), backend=...)`` into a test or a script to see
it again, or run the test again: hypothesis tries its last failure first. ``HYPOTHESIS_PROFILE=deep`` tries 25 times as
many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings

from headgate.testing.strategies import scenarios
from tests.simulation.simulated import check_scenario

if TYPE_CHECKING:
    from headgate.testing import Scenario

# Half a second each, and each is all promises at once. trio turns some four times slower under its clock, and shuffles
# anyway.
EXAMPLES = settings().max_examples
ON_ASYNCIO, ON_TRIO = (EXAMPLES, EXAMPLES // 3) if EXAMPLES > 100 else (EXAMPLES // 2, EXAMPLES // 6)


@settings(max_examples=ON_ASYNCIO)
@given(scenarios())
def test_every_promise_holds_on_asyncio(scenario: Scenario) -> None:
    """A1, S1, S2, S3, S4, S6, S7, S8, V1, V3, V5, D1: see headgate.testing.harness for how each is checked."""
    check_scenario(scenario, backend="asyncio")


@settings(max_examples=ON_TRIO)
@given(scenarios(rows=16))
def test_every_promise_holds_on_trio(scenario: Scenario) -> None:
    """The same on another event loop, which shuffles tasks on purpose."""
    check_scenario(scenario, backend="trio")
