"""The outbox beside receivers that fail, restart and forget: all ends, nothing stale blocks what is fresh (T47)."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headgate.outbox.core import Ask, OutboxCore, Send
from headgate.outbox.values import Answer, Item, OutboxOptions, Reply

NAMES = ("north", "south")
SLOTS = 8


@dataclass
class Receiver:
    """A service that knows documents, and forgets those of before when it restarts, but for some that it kept."""

    boot: int = 1
    says_who: bool = True
    known: set[str] = field(default_factory=set[str])
    got: list[str] = field(default_factory=list[str])

    @property
    def name(self) -> str | None:
        return f"boot {self.boot}" if self.says_who else None


class OutboxMachine(RuleBasedStateMachine):
    """Drives the outbox, and plays the receivers."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.options = OutboxOptions(slots=SLOTS, trips_after=2, reconcile_most=3)
        self.outbox = OutboxCore(self.options, Random(1))
        self.receivers = {name: Receiver() for name in NAMES}
        self.items: dict[str, Item] = {}
        self.ended: dict[str, Answer] = {}
        self.under_way: list[Send | Ask] = []
        self.asked: set[tuple[str, str | None]] = set()
        self.stale_under_way = 0

    @initialize(says_who=st.booleans())
    def begin(self, says_who: bool) -> None:
        self.receivers["south"].says_who = says_who

    @rule(name=st.sampled_from(NAMES), count=st.integers(1, 6))
    def ask_for(self, name: str, count: int) -> None:
        receiver = self.receivers[name]
        for _ in range(count):
            key = f"doc {len(self.items)}"
            receiver.known.add(key)
            item = self.items[key] = Item(key, name, 0.0, receiver.name)
            assert self.outbox.add(item)
            assert not self.outbox.add(item)

    @rule(name=st.sampled_from(NAMES), kept=st.integers(0, 3))
    def receiver_restarts(self, name: str, kept: int) -> None:
        receiver = self.receivers[name]
        receiver.boot += 1
        receiver.known = set(sorted(receiver.known)[:kept])

    @rule()
    def own_restart(self) -> None:
        """This process is killed and comes up again with what it kept."""
        self.outbox = OutboxCore(self.options, Random(1))
        self.under_way.clear()
        for key, item in self.items.items():
            if key not in self.ended:
                self.outbox.restore(item, self.now, attempts=1, wait_s=1.0)

    @rule(seconds=st.sampled_from([0.0, 0.5, 2.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.take()

    def take(self) -> None:
        for one in self.outbox.take(self.now):
            self.under_way.append(one)
            if isinstance(one, Send):
                assert one.item.key not in self.ended, "sent again after its end"

    @precondition(lambda self: self.under_way)
    @rule(
        which=st.integers(0, 9), answer=st.sampled_from([Answer.ACK, Answer.ACK, Answer.RETRY, Answer.REJECTED, None])
    )
    def comes_back(self, which: int, answer: Answer | None) -> None:
        self.back(self.under_way.pop(which % len(self.under_way)), answer)
        self.take()

    @precondition(lambda self: any(isinstance(one, Send) for one in self.under_way))
    @rule(which=st.integers(0, 9))
    def somebody_else_has_ended_it(self, which: int) -> None:
        """Another process that shares the items has brought one to its end: it is not sent here."""
        sends = [one for one in self.under_way if isinstance(one, Send)]
        one = sends[which % len(sends)]
        self.under_way.remove(one)
        self.outbox.withdrawn(one.item.key)
        self.ended[one.item.key] = Answer.GONE
        self.take()

    def back(self, one: Send | Ask, answer: Answer | None) -> None:
        if isinstance(one, Ask):
            receiver = self.receivers[one.destination]
            if answer is None:
                self.outbox.not_reconciled(one.destination, self.now)
                return
            gone = self.outbox.reconciled(one.destination, receiver.known & set(one.keys), receiver.name)
            for key in gone:
                assert key not in receiver.known
                self.ended[key] = Answer.GONE
            return
        key = one.item.key
        receiver = self.receivers[one.item.destination]
        if answer is None:
            self.outbox.failed(key, self.now)
            return
        if key not in receiver.known and answer is not Answer.RETRY:
            answer = Answer.GONE
        if answer is Answer.ACK:
            receiver.got.append(key)
        ended = self.outbox.answered(key, Reply(answer, receiver.name), self.now)
        assert ended == (None if answer is Answer.RETRY else answer)
        if ended is not None:
            self.ended[key] = ended

    @invariant()
    def slots_are_kept(self) -> None:
        assert self.outbox.in_flight == len(self.under_way) <= SLOTS
        questions = sum(isinstance(one, Ask) for one in self.under_way)
        assert questions <= SLOTS // 4

    @invariant()
    def nothing_is_lost(self) -> None:
        assert len(self.outbox) == len(self.items) - len(self.ended)

    @invariant()
    def what_can_be_taken_is_taken(self) -> None:
        """What is fresh, due and can be reached never waits for a slot that is free."""
        self.take()

    def teardown(self) -> None:
        """Once everybody is well, everything comes to its end."""
        for _ in range(10_000):
            self.take()
            if not self.under_way:
                if not len(self.outbox):
                    break
                at = self.outbox.next_tick(self.now)
                assert self.now < at < self.now + 1000.0, "it waits for nothing"
                self.now = at
            else:
                self.back(self.under_way.pop(0), Answer.ACK)
        assert not len(self.outbox)
        for key, ended in self.ended.items():
            if ended is Answer.ACK:
                assert key in self.receivers[self.items[key].destination].got


TestOutbox = OutboxMachine.TestCase
TestOutbox.settings = settings(max_examples=max(50, settings().max_examples), stateful_step_count=40)


def test_t47_a_restart_s_worth_of_stale_items_leaves_the_slots_to_fresh_ones() -> None:
    """Thousands of stale completions after a restart: a fresh one is sent at once, the stale ones are asked about."""
    outbox = OutboxCore(OutboxOptions(slots=8), Random(1))
    for number in range(5_000):
        outbox.restore(Item(f"old {number}", "north", 0.0, "boot 1"), 0.0, attempts=3, wait_s=0.0)
    first = outbox.take(0.0)
    assert [type(one) for one in first] == [Ask], "one question, and nothing is sent before the answer"
    for number in range(20):
        outbox.add(Item(f"new {number}", "north", 0.0, "boot 2"))
    sent = outbox.take(0.0)
    assert [one.item.key for one in sent if isinstance(one, Send)] == [f"new {number}" for number in range(7)]
    assert outbox.reconciled("north", {"old 7"}, "boot 2") == [f"old {n}" for n in range(500) if n != 7]


def test_a_stale_item_is_sent_only_once_the_receiver_said_that_it_knows_it() -> None:
    """After a restart of the receiver nothing of before is sent unasked."""
    outbox = OutboxCore(OutboxOptions(slots=8), Random(1))
    for number in range(20):
        outbox.add(Item(f"doc {number}", "north", 0.0, "boot 1"))
    sent = [one for one in outbox.take(0.0) if isinstance(one, Send)]
    assert len(sent) == 8
    outbox.answered(sent[0].item.key, Reply(Answer.RETRY, "boot 2"), 0.0)
    for one in sent[1:]:
        outbox.answered(one.item.key, Reply(Answer.ACK, "boot 2"), 0.0)
    assert [type(one) for one in outbox.take(0.0)] == [Ask]
    outbox.reconciled("north", {f"doc {number}" for number in range(20)}, "boot 2")
    stale = outbox.take(0.0)
    assert len(stale) == 2, "a quarter of the slots"


def test_a_probe_that_was_not_sent_leaves_its_turn_to_the_next() -> None:
    """Else a destination would be left alone for ever, because its probe had come to its end elsewhere."""
    outbox = OutboxCore(OutboxOptions(slots=8, trips_after=1), Random(1))
    for key in ("a", "b"):
        outbox.add(Item(key, "north", 0.0))
    for one in outbox.take(0.0):
        assert isinstance(one, Send)
        outbox.failed(one.item.key, 0.0)
    (probe,) = outbox.take(1000.0)
    assert isinstance(probe, Send)
    outbox.withdrawn(probe.item.key)
    assert [one.item.key for one in outbox.take(1000.0) if isinstance(one, Send)] == [
        "b" if probe.item.key == "a" else "a"
    ]
    assert len(outbox) == 1
