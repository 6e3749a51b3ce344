"""The store in memory is the same store when its commits take turns: the suite of every store, record by record.

Every commit of more than one record suspends after each, so that small commits overtake large ones, and what these had
found does not count any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headgate.storage import MemoryStore, RunStore, memory
from headgate.testing.store import MAX_PAYLOAD, StoreSuite

if TYPE_CHECKING:
    from pathlib import Path


class TestMemoryStoreInTurns(StoreSuite):
    """D2, D3, D4: whatever goes on at the same time, each commit is one moment."""

    openers = 1
    durable = False

    @pytest.fixture(autouse=True)
    def _turns(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(memory, "RECORDS_PER_TURN", 1)

    def open_store(self, place: Path) -> RunStore:
        return MemoryStore(max_payload=MAX_PAYLOAD)
