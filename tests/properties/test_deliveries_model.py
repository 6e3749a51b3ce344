"""Our deliveries under the public suite (D1 to D3, T46), and the suite beside deliveries that break one promise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, settings

from headgate.outbox import Deliveries, Item, MemoryDeliveries, SqliteDeliveries
from headgate.storage import Durability
from headgate.testing.outbox import DeliveriesSuite

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from headgate.outbox import Answer, Kept


class TestMemoryDeliveries(DeliveriesSuite):
    openers = 1
    durable = False

    def open_deliveries(self, place: Path) -> Deliveries:
        return MemoryDeliveries()


class TestSqliteDeliveries(DeliveriesSuite):
    share = 1 / 2

    def open_deliveries(self, place: Path) -> Deliveries:
        return SqliteDeliveries(place / "outbox.db", durability=Durability.PROCESS)


class TestSqliteDeliveriesOnTrio(TestSqliteDeliveries):
    backend = "trio"
    share = 1 / 6


class ForgetsEnds(MemoryDeliveries):
    async def end(self, ended: Sequence[tuple[str, Answer, str]]) -> None:
        await super().end(ended)
        self.ended.clear()


class KeepsBodies(MemoryDeliveries):
    async def end(self, ended: Sequence[tuple[str, Answer, str]]) -> None:
        self.ended.update({key: (answer, message) for key, answer, message in ended})


class TakesLateNotes(MemoryDeliveries):
    async def postpone(self, key: str, attempts: int, not_before: float, receiver: str | None) -> None:
        if key in self._kept:
            kept, body = self._kept[key]
            self._kept[key] = type(kept)(kept.item, min(attempts, kept.attempts), not_before), body
        await super().postpone(key, attempts, not_before, receiver)


class TakesTheLastBody(MemoryDeliveries):
    async def add(self, item: Item, body: bytes) -> bool:
        added = await super().add(item, body)
        if item.key in self._kept:
            self._kept[item.key] = self._kept[item.key][0], body
        return added


class EmptyIsMissing(MemoryDeliveries):
    async def body(self, key: str) -> bytes | None:
        return await super().body(key) or None


class LosesTheOrder(MemoryDeliveries):
    async def load(self) -> list[Kept]:
        return sorted(await super().load(), key=lambda kept: kept.item.key)


@pytest.mark.parametrize(
    "broken", [ForgetsEnds, KeepsBodies, TakesLateNotes, TakesTheLastBody, EmptyIsMissing, LosesTheOrder]
)
def test_the_suite_finds_what_is_wrong(broken: type[MemoryDeliveries]) -> None:
    """Each by the plain tests, and by the machine."""

    class Suite(DeliveriesSuite):
        openers = 1
        durable = False

        def open_deliveries(self, place: Path) -> Deliveries:
            return broken()

    suite = Suite()
    tests = [name for name in dir(suite) if name.startswith("test_") and name != "test_they_behave_like_two_dicts"]
    found: list[str] = []
    for name in tests:
        try:
            getattr(suite, name)()
        except AssertionError:
            found.append(name)
    assert found
    search = settings(
        max_examples=200,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        print_blob=False,
    )
    with pytest.raises((AssertionError, ExceptionGroup)):
        suite.run_machine(search)
