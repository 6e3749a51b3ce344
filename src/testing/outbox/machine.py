"""Deliveries of one kind beside two dicts: the same calls to both, and after every step they must agree.

Several of them look at the same place, as several processes would. Calls come alone, at the same time, late and twice,
and at the moment of a crash: then each may be done or not, and the next step must find one of the two.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar, Final

import anyio
from anyio.from_thread import start_blocking_portal
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ...outbox.ports import Kept
from ...outbox.values import Answer, Item

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...outbox.ports import Deliveries
    from .suite import DeliveriesSuite

__all__ = ["DeliveriesMachine"]

_KEYS: Final = ("run/0", "run/1", "run/2", "täglich/é\u20ac", "x" * 300)
_ANSWERS: Final = (Answer.ACK, Answer.GONE, Answer.REJECTED)


def _item(key: str, more: tuple[str, float, str | None, str | None]) -> Item:
    return Item(key, *more)


def _note(key: str, more: tuple[int, float, str | None]) -> tuple[str, int, float, str | None]:
    return key, *more


_keys = st.sampled_from(_KEYS)
_RECEIVERS: Final = (None, "boot 1", "boot 2")
_bodies = st.sampled_from([b"", b"{}", b"\0\xff" * 7, b"long" * 1_500])
# A draw costs more than the call that is tested, so what belongs together is one choice from a list.
_items = st.builds(
    _item, _keys, st.sampled_from(list(product(("north", "south"), (0.0, 1.5e9 + 0.1), _RECEIVERS, _RECEIVERS)))
)
_notes = st.builds(_note, _keys, st.sampled_from(list(product(range(1, 5), (0.0, 1.7e9, 1.7e9 + 1 / 3), _RECEIVERS))))
_ends = st.lists(st.sampled_from(list(product(_KEYS, _ANSWERS, ("", "404 unknown")))), max_size=3)
_which = st.integers(0, 1)


@dataclass
class _Model:
    """What is kept, in the order in which it was added, with its body; and what has come to its end."""

    kept: dict[str, tuple[Kept, bytes]]
    ended: set[str]

    def add(self, item: Item, body: bytes) -> bool:
        if item.key in self.kept or item.key in self.ended:
            return False
        self.kept[item.key] = Kept(item, 0, 0.0), body
        return True

    def postpone(self, key: str, attempts: int, not_before: float, receiver: str | None) -> None:
        if key in self.kept and attempts > self.kept[key][0].attempts:
            was, body = self.kept[key]
            self.kept[key] = Kept(replace(was.item, receiver=receiver), attempts, not_before), body

    def end(self, ended: Sequence[tuple[str, Answer, str]]) -> None:
        for key, _, _ in ended:
            self.kept.pop(key, None)
            self.ended.add(key)


class DeliveriesMachine(RuleBasedStateMachine):
    """Drives the deliveries of ``suite``, which a subclass has to name."""

    suite: ClassVar[DeliveriesSuite]

    def __init__(self) -> None:
        super().__init__()
        self.exits = ExitStack()
        self.portal = self.exits.enter_context(start_blocking_portal(self.suite.backend))
        self.place: Any = self.exits.enter_context(self.suite.new_place())
        self.model = _Model({}, set())
        self.opened = [self._open() for _ in range(self.suite.openers)]
        self.turn = 0

    def teardown(self) -> None:
        """Leave nothing behind, whatever comes."""
        with self.exits:
            for deliveries in self.opened:
                self.portal.call(deliveries.aclose)

    @rule(item=_items, body=_bodies, which=_which)
    def add(self, item: Item, body: bytes, which: int) -> None:
        """A key is taken once, in whatever life, also after its end (D3)."""
        assert self.portal.call(self._one(which).add, item, body) == self.model.add(item, body)

    @rule(item=_items, bodies=st.lists(_bodies, min_size=2, max_size=4, unique=True), which=_which)
    def add_at_the_same_time(self, item: Item, bodies: list[bytes], which: int) -> None:
        """Of several who add one key, one succeeds, and it is his body that is kept."""
        taken = self.portal.call(_add_all, self._one(which), item, bodies)
        if any(taken):
            assert self.model.add(item, bodies[taken.index(True)])
        assert sum(taken) == (self.model.kept.get(item.key, (None, b""))[0] == Kept(item, 0, 0.0) and any(taken))

    @rule(note=_notes, which=_which)
    def postpone(self, note: tuple[str, int, float, str | None], which: int) -> None:
        """An attempt is noted, unless a later one was, or the item has come to its end."""
        self.portal.call(self._one(which).postpone, *note)
        self.model.postpone(*note)

    @rule(ended=_ends, which=_which)
    def end(self, ended: list[tuple[str, Answer, str]], which: int) -> None:
        """Items come to their end, known or not, once or again."""
        self.portal.call(self._one(which).end, ended)
        self.model.end(ended)

    @precondition(lambda self: self.suite.durable)
    @rule(which=_which)
    def reopen(self, which: int) -> None:
        """What was acknowledged is there after closing, also for those who look at the same place (D1)."""
        which %= len(self.opened)
        self.portal.call(self.opened[which].aclose)
        self.opened[which] = self._open()

    @precondition(lambda self: self.suite.durable)
    @rule(items=st.lists(_items, max_size=3, unique_by=lambda item: item.key), ended=_ends, which=_which)
    def crash(self, items: list[Item], ended: list[tuple[str, Answer, str]], which: int) -> None:
        """Nobody hears of the calls that are under way: each is done or not, and nothing is there by half (D2)."""
        which %= len(self.opened)
        dying, ended = self.opened[which], [one for one in ended if one[0] in self.model.kept]
        calls = [self.portal.start_task_soon(dying.add, item, item.key.encode()) for item in items]
        ends = self.portal.start_task_soon(dying.end, ended)
        for call in calls:
            call.cancel()
        ends.cancel()
        self.portal.call(dying.aclose)
        self.opened[which] = self._open()
        loaded = [one.item for one in self.portal.call(self.opened[which].load)]
        for item in loaded:
            if item.key not in self.model.kept:
                assert item in items, "somebody added what nobody has"
                self.model.add(item, item.key.encode())
        there = {item.key for item in loaded}
        self.model.end([one for one in ended if one[0] not in there])

    @invariant()
    def they_agree(self) -> None:
        """Look through each in its turn."""
        self.turn += 1
        deliveries = self._one(self.turn)
        loaded, bodies = self.portal.call(_look, deliveries)
        assert loaded == [kept for kept, _ in self.model.kept.values()]
        assert bodies == {key: self.model.kept[key][1] if key in self.model.kept else None for key in _KEYS}

    def _one(self, which: int) -> Deliveries:
        return self.opened[which % len(self.opened)]

    def _open(self) -> Deliveries:
        return self.suite.open_deliveries(self.place)


async def _look(deliveries: Deliveries) -> tuple[list[Kept], dict[str, bytes | None]]:
    return await deliveries.load(), {key: await deliveries.body(key) for key in _KEYS}


async def _add_all(deliveries: Deliveries, item: Item, bodies: Sequence[bytes]) -> list[bool]:
    taken = [False] * len(bodies)

    async def one(place: int) -> None:
        taken[place] = await deliveries.add(item, bodies[place])

    async with anyio.create_task_group() as tasks:
        for place in range(len(bodies)):
            tasks.start_soon(partial(one, place))
    return taken
