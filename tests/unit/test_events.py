"""What a run says: every kind of event happens, stands on its page, ends once, and disturbs nobody."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import threading
import time
from collections import Counter
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import structlog

import headgate
from headgate.engine import listeners as listening
from headgate.engine import telling
from headgate.engine.event_lines import EventLines
from headgate.engine.listeners import Listeners
from headgate.errors import StoreUnavailable
from headgate.events import (
    EVENTS,
    FIELDS,
    CellEnded,
    Event,
    EventsDropped,
    RowFinished,
    RowOpened,
    RunEnded,
    RunStarted,
    RunStopping,
    as_dict,
)
from headgate.observe import event_log
from headgate.restart import LifeEnd
from headgate.testing import run_virtual
from tests import events_page
from tests.unit.events_around import CRASHED, deliveries, restarts

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from headgate.storage import Batch
    from headgate.storage.memory import MemoryRun


class Answered(Exception):
    """What a client raises for an answer that is an error."""

    def __init__(self, status_code: int) -> None:
        super().__init__(f"status {status_code}")
        self.status_code = status_code


def told(
    body: Callable[[int], object],
    rows: int = 8,
    *,
    store: headgate.MemoryStore | None = None,
    stop_at: int = -1,
    error: type[Exception] | None = None,
    **options: object,
) -> list[Event]:
    """The events of one run of a column ``a`` and a group column ``b``, in virtual time."""
    pipeline, events = headgate.Pipeline("run"), list[Event]()
    running: list[headgate.Run] = []

    @pipeline.column(model="acme/m")
    async def a(row: int) -> int:
        await anyio.sleep(1.0)
        body(row)
        if row == stop_at:
            running[0].stop(grace=0.0)
        return row

    @pipeline.column(scope="group")
    async def b(a: list[int]) -> list[int]:
        return a

    async def main() -> None:
        engine = headgate.Engine(limits={"acme/m": {"concurrency": 4}}, store=store, seed=1, events=events.append)
        async with engine:
            running.append(await engine.start(pipeline, rows, group_size=4, **options))  # type: ignore[arg-type]
            if error is None:
                await running[0].wait()
            else:
                with pytest.raises(error):
                    await running[0].wait()

    run_virtual(main)
    return events


def same(row: object) -> str:
    return str(row)


def kinds(events: list[Event]) -> Counter[str]:
    return Counter(event.kind for event in events)


def raising(*statuses: int) -> Callable[[int], None]:
    """A body that fails with each of these in turn, then never; one status for ever if it is the only one."""
    left = list(statuses)

    def body(row: int) -> None:
        if len(statuses) == 1:
            raise Answered(statuses[0])
        if left:
            raise Answered(left.pop(0))

    return body


class Faulty(headgate.MemoryStore):
    """Its first commit raises ``error``."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error: Exception | None = error

    async def open_run(
        self,
        run: str,
        fingerprints: Mapping[str, str],
        *,
        renewed: Collection[str] = (),
        kept: Collection[str] = (),
    ) -> MemoryRun:
        handle = await super().open_run(run, fingerprints, renewed=renewed, kept=kept)
        commit = handle.commit

        async def once(batch: Batch) -> None:
            error, self._error = self._error, None
            if error is not None:
                raise error
            await commit(batch)

        handle.commit = once  # type: ignore[method-assign]
        return handle


def dropped() -> list[Event]:
    """From the file of a disk that takes nothing in time."""
    with tempfile.TemporaryDirectory() as folder:
        lines = EventLines(Path(folder, "events.jsonl"), most=0)
        lines(RowOpened(0.0, "r", 0, "id", 0))
        lines.close()
        (said,) = [json.loads(line) for line in Path(folder, "events.jsonl").read_text(encoding="utf-8").splitlines()]
    assert said.pop("kind") == EventsDropped.kind
    return [EventsDropped(**said)]


EMITTED: dict[str, Callable[[], list[Event]]] = {
    "run_started run_ended row_opened row_finished task_started cell_ended group_ended request_started "
    "request_ended pace_changed batch_committed": lambda: told(lambda _: None),
    "task_held resource_blocked resource_reopened": lambda: told(raising(*[500] * 30), 12),
    "resource_parked": lambda: told(raising(401)),
    "resource_given_up": lambda: told(raising(500), patience=60.0),
    "column_stopped": lambda: told(raising(400), 200),
    "store_retried": lambda: told(lambda _: None, store=Faulty(StoreUnavailable("nobody at home"))),
    "run_stopping": lambda: told(lambda _: None, 40, stop_at=9),
    "events_dropped": dropped,
    "restart_asked restart_decided restart_done": lambda: restarts(CRASHED, LifeEnd("completed")),
    "restart_refused": lambda: restarts(CRASHED, CRASHED, budget=1),
    "delivery_sent delivery_postponed delivery_dead_lettered": lambda: deliveries("away 1", "gone 2"),
}


@pytest.mark.parametrize("names", EMITTED)
def test_every_kind_happens(names: str) -> None:
    events = EMITTED[names]()
    assert set(names.split()) <= kinds(events).keys()
    for event in events:
        assert type(event) in EVENTS
        assert json.loads(json.dumps(as_dict(event), allow_nan=False))["kind"] == event.kind


def test_every_kind_is_in_a_test() -> None:
    assert {name for names in EMITTED for name in names.split()} == {one.kind for one in EVENTS}


def test_the_page_of_events_is_what_the_types_say() -> None:
    assert events_page.PAGE.read_text(encoding="utf-8") == events_page.page(), "python -m tests.events_page"


def test_every_field_has_its_meaning_and_no_event_can_be_changed() -> None:
    names = {field.name for one in EVENTS for field in dataclasses.fields(one)}
    assert names == FIELDS.keys()
    assert len({one.kind for one in EVENTS}) == len(EVENTS)
    for one in EVENTS:
        assert [field.name for field in dataclasses.fields(one)][:2] == ["at", "run"]
        assert one.__doc__
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunStarted(0.0, "r", 1, ()).run = "s"  # type: ignore[misc]


def test_v6_every_cell_ends_once_also_when_the_run_is_stopped() -> None:
    """Over many made-up runs the simulation checks this: see headgate.testing.told."""
    events = told(lambda _: None, 40, stop_at=9)
    ends = [event for event in events if isinstance(event, CellEnded)]
    rows = kinds(events)["row_opened"]
    assert len({(end.row, end.column) for end in ends}) == len(ends) == 2 * rows
    assert {end.outcome for end in ends} == {"done", "held"}
    assert isinstance(events[-1], RunEnded)
    assert events[-1].status == "stopped"


def test_v6_a_run_that_breaks_ends_once_too() -> None:
    events = told(lambda _: None, store=Faulty(headgate.StoreError("the disk is gone")), error=headgate.StoreError)
    assert kinds(events)["run_ended"] == 1
    assert isinstance(events[-1], RunEnded)
    assert (events[-1].status, events[-1].error) == ("failed", "StoreError: the disk is gone")
    assert events[-1].accepted == events[-1].held == 8


def test_a_resumed_run_says_what_was_restored() -> None:
    store = headgate.MemoryStore()
    told(lambda _: None, store=store)
    again = told(lambda _: None, 12, store=store)
    assert isinstance(again[0], RunStarted)
    assert again[0].epoch == 2
    assert sum(isinstance(event, RowFinished) and event.restored for event in again) == 8
    assert kinds(again)["cell_ended"] == 8


def test_a_sink_that_raises_is_let_go_and_breaks_nothing() -> None:
    calls: list[Event] = []
    heard: list[Event] = []

    def broken(event: Event) -> None:
        calls.append(event)
        raise RuntimeError("no room")

    with structlog.testing.capture_logs() as logs:
        report = headgate.map(same, 3, name="a", events=[broken, heard.append])
    assert report.done == 3
    assert len(calls) == 1
    assert kinds(heard)["run_ended"] == 1
    assert [entry["event"] for entry in logs] == ["event sink let go"]


def test_a_sink_that_stops_the_run_and_raises_both_times_is_let_go_once() -> None:
    pipeline = headgate.Pipeline("run")
    running: list[headgate.Run] = []

    @pipeline.column
    async def a(row: int) -> int:
        return row

    def broken(event: Event) -> None:
        if isinstance(event, CellEnded):
            running[0].stop(grace=0.0)  # tells this very sink that the run is stopping
        if isinstance(event, (CellEnded, RunStopping)):
            raise RuntimeError("no room")

    async def main() -> headgate.RunReport:
        async with headgate.Engine(events=broken) as engine:
            running.append(await engine.start(pipeline, 3))
            return await running[0].wait()

    with structlog.testing.capture_logs() as logs:
        assert run_virtual(main).done == 3
    assert [entry["event"] for entry in logs] == ["event sink let go"]


def test_nobody_listens_and_no_event_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def built(*_: object, **__: object) -> None:
        raise AssertionError("an event for nobody")

    for kind in EVENTS:
        if hasattr(telling, kind.__name__):
            monkeypatch.setattr(telling, kind.__name__, built)
    monkeypatch.setattr(telling.RunTeller, "__init__", built)
    assert headgate.map(same, 3, name="a").done == 3


def test_events_are_appended_to_a_file(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for _ in range(2):
        assert headgate.map(same, ["é", "z"], name="a", events=path).done == 2
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["kind"] for line in lines].count("run_ended") == 2
    assert lines[-1]["kind"] == "run_ended"
    assert threading.active_count() == len([one for one in threading.enumerate() if one.name != "headgate-events"])


def test_a_line_that_a_killed_process_has_left_unfinished_swallows_no_other(tmp_path: Path) -> None:
    """Before this process began, and while it had the file open: a supervisor and its lives share one."""
    path = tmp_path / "events.jsonl"
    path.write_text('{"kind": "cell_en', encoding="utf-8")
    lines = EventLines(path)
    lines(RowOpened(0.0, "r", 0, "id", 0))
    until = time.monotonic() + 30
    while path.read_bytes().count(b"\n") < 2:
        assert time.monotonic() < until
        time.sleep(0.001)
    for left in ('{"kind": "row_op', '{"kind": "run_ended"}\n'):
        with path.open("a", encoding="utf-8") as other:
            other.write(left)
        before = path.stat().st_size
        lines(RowOpened(0.0, "r", 1, "id", 0))
        while path.stat().st_size <= before:
            assert time.monotonic() < until
            time.sleep(0.001)
    lines.close()
    found = path.read_text(encoding="utf-8").splitlines()
    assert [line[:17] for line in found] == [
        *('{"kind": "cell_en', '{"kind": "row_ope', '{"kind": "row_op', '{"kind": "row_ope'),
        *('{"kind": "run_end', '{"kind": "row_ope'),
    ]
    assert path.read_bytes().endswith(b"}\n")


def test_what_another_process_appends_right_behind_a_line_is_not_taken_for_ours(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    lines = EventLines(path)
    file = lines._file  # pyright: ignore[reportPrivateUsage]
    flush = file.flush

    def and_then_another() -> None:
        flush()
        if b"cell_en" not in path.read_bytes():
            with path.open("a", encoding="utf-8") as other:
                other.write('{"kind": "cell_en')

    file.flush = and_then_another  # type: ignore[method-assign]
    lines(RowOpened(0.0, "r", 0, "id", 0))
    until = time.monotonic() + 30
    while b"cell_en" not in path.read_bytes():
        assert time.monotonic() < until
        time.sleep(0.001)
    lines(RowOpened(0.0, "r", 1, "id", 0))
    lines.close()
    assert path.read_text(encoding="utf-8").count("\n") == 3


def test_the_file_is_closed_also_when_the_store_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_: object) -> None:
        raise headgate.StoreError("the disk is gone")

    monkeypatch.setattr(headgate.MemoryStore, "aclose", broken)
    with pytest.raises(headgate.StoreError, match="the disk is gone"):
        headgate.map(same, 3, name="a", events=tmp_path / "events.jsonl")
    assert "headgate-events" not in {one.name for one in threading.enumerate()}


def test_a_slow_disk_loses_events_and_says_how_many(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    begun, gate = threading.Event(), threading.Event()

    class Slow(EventLines):
        def _write(self, event: Event) -> None:
            begun.set()
            assert gate.wait(60.0)
            super()._write(event)

    lines = Slow(path, most=2)
    first = RowOpened(0.0, "r", 0, "id", 0)
    lines(first)
    assert begun.wait(60.0)
    for _ in range(7):  # returns at once, though the disk does not
        lines(first)
    gate.set()
    lines.close()
    lines.close()
    lines(first)
    assert lines.dropped == 6
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert Counter(line["kind"] for line in found) == {"row_opened": 3, "events_dropped": 1}
    assert sum(line.get("count", 0) for line in found) == 5


class Stuck(EventLines):
    """Its disk takes nothing until ``gate`` is set."""

    def __init__(self, path: Path, most: int) -> None:
        self.gate = threading.Event()
        super().__init__(path, most=most)

    def _write(self, event: Event) -> None:
        assert self.gate.wait(60.0)
        super()._write(event)


def test_v6_thousands_of_cells_that_are_left_all_stand_in_the_file_and_so_does_the_end(tmp_path: Path) -> None:
    cells, lines = 2_000, Stuck(tmp_path / "events.jsonl", 1_100)
    plans: Any = [SimpleNamespace(name="a")]

    def unfinished(_: int) -> list[tuple[int, int]]:
        return [(0, 0)]

    core: Any = SimpleNamespace(
        rows={row: SimpleNamespace(finished=False) for row in range(cells)},
        frontier=SimpleNamespace(unfinished=unfinished),
        tally=SimpleNamespace(accepted=cells, done=0, failed=0, skipped=0),
    )

    async def end() -> None:
        teller = telling.RunTeller(Listeners([lines], [lines], time.time), "r", plans)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, lines.gate.set)  # the disk works again after some turns
            await teller.ended(core, None, None)

    anyio.run(end)
    lines.close()
    found = Counter(json.loads(line)["kind"] for line in (tmp_path / "events.jsonl").read_text("utf-8").splitlines())
    assert found == {"cell_ended": cells, "run_ended": 1}


def test_a_disk_that_takes_nothing_holds_nobody_up_and_still_gets_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "MOST_LOOKS", 3)
    lines = Stuck(tmp_path / "events.jsonl", 0)
    assert not anyio.run(Listeners([lines], [lines], time.time).room)
    lines(RowOpened(0.0, "r", 0, "id", 0))
    lines(RunEnded(0.0, "r", "stopped", 0.0, 0, 0, 0, 0, 0, ""))
    lines.gate.set()
    lines.close()
    found = [json.loads(line)["kind"] for line in (tmp_path / "events.jsonl").read_text("utf-8").splitlines()]
    assert found == ["events_dropped", "run_ended"]


def test_a_full_disk_does_not_break_the_run() -> None:
    with structlog.testing.capture_logs() as logs:
        report = headgate.map(same, 3, name="a", events="/dev/full")
    assert report.done == 3
    assert [entry["event"] for entry in logs] == ["events are not written any more"]


@pytest.mark.parametrize("events", ["/nowhere/events.jsonl", 5, [print, None]])
def test_what_cannot_be_told_is_refused_at_once(events: object) -> None:
    called: list[int] = []

    def called_with(row: int) -> None:
        called.append(row)

    with pytest.raises(headgate.ConfigError, match="event"):
        headgate.map(called_with, 3, events=events)  # type: ignore[arg-type]
    assert called == []


def test_a_log_of_a_level_that_there_is_not() -> None:
    level: Any = "verbose"
    with pytest.raises(headgate.ConfigError, match="one of debug, info, warning, error, not 'verbose'"):
        event_log(level)


def test_a_log_takes_what_is_loud_enough() -> None:
    with structlog.testing.capture_logs() as logs:
        headgate.map(same, 2, name="a", run="x", events=event_log())
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("run_started", "info"), ("run_ended", "info")]
    assert logs[-1]["done"] == 2
    with structlog.testing.capture_logs() as logs:
        headgate.map(same, 2, name="a", events=event_log("debug"), deadline=inf)
    assert len(logs) > 10
