"""All tests of a store in one class."""

from __future__ import annotations

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from .commits import CommitContract
from .machine import StoreMachine
from .readings import ReadingContract
from .sweeps import SweepContract

__all__ = ["StoreSuite"]


class StoreSuite(CommitContract, ReadingContract, SweepContract):
    """Everything that a store promises: a subclass whose name pytest collects, and which says how to open it."""

    def test_it_behaves_like_the_naive_store(self) -> None:
        """D1 to D6: any sequence of calls, with several handles, crashes and sweeps, as hypothesis makes them up."""
        self.run_machine(settings(max_examples=max(1, round(settings().max_examples * self.share))))

    def run_machine(self, how: settings) -> None:
        """Search for a sequence of calls that the store answers otherwise than the naive one."""

        class Machine(StoreMachine):
            suite = self

        run_state_machine_as_test(Machine, settings=how)
