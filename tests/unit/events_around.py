"""Events of what happens around runs, for the tests of events: restarts and deliveries, in virtual time."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import anyio

from headgate.errors import ResultCorrupt
from headgate.outbox import Answer, DeliveryFailed, Item, MemoryDeliveries, Outbox, OutboxOptions, Reconciled, Reply
from headgate.restart import Cause, Life, LifeEnd, RestartConfig, RestartCoordinator, Supervisor
from headgate.storage import MemoryStore
from headgate.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headgate.events import Event, EventSink

WALL_S = 1e9
CRASHED = LifeEnd("crashed", 1, Cause("MemoryError", message="no room"), finished=False)


def restarts(*ends: LifeEnd, budget: int = 5, sink: EventSink | None = None, nobody: bool = False) -> list[Event]:
    """What a supervisor says of lives that end so, to ``sink``, or to ``nobody``."""
    events: list[Event] = []
    listener = None if nobody else sink or events.append
    left = list(ends)

    async def live(_: Life) -> LifeEnd:
        await anyio.sleep(1.0)
        return left.pop(0)

    async def main() -> None:
        store, config = MemoryStore(), RestartConfig(first_pause=4.0, longest_pause=4.0, budget=budget)
        async with RestartCoordinator("tickets", store, config=config, clock=lambda: WALL_S) as coordinator:
            await Supervisor(coordinator, live, rng=Random(1), events=listener).run()

    run_virtual(main)
    return events


class Receiver:
    """Says what the key of an item says; of what it is asked about it knows nothing."""

    boot = "boot 1"

    async def deliver(self, item: Item, body: bytes, attempt: int) -> Reply:
        await anyio.sleep(0.1)
        if item.key.startswith("away") and attempt == 1:
            raise DeliveryFailed("connection refused")
        said = {one.value: one for one in Answer}.get(item.key.split()[0], Answer.ACK)
        later = said is Answer.RETRY and attempt > 1
        return Reply(Answer.ACK if later else said, self.boot, message=f"it says {said}")

    async def reconcile(self, destination: str, keys: Sequence[str]) -> Reconciled:
        return Reconciled(frozenset(), self.boot)


class Damaged(MemoryDeliveries):
    """One of its bodies is not what it was."""

    async def body(self, key: str) -> bytes | None:
        if key == "damaged":
            raise ResultCorrupt("the body does not match its checksum")
        return await super().body(key)


def deliveries(*keys: str, restarted: bool = False, sink: EventSink | None = None, nobody: bool = False) -> list[Event]:
    """What an outbox says of these; ``restarted``: of receivers that have forgotten them since."""
    events: list[Event] = []
    listener = None if nobody else sink or events.append

    async def main() -> None:
        kept = Damaged()
        for key in keys if restarted else ():
            await kept.add(Item(key, "https://gateway/done", 0.0, "boot 0", "tickets"), b"body")
        options, receiver = OutboxOptions(timeout_s=10.0), Receiver()
        async with Outbox(
            kept, receiver, options=options, clock=lambda: WALL_S, rng=Random(1), events=listener
        ) as outbox:
            if restarted:
                await outbox.add("new", "https://gateway/done", b"body", receiver="boot 1")
            for key in () if restarted else keys:
                await outbox.add(key, "https://gateway/done", b"body", run="tickets")
            await outbox.drained()

    run_virtual(main)
    return events
