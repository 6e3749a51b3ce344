"""Many destinations share the slots: each comes to its turn, none costs more than another, idle ones are forgotten."""

from __future__ import annotations

import gc
import time
from collections import Counter, deque
from random import Random
from typing import TYPE_CHECKING

from headgate.outbox import Answer, Item, OutboxOptions, Reply
from headgate.outbox.core import IDLE_MOST, OutboxCore, Send
from headgate.outbox.turns import Turns

if TYPE_CHECKING:
    import pytest

ACK = Reply(Answer.ACK)


class Stream:
    """An outbox whose destinations always have something more."""

    def __init__(self, slots: int, names: str) -> None:
        self.core = OutboxCore(OutboxOptions(slots=slots), Random(1))
        self.under_way: deque[Item] = deque()
        self.sent: Counter[str] = Counter()
        self._count = 0
        for name in names * 3:
            self._ask_for(name)

    def _ask_for(self, name: str) -> None:
        self._count += 1
        assert self.core.add(Item(f"{name} {self._count}", name, 0.0))

    def take(self) -> None:
        for one in self.core.take(0.0):
            assert isinstance(one, Send)
            self.under_way.append(one.item)
            self.sent[one.item.destination] += 1
            self._ask_for(one.item.destination)

    def acknowledge(self, item: Item) -> None:
        assert self.core.answered(item.key, ACK, 0.0) is Answer.ACK


def test_no_destination_waits_for_ever_beside_others_that_always_have_something() -> None:
    """More destinations than slots: what was added first is not always first again."""
    stream = Stream(slots=4, names="abcdef")
    for _ in range(300):
        stream.take()
        stream.acknowledge(stream.under_way.popleft())
    assert len(stream.sent) == 6
    assert max(stream.sent.values()) - min(stream.sent.values()) <= 1


def test_the_one_slot_that_is_quick_goes_round() -> None:
    """Three receivers hang. The slot that is left is not for the one alone that came to it first."""
    stream = Stream(slots=4, names="abcdefg")
    stream.take()
    hang = [stream.under_way.popleft() for _ in range(3)]
    for _ in range(40):
        stream.acknowledge(stream.under_way.popleft())
        stream.take()
    others = {name: count for name, count in stream.sent.items() if name not in {item.destination for item in hang}}
    assert len(others) == 4
    assert max(others.values()) - min(others.values()) <= 1


def test_a_slow_destination_does_not_get_the_slots_of_a_quick_one() -> None:
    stream = Stream(slots=8, names="sq")
    stream.take()
    for _ in range(50):
        stream.acknowledge(next(item for item in stream.under_way if item.destination == "q"))
        stream.under_way.remove(next(item for item in stream.under_way if item.destination == "q"))
        stream.take()
    assert Counter(item.destination for item in stream.under_way) == {"s": 4, "q": 4}


def test_a_destination_for_each_item_costs_no_more_than_one_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents with an address each to be told at: who is next is not looked for among all of them."""
    looked: Counter[str] = Counter()
    stand = Turns.stand

    def counted(self: Turns, name: str, load: int | None) -> None:
        looked["stand"] += 1
        stand(self, name, load)

    monkeypatch.setattr(Turns, "stand", counted)
    core = OutboxCore(OutboxOptions(), Random(1))
    items = 2 * IDLE_MOST
    for number in range(items):
        assert core.add(Item(f"doc {number}", f"https://gateway.example/{number}", 0.0))
    ended = 0
    while len(core):
        for one in core.take(0.0):
            assert isinstance(one, Send)
            ended += core.answered(one.item.key, ACK, 0.0) is Answer.ACK
        core.next_tick(0.0)
    assert ended == items
    assert looked["stand"] <= 8 * items
    assert core.footprint() == IDLE_MOST


def test_a_long_line_is_left_as_quickly_as_it_is_joined() -> None:
    """Whoever was next was looked for among all that had left before: 30 times as long as joining, here."""
    turns, names = Turns(), [str(number) for number in range(60_000)]
    gc.disable()  # what else there is in this process is none of its cost
    try:
        began = time.thread_time()
        for name in names:
            turns.stand(name, 0)
        joined = time.thread_time()
        left = 0
        while (first := turns.first()) is not None:
            turns.stand(first, None)
            left += 1
        ended = time.thread_time()
    finally:
        gc.enable()
    assert left == len(names)
    assert ended - joined < 8 * (joined - began)


def test_an_idle_receiver_is_remembered() -> None:
    """Nothing is under way when it is asked for more: who it is, is known still, so that a restart is noticed."""
    core = OutboxCore(OutboxOptions(), Random(1))
    core.add(Item("a", "gateway", 0.0, receiver="boot 1"))
    (sent,) = core.take(0.0)
    assert isinstance(sent, Send)
    core.answered("a", ACK, 0.0)
    core.next_tick(0.0)
    core.add(Item("b", "gateway", 0.0))
    (sent,) = core.take(0.0)
    assert isinstance(sent, Send)
    assert sent.item.receiver == "boot 1"
