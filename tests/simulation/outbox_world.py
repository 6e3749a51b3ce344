"""A world around an outbox, in virtual time."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

import anyio

from headgate.outbox import (
    Answer,
    DeliveryFailed,
    Item,
    MemoryDeliveries,
    Outbox,
    OutboxOptions,
    Reconciled,
    Reply,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


SLOTS = 8
TIMEOUT_S = 10.0
OPTIONS = OutboxOptions(slots=SLOTS, trips_after=3, reconcile_most=50, timeout_s=TIMEOUT_S, longest_pause_s=60.0)


@dataclass
class World:
    """The receivers behind a sender: what they know, what they got, how they behave."""

    rng: Random
    troubles: float = 0.0
    boot: int = 1
    known: dict[str, set[str]] = field(default_factory=dict[str, "set[str]"])
    got: dict[str, list[str]] = field(default_factory=dict[str, "list[str]"])
    down: set[str] = field(default_factory=set[str])
    hanging: set[str] = field(default_factory=set[str])
    in_flight: int = 0
    most_in_flight: int = 0
    broken: bool = False

    async def deliver(self, item: Item, body: bytes, attempt: int) -> Reply:
        assert body == item.key.encode()
        assert attempt >= 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._answer(item)
        finally:
            self.in_flight -= 1

    async def _answer(self, item: Item) -> Reply:
        if item.destination in self.hanging:
            await anyio.sleep_forever()
        await anyio.sleep(self.rng.uniform(0.01, 1.0))
        if self.broken:
            raise ZeroDivisionError("a sender with a fault")
        if item.destination in self.down or self.rng.random() < self.troubles:
            raise DeliveryFailed("connection refused")
        name = f"boot {self.boot}"
        if item.key not in self.known.setdefault(item.destination, set()):
            return Reply(Answer.GONE, name)
        if self.rng.random() < self.troubles:
            return Reply(Answer.RETRY, name, after_s=2.0)
        self.got.setdefault(item.key, []).append(item.destination)
        if self.rng.random() < self.troubles:
            raise DeliveryFailed("it took it, and the answer was lost")
        return Reply(Answer.ACK, name)

    async def reconcile(self, destination: str, keys: Sequence[str]) -> Reconciled:
        await anyio.sleep(0.1)
        if destination in self.down:
            raise DeliveryFailed("connection refused")
        return Reconciled(self.known.setdefault(destination, set()) & set(keys), f"boot {self.boot}")

    def restart(self, kept: int) -> None:
        """The receivers forget all but a few."""
        self.boot += 1
        for known in self.known.values():
            for key in sorted(known)[kept:]:
                known.discard(key)


def simulate(**options: Any) -> tuple[World, MemoryDeliveries, Outbox]:
    world, deliveries = World(Random(1)), MemoryDeliveries()
    return world, deliveries, Outbox(deliveries, world, options=OutboxOptions(**options), clock=anyio.current_time)


async def add(outbox: Outbox, world: World, key: str, destination: str = "north") -> None:
    world.known.setdefault(destination, set()).add(key)
    assert await outbox.add(key, destination, key.encode())
