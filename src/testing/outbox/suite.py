"""All tests of deliveries in one class."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

import anyio
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from ...outbox.ports import Kept
from ...outbox.values import Answer, Item
from .machine import DeliveriesMachine
from .maker import DeliveriesMaker

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ...outbox.ports import Deliveries

__all__ = ["DeliveriesSuite"]

_FIRST: Final = Item("run/0", "north", 1.5, "boot 1", "run")
_SECOND: Final = Item("run/1", "north", 1.5)


class DeliveriesSuite(DeliveriesMaker):
    """Everything that deliveries promise: a subclass whose name pytest collects, and which says how to open them."""

    def test_a_key_is_taken_once(self) -> None:
        """D3: in whatever life, also after its end; and what was taken first is what is sent."""

        async def body(here: Deliveries, there: Deliveries) -> None:
            assert await here.add(_FIRST, b"first")
            assert not await there.add(_FIRST, b"again")
            assert await there.body(_FIRST.key) == b"first"
            await there.end([(_FIRST.key, Answer.ACK, "")])
            assert not await here.add(_FIRST, b"again")

        self._play(body)

    def test_t46_an_empty_body_is_not_a_missing_one(self) -> None:
        """T46: empty could not be told from none."""

        async def body(here: Deliveries, there: Deliveries) -> None:
            assert await here.add(_FIRST, b"")
            assert await there.body(_FIRST.key) == b""
            assert await there.body(_SECOND.key) is None

        self._play(body)

    def test_an_end_frees_the_body_and_is_the_last_word(self) -> None:
        """Whatever the answer is, once or again, and whatever is noted late."""

        async def body(here: Deliveries, there: Deliveries) -> None:
            for number, answer in enumerate((Answer.ACK, Answer.GONE, Answer.REJECTED)):
                item = Item(f"run/{number}", "north", 1.5)
                assert await here.add(item, b"body")
                await there.end([(item.key, answer, "said")])
                await here.end([(item.key, Answer.REJECTED, "later")])
                await here.postpone(item.key, 9, 5.0, None)
                assert await here.body(item.key) is None
            assert await here.load() == await there.load() == []

        self._play(body)

    def test_notes_come_late(self) -> None:
        """Attempts and not-before times are kept; an earlier attempt, noted later, changes nothing."""

        async def body(here: Deliveries, there: Deliveries) -> None:
            assert await here.add(_SECOND, b"body")
            await here.postpone(_SECOND.key, 2, 1e9 + 0.125, "boot 2")
            await here.postpone(_SECOND.key, 1, 7.0, None)
            assert await there.load() == [Kept(Item("run/1", "north", 1.5, "boot 2"), 2, 1e9 + 0.125)]

        self._play(body)

    def test_they_come_back_in_the_order_in_which_they_were_added(self) -> None:
        """Also after others before them have come to their end."""

        async def body(here: Deliveries, there: Deliveries) -> None:
            for number in range(20):
                await (here, there)[number % 2].add(Item(f"{number:x}", "north", 0.0), b"")
            await here.end([(f"{number:x}", Answer.ACK, "") for number in (19, 3, 0)])
            assert await here.add(Item("last", "north", 0.0), b"")
            left = [f"{number:x}" for number in range(20) if number not in {19, 3, 0}]
            assert [kept.item.key for kept in await there.load()] == [*left, "last"]

        self._play(body)

    def test_it_is_all_there_in_the_next_life(self) -> None:
        """D1: after closing, and after nobody closed anything."""
        if not self.durable:
            return

        async def main() -> None:
            with self.new_place() as place:
                async with AsyncExitStack() as exits:
                    for life in range(4):
                        deliveries = self.open_deliveries(place)
                        exits.push_async_callback(deliveries.aclose)
                        assert [kept.attempts for kept in await deliveries.load()] == [1] * life
                        for number in range(life):
                            assert await deliveries.body(f"{number}") == b"%d" % number
                        assert await deliveries.add(Item(f"{life}", "north", 0.0), b"%d" % life)
                        await deliveries.postpone(f"{life}", 1, 1e9, None)
                        if life % 2:
                            await deliveries.aclose()

        anyio.run(main, backend=self.backend)

    def test_they_behave_like_two_dicts(self) -> None:
        """D1 to D3: any sequence of calls, at the same time, with crashes, as hypothesis makes them up."""
        self.run_machine(settings(max_examples=max(1, round(settings().max_examples * self.share))))

    def run_machine(self, how: settings) -> None:
        """Search for a sequence of calls that is answered otherwise than by two dicts."""

        class Machine(DeliveriesMachine):
            suite = self

        run_state_machine_as_test(Machine, settings=how)

    def _play(self, body: Callable[[Deliveries, Deliveries], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            with self.new_place() as place:
                async with AsyncExitStack() as exits:
                    first = self.open_deliveries(place)
                    exits.push_async_callback(first.aclose)
                    second = self.open_deliveries(place) if self.openers > 1 else first
                    exits.push_async_callback(second.aclose)
                    await body(first, second)

        anyio.run(main, backend=self.backend)
