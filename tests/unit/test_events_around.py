"""What is said of restarts and deliveries: each thing once, with its reason, and no listener matters."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint

import headgate
from headgate import events as kinds
from headgate.engine import supervised
from headgate.events import (
    DeliveryDeadLettered,
    DeliveryPostponed,
    DeliverySent,
    Event,
    RestartAsked,
    RestartDecided,
    RestartDone,
    RestartRefused,
)
from headgate.outbox import outbox as outboxes
from headgate.restart import Cause, Failure, LifeEnd, RestartConfig, RestartCoordinator
from headgate.restart import supervisor as supervisors
from headgate.storage import MemoryStore
from headgate.testing import run_virtual
from tests.unit.events_around import CRASHED, WALL_S, deliveries, restarts

if TYPE_CHECKING:
    from pathlib import Path

    from headgate.events import EventSink

DONE = LifeEnd("completed")
PLACE = "https://gateway/done"


def test_a_run_that_is_begun_again_says_why_what_was_decided_and_when_it_was_done() -> None:
    asked, decided, done = restarts(CRASHED, DONE)
    assert asked == RestartAsked(WALL_S, "tickets", 1, "MemoryError", "no room")
    assert isinstance(decided, RestartDecided)
    assert (decided.cycle, decided.action, decided.basis) == (1, "restart", "no_sources")
    assert decided.retry_in_s is not None
    assert 3.0 <= decided.retry_in_s <= 5.0
    assert done == RestartDone(WALL_S, "tickets", 2, 2)


def test_a_replica_without_a_supervisor_tells_each_thing_once() -> None:
    """What it asks, what is decided, and that the run is closed, whether it waits for that or not."""
    events: list[Event] = []

    async def main() -> None:
        config = RestartConfig(budget=1)
        said: EventSink = events.append
        async with RestartCoordinator(
            "tickets", MemoryStore(), config=config, clock=lambda: WALL_S, events=said
        ) as replica:
            for _ in range(2):
                await replica.enter()
                replica.failed(Failure(Cause("MemoryError", message="no room")))
                replica.failed(Failure(Cause("MemoryError", message="no room")))
                await replica.decision()
                await replica.decision()
            await replica.told_to_stop()
            assert (await replica.enter()).closed is not None

    run_virtual(main)
    assert events == [
        RestartAsked(WALL_S, "tickets", 1, "MemoryError", "no room"),
        RestartDecided(WALL_S, "tickets", 1, "restart", "no_sources", None),
        RestartAsked(WALL_S, "tickets", 2, "MemoryError", "no room"),
        RestartDecided(WALL_S, "tickets", 2, "budget_exhausted", "budget", None),
        RestartRefused(WALL_S, "tickets", 2, "budget_exhausted", "budget"),
    ]


def test_who_is_told_to_stop_by_another_replica_tells_it_too() -> None:
    events: list[Event] = []

    async def main() -> None:
        store, config = MemoryStore(), RestartConfig(budget=0, poll=0.1)
        async with (
            RestartCoordinator("tickets", store, config=config) as failing,
            RestartCoordinator("tickets", store, config=config, clock=lambda: WALL_S, events=events.append) as healthy,
        ):
            await healthy.enter()
            await failing.enter()
            failing.failed(Failure(Cause("MemoryError")))
            await anyio.sleep(5.0)
        assert events == [RestartRefused(WALL_S, "tickets", 1, "budget_exhausted", "budget")]

    run_virtual(main)


def test_who_reopens_a_run_is_refused_nothing() -> None:
    """It said so, as an error, of the decision that it put an end to."""
    events: list[Event] = []

    async def main() -> None:
        store, config = MemoryStore(), RestartConfig(budget=0)
        async with RestartCoordinator("tickets", store, config=config) as replica:
            await replica.enter()
            replica.failed(Failure(Cause("MemoryError")))
            await replica.decision()
        async with RestartCoordinator("tickets", store, config=config, events=events.append) as replica:
            await anyio.sleep(5.0)
            assert (await replica.enter(reopen=True)).closed is None
            await anyio.sleep(5.0)

    run_virtual(main)
    assert events == []


def test_a_run_that_goes_well_says_nothing_of_restarts() -> None:
    assert restarts(DONE) == []


def test_a_run_that_is_not_begun_again_says_so() -> None:
    refused = RestartRefused(WALL_S, "tickets", 2, "budget_exhausted", "budget")
    *_, asked, decided, said = restarts(CRASHED, CRASHED, budget=1)
    assert isinstance(asked, RestartAsked)
    assert isinstance(decided, RestartDecided)
    assert (decided.action, decided.retry_in_s) == ("budget_exhausted", None)
    assert said == refused


def test_a_delivery_says_each_attempt_that_failed_and_how_it_ended() -> None:
    away, sent = deliveries("away 1")
    assert isinstance(away, DeliveryPostponed)
    assert (away.key, away.destination, away.attempts, away.message) == ("away 1", PLACE, 1, "not reached")
    assert 0.5 <= away.retry_in_s <= 2.0
    assert sent == DeliverySent(WALL_S, "tickets", "away 1", PLACE, 2)
    later, sent = deliveries("retry 1")
    assert isinstance(later, DeliveryPostponed)
    assert later.message == "it says retry"
    assert isinstance(sent, DeliverySent)


@pytest.mark.parametrize(
    ("key", "outcome", "message"),
    [
        ("rejected 1", "rejected", "it says rejected"),
        ("gone 1", "gone", "it says gone"),
        ("damaged", "rejected", "the body does not match its checksum"),
    ],
)
def test_what_is_never_delivered_is_said_once_and_with_its_reason(key: str, outcome: str, message: str) -> None:
    assert deliveries(key) == [DeliveryDeadLettered(WALL_S, "tickets", key, PLACE, outcome, message)]


def test_what_a_receiver_has_forgotten_is_said_too() -> None:
    *gone, new = sorted(deliveries("one", "two", restarted=True), key=lambda event: event.kind)
    assert all(isinstance(event, DeliveryDeadLettered) and event.run == "tickets" for event in gone)
    assert {getattr(event, "key", "") for event in gone} == {"one", "two"}
    assert isinstance(new, DeliverySent)
    assert new.run == ""


def test_nobody_listens_and_no_event_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def built(*_: object) -> None:
        raise AssertionError("it was built")

    for module, names in (
        (supervisors, ("RestartAsked", "RestartDecided", "RestartDone", "RestartRefused")),
        (outboxes, ("DeliverySent", "DeliveryPostponed", "DeliveryDeadLettered")),
    ):
        for name in names:
            assert hasattr(kinds, name)
            monkeypatch.setattr(module, name, built)

    restarts(CRASHED, CRASHED, budget=1, nobody=True)
    restarts(CRASHED, DONE, nobody=True)
    deliveries("away 1", "gone 2", "damaged", nobody=True)
    deliveries("one", restarted=True, nobody=True)


def test_a_listener_that_raises_is_let_go_and_all_goes_on() -> None:
    heard: list[Event] = []

    def listen(event: Event) -> None:
        heard.append(event)
        raise ValueError(event)

    restarts(CRASHED, DONE, sink=listen)
    deliveries("one", "two", sink=listen)
    assert [type(event) for event in heard] == [RestartAsked, DeliverySent]


def test_a_run_under_a_supervisor_tells_the_same_file_of_its_lives_and_its_restarts(tmp_path: Path) -> None:
    crashed = False

    def body(row: int) -> int:
        return row

    def rows() -> list[dict[str, int]]:
        nonlocal crashed
        if not crashed:
            crashed = True
            raise MemoryError("no room")
        return [{"row": 1}]

    pipeline = headgate.Pipeline("tickets")
    pipeline.column(body)
    path = tmp_path / "events.jsonl"
    restart = {"first_pause": 0.0, "longest_pause": 0.0}
    ended = headgate.supervise(pipeline, rows, store=headgate.MemoryStore(), restart=restart, events=path)
    assert ended.status == "completed"
    told = [json.loads(line)["kind"] for line in path.read_text(encoding="utf-8").splitlines()]
    assert told[:4] == ["restart_asked", "restart_decided", "restart_done", "run_started"]
    assert told[-1] == "run_ended"


def test_a_run_under_a_supervisor_that_is_cancelled_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for the file is written, its end among it, and the store that it opened is closed."""
    path, before, closed = tmp_path / "events.jsonl", set(threading.enumerate()), list[str]()

    class TakesTime(headgate.MemoryStore):
        async def aclose(self) -> None:
            await checkpoint()
            await super().aclose()
            closed.append("store")

    def opened(_: object) -> TakesTime:
        return TakesTime()

    monkeypatch.setattr(supervised, "open_store", opened)
    pipeline = headgate.Pipeline("tickets")

    @pipeline.column
    async def a(row: int) -> int:
        await anyio.sleep_forever()
        return row

    async def main() -> None:
        with anyio.CancelScope() as scope:

            def listen(event: Event) -> None:
                if event.kind == "task_started":
                    scope.cancel()

            await headgate.asupervise(pipeline, 3, store="memory", events=[path, listen])
        assert scope.cancelled_caught

    anyio.run(main)
    assert closed == ["store"]
    assert "headgate-events" not in {thread.name for thread in set(threading.enumerate()) - before}
    assert json.loads(path.read_text(encoding="utf-8").splitlines()[-1])["kind"] == "run_ended"
