"""An outbox from its first item to the end of its block: what is durable, what is asked again, and who is told."""

from __future__ import annotations

import asyncio
from itertools import chain
from math import inf
from random import Random
from typing import TYPE_CHECKING, Any, Literal

import anyio
import pytest
import trio
from anyio import wait_all_tasks_blocked

from headgate.errors import ConfigError, HeadgateError, StoreError, StoreUnavailable
from headgate.outbox import (
    Answer,
    Item,
    MemoryDeliveries,
    Outbox,
    OutboxOptions,
    Reconciled,
    Reply,
    SqliteDeliveries,
)
from headgate.testing import run_virtual
from tests.simulation.outbox_world import OPTIONS, World, add, simulate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


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
        assert deliveries.ended == {"a": (Answer.ACK, "")}

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


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_whoever_is_cancelled_while_leaving_leaves_nothing_behind(backend: Literal["asyncio", "trio"]) -> None:
    """In the grace of what is in flight: the attempt is ended, the deliveries are closed, the cancellation goes on."""
    seen: list[str] = []

    class Hanging(World):
        async def deliver(self, item: Item, body: bytes, attempt: int) -> Reply:
            try:
                await anyio.sleep_forever()
            finally:
                seen.append("attempt ended")
            raise AssertionError("it hangs for ever")

    class Closed(MemoryDeliveries):
        async def aclose(self) -> None:
            seen.append("closed")

    async def main() -> None:
        with anyio.move_on_after(1.0) as scope:
            async with Outbox(Closed(), Hanging(Random(1)), options=OutboxOptions(grace_s=5.0)) as outbox:
                assert await outbox.add("a", "north", b"")
                await anyio.sleep(0.5)
        assert scope.cancelled_caught
        assert anyio.current_time() == pytest.approx(1.0)
        seen.append("gone")

    run_virtual(main, backend=backend)
    assert seen == ["attempt ended", "closed", "gone"]


@pytest.mark.parametrize(
    "said",
    [
        *(Answer.ACK, ("ack", "boot 1")),
        *(Reply(Answer.RETRY, "boot \ud83d", message="half \ud83d"), Reply(Answer.RETRY, after_s=inf)),
    ],
    ids=repr,
)
def test_what_a_sender_says_wrongly_costs_an_attempt_and_no_item(said: Any, tmp_path: Path) -> None:
    """A sender of the user's own. It ended the outbox, or the item was never sent again."""

    class Strange(World):
        times = 0

        async def deliver(self, item: Item, body: bytes, attempt: int) -> Reply:
            self.times += 1
            return said if self.times == 1 else await super().deliver(item, body, attempt)

    async def main() -> None:
        world = Strange(Random(1))
        async with Outbox(SqliteDeliveries(tmp_path / "outbox.db"), world, rng=Random(1)) as outbox:
            await add(outbox, world, "a")
            with anyio.fail_after(60.0):
                await outbox.drained()
        assert world.times == 2

    run_virtual(main)


@pytest.mark.parametrize("said", [None, Reconciled(None), Reconciled(7, "boot 2")], ids=repr)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
def test_an_answer_about_keys_that_makes_no_sense_is_asked_for_again(said: Any) -> None:
    class Strange(World):
        times = 0

        async def reconcile(self, destination: str, keys: Sequence[str]) -> Reconciled:
            self.times += 1
            return said if self.times == 1 else Reconciled(keys, "boot \ud83d")

    async def main() -> None:
        world, deliveries = Strange(Random(1)), MemoryDeliveries()
        await deliveries.add(Item("a", "north", 0.0, "boot 1"), b"a")
        async with Outbox(deliveries, world, rng=Random(1)) as outbox:
            with anyio.fail_after(60.0):
                await outbox.drained()
        assert world.times == 2

    run_virtual(main)


class Steps(trio.abc.Instrument):
    """How often a task had its turn."""

    taken = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.taken += 1


class Unhurried:
    """Takes all, each in a second."""

    def __init__(self) -> None:
        self.got: list[str] = []

    async def deliver(self, item: Item, body: bytes, attempt: int) -> Reply:
        await anyio.sleep(1.0)
        self.got.append(item.key)
        return Reply(Answer.ACK)

    async def reconcile(self, destination: str, keys: Sequence[str]) -> Reconciled:
        return Reconciled(keys)


FULL = OutboxOptions(slots=4, most_waiting=4)


def test_who_waits_for_room_is_told_when_there_is_some_for_him() -> None:
    """Each end told all who waited: with thousands of rows that are ready, thousands of turns for each delivery."""

    async def main() -> None:
        receiver, steps = Unhurried(), Steps()
        trio.lowlevel.add_instrument(steps)
        async with Outbox(MemoryDeliveries(), receiver, options=FULL) as outbox, anyio.create_task_group() as tasks:
            for number in range(400):
                tasks.start_soon(add_one, outbox, f"{number}")
            await anyio.sleep(99.5)
            assert len(receiver.got) == 396
        assert steps.taken < 400 * 40

    run_virtual(main, backend="trio")


async def add_one(outbox: Outbox, key: str) -> None:
    assert await outbox.add(key, "north", b"")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_who_came_first_is_let_in_first_and_who_goes_leaves_the_place_to_the_next(
    backend: Literal["asyncio", "trio"],
) -> None:
    async def main() -> None:
        added: list[str] = []

        class Listed(MemoryDeliveries):
            async def add(self, item: Item, body: bytes) -> bool:
                added.append(item.key)
                return await super().add(item, body)

        scopes = [anyio.CancelScope() for _ in range(60)]
        going = {at: (at, *range(8 * at, 8 * at + 6)) for at in (1, 2, 3)}  # one is told in that tick, others wait

        async def waits(outbox: Outbox, number: int) -> None:
            with scopes[number]:
                await outbox.add(f"{number:02}", "north", b"")

        async with Outbox(Listed(), Unhurried(), options=OutboxOptions(slots=4, most_waiting=1)) as outbox:
            async with anyio.create_task_group() as tasks:
                for number in range(60):
                    tasks.start_soon(waits, outbox, number)
                    await wait_all_tasks_blocked()
                for at in (1, 2, 3):
                    await anyio.sleep_until(at)
                    for number in going[at]:
                        scopes[number].cancel()
            await outbox.drained()
        assert added == sorted(added)
        stayed = {f"{number:02}" for number in range(60) if number not in chain(*going.values())}
        assert stayed <= set(added)

    run_virtual(main, backend=backend)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_who_waits_for_room_is_told_that_the_outbox_is_left(backend: Literal["asyncio", "trio"]) -> None:
    async def main() -> None:
        told: list[HeadgateError] = []

        async def waits(outbox: Outbox, number: int) -> None:
            try:
                await outbox.add(f"{number}", "north", b"")
            except HeadgateError as error:
                told.append(error)

        outbox = Outbox(MemoryDeliveries(), Unhurried(), options=FULL)
        async with anyio.create_task_group() as tasks, outbox:
            for number in range(10):
                tasks.start_soon(waits, outbox, number)
            await wait_all_tasks_blocked()
        assert len(told) == 6
        assert anyio.current_time() <= 1.5

    run_virtual(main, backend=backend)


def test_what_breaks_an_outbox_comes_with_its_cause() -> None:
    """The error was raised, and what had led to it was taken away."""

    class Broken(MemoryDeliveries):
        async def end(self, ended: Sequence[tuple[str, Answer, str]]) -> None:
            try:
                raise OSError("the disk has gone")
            except OSError as error:
                raise StoreError("nothing is kept") from error

    async def main() -> None:
        async with Outbox(Broken(), Unhurried()) as outbox:
            await add_one(outbox, "a")
            await outbox.drained()

    with pytest.raises(StoreError, match="nothing is kept") as caught:
        run_virtual(main)
    assert isinstance(caught.value.__cause__, OSError)


class Leaking(Unhurried):
    """Awaits what somebody else has cancelled, the first time."""

    async def deliver(self, item: Item, body: bytes, attempt: int) -> Reply:
        if attempt == 1:
            raise asyncio.CancelledError
        return await super().deliver(item, body, attempt)


def test_t62_what_somebody_else_cancels_in_a_sender_costs_an_attempt() -> None:
    """The block of the outbox ended in the middle, without a word (on asyncio alone: trio leaks no cancellation)."""
    reached: list[bool] = []

    async def main() -> None:
        receiver = Leaking()
        async with Outbox(MemoryDeliveries(), receiver, options=FULL) as outbox:
            await add_one(outbox, "a")
            await outbox.drained()
            reached.append(True)
        assert receiver.got == ["a"]

    run_virtual(main)
    assert reached


def test_t62_what_somebody_else_cancels_where_deliveries_are_kept_is_an_error() -> None:
    class Away(MemoryDeliveries):
        async def end(self, ended: Sequence[tuple[str, Answer, str]]) -> None:
            raise asyncio.CancelledError

    async def main() -> None:
        async with Outbox(Away(), Unhurried(), options=FULL) as outbox:
            await add_one(outbox, "a")
            await outbox.drained()

    with pytest.raises(StoreError, match="cancelled by somebody else"):
        run_virtual(main)
