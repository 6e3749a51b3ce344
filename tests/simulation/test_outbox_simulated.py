"""The outbox with its shell, in virtual time: receivers that fail, hang, restart and forget, a store that comes and
goes, a process that is killed again and again. Every item comes to its end, and whoever waits for it has been told.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.errors import ConfigError, HeadgateError, ResultCorrupt, StoreError, StoreUnavailable
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
from headgate.testing import run_virtual

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


def simulate(**options: Any) -> tuple[World, MemoryDeliveries, Outbox]:
    world, deliveries = World(Random(1)), MemoryDeliveries()
    return world, deliveries, Outbox(deliveries, world, options=OutboxOptions(**options), clock=anyio.current_time)


async def add(outbox: Outbox, world: World, key: str, destination: str = "north") -> None:
    world.known.setdefault(destination, set()).add(key)
    assert await outbox.add(key, destination, key.encode())


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


def test_an_attempt_in_flight_gets_its_grace_when_the_block_is_left() -> None:
    async def main() -> None:
        world, deliveries, outbox = simulate()
        async with outbox:
            await add(outbox, world, "a")
            await anyio.sleep(0.001)
        assert deliveries.ended == {"a": (Answer.ACK, "")}
        world.hanging.add("north")
        started = anyio.current_time()
        async with Outbox(deliveries, world, options=OutboxOptions(grace_s=3.0)) as again:
            await add(again, world, "b")
            await anyio.sleep(0.001)
        assert anyio.current_time() - started == pytest.approx(3.001)
        assert [kept.item.key for kept in await deliveries.load()] == ["b"]

    run_virtual(main)


@pytest.mark.parametrize("option", [{"slots": 3}, {"timeout_s": 0.0}, {"trips_after": 0}, {"first_pause_s": -1.0}])
def test_options_that_cannot_be_meant(option: dict[str, Any]) -> None:
    (name,) = option
    with pytest.raises(ConfigError, match=name):
        OutboxOptions(**option)


def test_drained_means_that_it_is_durable() -> None:
    class Slow(MemoryDeliveries):
        async def end(self, ended: Sequence[tuple[str, Answer, str]]) -> None:
            await anyio.sleep(5)
            await super().end(ended)

    async def main() -> None:
        world, deliveries = World(Random(1)), Slow()
        async with Outbox(deliveries, world) as outbox:
            await add(outbox, world, "a")
            await anyio.sleep(2)
            assert world.got.keys() == {"a"}
            await outbox.drained()
            assert deliveries.ended == {"a": (Answer.ACK, "")}

    run_virtual(main)


def test_nothing_new_is_sent_while_the_block_is_left() -> None:
    async def main() -> None:
        world, deliveries, outbox = simulate(slots=4, grace_s=30.0)
        async with outbox:
            for number in range(20):
                await add(outbox, world, f"a{number}")
            await anyio.sleep(0.001)
        assert len(world.got) == 4
        assert len(await deliveries.load()) == 16

    run_virtual(main)


def test_a_receiver_that_could_not_be_asked_is_asked_again() -> None:
    async def main() -> None:
        world, deliveries, outbox = simulate(first_pause_s=1.0, trips_after=10_000)
        world.down.add("north")
        async with outbox:
            for number in range(20):
                world.known.setdefault("north", set()).add(f"a{number}")
                assert await outbox.add(f"a{number}", "north", b"a%d" % number, receiver="boot 0")
            await anyio.sleep(5)
            assert await outbox.add("b", "north", b"b", receiver="boot 1")  # boot 0 is over, so the others are stale
            await anyio.sleep(60)
            world.down.clear()
            with anyio.fail_after(600):
                await outbox.drained()
        assert {key for key, (answer, _) in deliveries.ended.items() if answer is Answer.ACK} == {
            f"a{number}" for number in range(20)
        }

    run_virtual(main)


def test_a_wall_clock_that_jumped_holds_nothing_up() -> None:
    async def main() -> None:
        world, deliveries = World(Random(1)), MemoryDeliveries()
        await deliveries.add(Item("a", "north", 0.0), b"a")
        await deliveries.postpone("a", 1, 1e9, None)
        world.known["north"] = {"a"}
        async with Outbox(deliveries, world, options=OPTIONS, clock=anyio.current_time) as outbox:
            with anyio.fail_after(OPTIONS.longest_pause_s + 10):
                await outbox.drained()

    run_virtual(main)


def test_who_asked_for_an_item_is_known_in_the_next_life() -> None:
    """What a receiver waited for before its restart is not sent unasked, though this process restarted too."""

    async def main() -> None:
        world, deliveries, outbox = simulate(first_pause_s=100.0)
        world.troubles = 0.0
        async with outbox:
            assert await outbox.add("first", "north", b"first")  # unknown there: gone, but by whom is known now
            await anyio.sleep(2)
            world.down.add("north")
            assert await outbox.add("a", "north", b"a")
            await anyio.sleep(2)
        (kept,) = await deliveries.load()
        assert kept.item.receiver == "boot 1"

    run_virtual(main)


def test_an_item_whose_adding_is_cancelled_is_sent_all_the_same() -> None:
    """It was durable, and never sent before the next life: adding it again said that it was there."""

    class Slow(MemoryDeliveries):
        async def add(self, item: Item, body: bytes) -> bool:
            added = await super().add(item, body)
            await anyio.sleep(1)
            return added

    async def main() -> None:
        world, deliveries = World(Random(1)), Slow()
        world.known["north"] = {"a"}
        async with Outbox(deliveries, world) as outbox:
            with anyio.move_on_after(0.5):
                await outbox.add("a", "north", b"a")
            with anyio.fail_after(60):
                await outbox.drained()
        assert deliveries.ended == {"a": (Answer.ACK, "")}

    run_virtual(main)


def test_who_waits_for_an_outbox_that_is_left_is_told() -> None:
    async def main() -> None:
        world, deliveries, outbox = simulate(first_pause_s=100.0)
        world.down.add("north")  # nothing is in flight when the block is left: it waits for its next attempt
        with pytest.raises(HeadgateError, match="async with"):
            await outbox.add("early", "north", b"early")

        async def wait() -> None:
            with pytest.raises(HeadgateError, match="async with"):
                await outbox.drained()

        async with anyio.create_task_group() as tasks, outbox:
            await add(outbox, world, "a")
            tasks.start_soon(wait)
            await anyio.sleep(1)
        with pytest.raises(HeadgateError, match="async with"):
            await outbox.add("late", "north", b"late")
        assert [kept.item.key for kept in await deliveries.load()] == ["a"]

    run_virtual(main)


def test_a_store_that_is_away_holds_deliveries_up_before_answers_pile_up() -> None:
    class Away(MemoryDeliveries):
        away = True

        async def end(self, ended: Sequence[tuple[str, Answer, str]]) -> None:
            if self.away:
                raise StoreUnavailable("away")
            await super().end(ended)

    async def main() -> None:
        world, deliveries = World(Random(1)), Away()
        async with Outbox(deliveries, world, options=OutboxOptions(slots=4)) as outbox:
            for number in range(200):
                await add(outbox, world, f"a{number}")
            await anyio.sleep(100)
            assert len(world.got) <= 5 * 4
            deliveries.away = False
            with anyio.fail_after(600):
                await outbox.drained()
        assert len(deliveries.ended) == 200

    run_virtual(main)
