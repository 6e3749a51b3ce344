"""The outbox with its shell, in virtual time: receivers that fail, hang, restart and forget, a store that comes and
goes, a process that is killed again and again. Every item comes to its end, and whoever waits for it has been told.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.errors import ResultCorrupt, StoreError, StoreUnavailable
from headgate.outbox import (
    Answer,
    MemoryDeliveries,
    Outbox,
)
from headgate.testing import run_virtual
from tests.simulation.outbox_world import OPTIONS, SLOTS, World, add, simulate

if TYPE_CHECKING:
    from collections.abc import Sequence


class FlakyDeliveries(MemoryDeliveries):
    """Does not answer now and then, sometimes after having done what it was asked."""

    def __init__(self, rng: Random, troubles: float) -> None:
        super().__init__()
        self.rng = rng
        self.troubles = troubles

    async def _perhaps(self) -> None:
        await anyio.sleep(0.01)
        if self.rng.random() < self.troubles:
            raise StoreUnavailable("locked")

    async def body(self, key: str) -> bytes | None:
        await self._perhaps()
        return await super().body(key)

    async def postpone(self, key: str, attempts: int, not_before: float, receiver: str | None) -> None:
        await self._perhaps()
        await super().postpone(key, attempts, not_before, receiver)
        await self._perhaps()

    async def end(self, ended: Sequence[tuple[str, Answer, str]]) -> None:
        await self._perhaps()
        await super().end(ended)
        await self._perhaps()


class Story:
    """What happens in one example."""

    def __init__(self, seed: int, troubles: float) -> None:
        self.rng = Random(seed)
        self.world = World(self.rng, troubles)
        self.deliveries = FlakyDeliveries(self.rng, troubles)
        self.added: dict[str, str] = {}

    def outbox(self) -> Outbox:
        return Outbox(self.deliveries, self.world, options=OPTIONS, clock=anyio.current_time, rng=self.rng)

    async def life(self, steps: Sequence[str]) -> None:
        """One life of the process, which ends with the steps or is killed."""
        with anyio.CancelScope() as scope:
            async with self.outbox() as outbox:
                for step in steps:
                    await self.play(outbox, step)
                    if step == "kill":
                        scope.cancel()  # at the next await everything is gone
                await anyio.sleep(self.rng.uniform(0, 5))

    async def play(self, outbox: Outbox, step: str) -> None:
        world = self.world
        if step == "add":
            for destination in ("north", "south"):
                key = f"{destination} {len(self.added)}"
                world.known.setdefault(destination, set()).add(key)
                self.added[key] = destination
                assert await outbox.add(key, destination, key.encode(), receiver=f"boot {world.boot}")
                assert not await outbox.add(key, destination, b"again")
        elif step == "receiver restarts":
            world.restart(self.rng.randint(0, 3))
        elif step == "south falls":
            world.down ^= {"south"}
        elif step == "south hangs":
            world.hanging ^= {"south"}
        await anyio.sleep(self.rng.uniform(0, 3))

    async def last_life(self) -> None:
        """Once everybody is well, everything comes to its end."""
        self.world.down.clear()
        self.world.hanging.clear()
        self.world.troubles = self.deliveries.troubles = 0.0
        async with self.outbox() as outbox:
            assert len(outbox) == len(self.added) - len(self.deliveries.ended)
            with anyio.fail_after(3600):
                await outbox.drained()
        assert await self.deliveries.load() == []

    def check(self) -> None:
        assert self.deliveries.ended.keys() == self.added.keys()
        assert self.world.most_in_flight <= SLOTS
        for key, (answer, _) in self.deliveries.ended.items():
            if answer is Answer.ACK:
                assert set(self.world.got[key]) == {self.added[key]}
            else:
                assert answer is Answer.GONE
                assert key not in self.world.known[self.added[key]], "only what the receiver forgot is gone"


STEPS = ["add"] * 4 + ["kill", "receiver restarts", "south falls", "south hangs"]


@settings(max_examples=max(25, settings().max_examples // 2))
@given(
    seed=st.integers(0, 2**32),
    troubles=st.sampled_from([0.0, 0.1, 0.4]),
    lives=st.lists(st.lists(st.sampled_from(STEPS), min_size=1, max_size=6), min_size=1, max_size=3),
)
def test_everything_comes_to_its_end_and_everyone_is_told(seed: int, troubles: float, lives: list[list[str]]) -> None:
    story = Story(seed, troubles)

    async def main() -> None:
        for steps in lives:
            await story.life(steps)
        await story.last_life()

    run_virtual(main)
    story.check()


def test_t47_a_receiver_that_hangs_costs_its_own_items_time_and_no_others() -> None:
    """Slots are taken for one attempt of bounded length; after a few the breaker keeps the hanging one to a probe."""

    async def main() -> None:
        world, _, outbox = simulate(slots=SLOTS, timeout_s=10.0, trips_after=3, longest_pause_s=60.0)
        world.hanging.add("south")
        async with outbox:
            for number in range(40):
                await add(outbox, world, f"s{number}", "south")
            await anyio.sleep(30)
            for number in range(200):
                await add(outbox, world, f"n{number}")
            # 200 attempts of half a second on seven of eight slots take 15 s.
            await anyio.sleep(25)
            assert len(world.got) == 200
            world.hanging.clear()
            with anyio.fail_after(200):
                await outbox.drained()
        assert len(world.got) == 240

    run_virtual(main)


def test_not_before_times_survive() -> None:
    """An attempt that was put off is not made earlier because the process restarted (V4, for deliveries)."""

    async def main() -> None:
        world, deliveries, outbox = simulate(first_pause_s=100.0)
        world.down.add("north")
        async with outbox:
            await add(outbox, world, "a")
            await anyio.sleep(2)
        world.down.clear()
        (kept,) = await deliveries.load()
        assert kept.attempts == 1
        assert 75 < kept.not_before < 130
        async with Outbox(deliveries, world, clock=anyio.current_time) as again:
            await anyio.sleep(70)
            assert world.got == {}
            with anyio.fail_after(100):
                await again.drained()
            assert anyio.current_time() >= kept.not_before

    run_virtual(main)


def test_a_store_that_breaks_for_good_ends_the_outbox_and_loses_nothing() -> None:
    class Broken(MemoryDeliveries):
        async def end(self, ended: Sequence[tuple[str, Answer, str]]) -> None:
            raise StoreError("not a database")

    async def main() -> None:
        world, deliveries = World(Random(1)), Broken()

        async def deliver_one() -> None:
            async with Outbox(deliveries, world) as outbox:
                await add(outbox, world, "a")
                await outbox.drained()

        with pytest.raises(StoreError, match="not a database"):
            await deliver_one()
        assert [kept.item.key for kept in await deliveries.load()] == ["a"]

    run_virtual(main)


def test_a_sender_with_a_fault_loses_nothing() -> None:
    async def main() -> None:
        world, deliveries, outbox = simulate()
        world.broken = True
        async with outbox:
            await add(outbox, world, "a")
            await anyio.sleep(20)
            world.broken = False
            await outbox.drained()
        assert deliveries.ended == {"a": (Answer.ACK, "")}

    run_virtual(main)


def test_what_cannot_be_read_any_more_is_rejected_with_the_reason() -> None:
    class Damaged(MemoryDeliveries):
        async def body(self, key: str) -> bytes | None:
            raise ResultCorrupt(f"the body of {key!r} does not match its checksum")

    async def main() -> None:
        world, deliveries = World(Random(1)), Damaged()
        async with Outbox(deliveries, world) as outbox:
            await add(outbox, world, "a")
            await outbox.drained()
        assert deliveries.ended == {"a": (Answer.REJECTED, "the body of 'a' does not match its checksum")}

    run_virtual(main)
