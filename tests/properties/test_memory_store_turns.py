"""The store in memory is the same store when its commits take turns: the model of every store, record by record.

Every commit of more than one record suspends after each, so that small commits overtake large ones, and what these had
found does not count any more. The model applies them in the order in which they end.
"""

from __future__ import annotations

from unittest.mock import patch

from headgate.storage import memory
from tests.properties.test_store_model import MemoryMachine


class MemoryInTurnsMachine(MemoryMachine):
    """D2, D3, D4: whatever goes on at the same time, each commit is one moment."""

    in_order_of_completion = True

    def __init__(self) -> None:
        self.patch = patch.object(memory, "RECORDS_PER_TURN", 1)
        self.patch.start()
        super().__init__()

    def teardown(self) -> None:
        super().teardown()
        self.patch.stop()


TestMemoryStoreInTurns = MemoryInTurnsMachine.TestCase
