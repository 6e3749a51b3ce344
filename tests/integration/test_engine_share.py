"""Whole engines in several processes on one run: each row once, results whole from either, one description (D5, D7)."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

import anyio
import pytest

import headgate
from headgate.engine.sharing import join_run
from headgate.errors import ConfigError, FencedOut, FingerprintMismatch, StoreUnsupported
from headgate.reports import read_report
from headgate.storage import PostgresStore, SqliteStore
from tests.integration.engine_share_child import RUN, SLOTS, pipeline
from tests.integration.postgres_server import Server, shared_server
from tests.integration.warm_children import WarmChild

if TYPE_CHECKING:
    from collections.abc import Generator

    from headgate.engine.changes import OnChange
    from headgate.storage.ports import RunInfo
    from headgate.storage.sharing import SharedRun

ROOT = Path(__file__).resolve().parents[2]
ROWS = 1_200


class Process:
    """An engine that shares the run, and what it has said."""

    def __init__(self, server: Server, schema: str, *, lease_s: float, version: str, on_change: str) -> None:
        command = [sys.executable, "-m", "tests.integration.engine_share_child"]
        arguments = [server.dsn, schema, str(ROWS), str(lease_s), version, on_change]
        self.process = WarmChild([*command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
        self.asked: list[int] = []
        self.last = ""
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.last = line.strip()
            if self.last.startswith("ask "):
                self.asked.append(int(self.last.split()[1]))

    def wait_until_ready(self) -> None:
        while self.last != "ready" and self._listener.is_alive():
            time.sleep(0.005)

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def wait_for(self, asked: int) -> None:
        while len(self.asked) < asked and self._listener.is_alive():
            time.sleep(0.005)
        assert len(self.asked) >= asked, self.last

    def end(self) -> str:
        self._listener.join(timeout=90)
        assert not self._listener.is_alive(), "it does not end"
        self.process.wait(timeout=10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.last


class Place:
    def __init__(self, server: Server, schema: str) -> None:
        self._server = server
        self._schema = schema
        self.processes: list[Process] = []

    def engines(
        self, many: int, *, lease_s: float = 30.0, version: str = "1", on_change: str = "auto"
    ) -> list[Process]:
        """Processes that are ready to begin."""
        made = [
            Process(self._server, self._schema, lease_s=lease_s, version=version, on_change=on_change)
            for _ in range(many)
        ]
        self.processes.extend(made)
        for engine in made:
            engine.wait_until_ready()
        return made

    def store(self) -> PostgresStore:
        return PostgresStore(self._server.dsn, schema=self._schema)

    def answers(self) -> list[bytes | None]:
        store = self.store()
        rows = list(store.read_rows(RUN))
        assert [row.record.row for row in rows] == list(range(ROWS))
        assert all([cell.column for cell in row.cells] == ["answer", "length"] for row in rows)
        assert store.read_info(RUN).status == "completed"
        assert read_report(store, RUN).figures is None, "each engine would replace those of the others"
        anyio.run(store.aclose)
        return [row.cells[0].payload for row in rows]


@pytest.fixture
def place() -> Generator[Place]:
    server = shared_server()
    with server.schema() as schema:
        found = Place(server, schema)
        try:
            yield found
        finally:
            for engine in found.processes:
                engine.process.kill()
                engine.end()


def by(version: str) -> list[bytes | None]:
    return [f'"{row} by version {version}"'.encode() for row in range(ROWS)]


def test_two_engines_do_each_row_once_and_either_has_all_results(place: Place) -> None:
    both = place.engines(2)
    for engine in both:
        engine.go()
    counts = [list(map(int, engine.end().removeprefix("end ").split())) for engine in both]
    assert sorted(both[0].asked + both[1].asked) == list(range(ROWS))
    assert sum(done for done, _ in counts) == ROWS
    assert [results for _, results in counts] == [ROWS, ROWS]
    assert min(len(engine.asked) for engine in both) > 0, "one of them did nothing"
    assert place.answers() == by("1")


def test_one_that_is_killed_is_taken_over_and_only_what_was_in_flight_is_asked_again(place: Place) -> None:
    victim, other = place.engines(2, lease_s=4.0)
    victim.go()
    other.go()
    victim.wait_for(60)
    stored = place.store()
    victim.process.kill()
    victim.end()
    there = {row.record.row for row in stored.read_rows(RUN) for cell in row.cells if cell.column == "answer"}
    anyio.run(stored.aclose)
    assert other.end().endswith(f" {ROWS}")
    again = set(victim.asked) & set(other.asked)
    assert again.isdisjoint(there), "a request is in flight until its result is committed"
    assert len(other.asked) == len(set(other.asked))
    assert place.answers() == by("1")


def test_d7_a_changed_column_is_refused_by_itself_and_named(place: Place) -> None:
    """Who comes with another version is turned away; those who work go on."""
    (working,), (other,) = place.engines(1), place.engines(1, version="2")
    working.go()
    working.wait_for(30)
    other.go()
    said = other.end()
    assert said.startswith("FingerprintMismatch")
    assert "'answer'" in said
    assert 'on_change="rerun" or "keep"' in said
    assert working.end() == f"end {ROWS} {ROWS}"
    assert place.answers() == by("1")


def test_d7_a_run_that_is_begun_anew_has_one_description_at_work(place: Place) -> None:
    """The old engine's part ends; the new ones share the run, although both of them asked for the change."""
    (old,), new = place.engines(1), place.engines(2, version="2", on_change="rerun")
    old.go()
    old.wait_for(60)
    for engine in new:
        engine.go()
    ended = [engine.end() for engine in new]
    assert all(said.startswith("end ") for said in ended), ended
    assert old.end().startswith("FencedOut")
    assert sorted(new[0].asked + new[1].asked) == list(range(ROWS))
    assert place.answers() == by("2")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_cannot_be_shared_is_said_before_anything_is_spent(place: Place, tmp_path: Path) -> None:
    async with headgate.Engine(store=SqliteStore(tmp_path / "s.db")) as engine:
        with pytest.raises(StoreUnsupported, match="SqliteStore hands out no row groups"):
            await engine.share(pipeline("1"), 10)
    store = place.store()
    async with headgate.Engine(store=store) as engine:
        with pytest.raises(ConfigError, match="a list or a number"):
            await engine.share(pipeline("1"), iter([{"row": 1}]))
        with pytest.raises(ConfigError, match="budget= is for one engine that has the run alone"):
            await engine.share(pipeline("1"), 10, budget=1.0)
        with pytest.raises(ConfigError, match="retry_failed"):
            await engine.share(pipeline("1"), 10, retry_failed=True)
    await store.aclose()


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_held_cells_end_the_part_and_the_next_one_finishes_them(place: Place) -> None:
    """A provider that is away for longer than the patience: nobody waits for ever, and nothing is lost."""
    away = True
    made = headgate.Pipeline("held")

    @made.column(model="test/m")
    async def answer(row: int) -> int:
        if away and row % 100 == 7:
            raise ConnectionError("nobody there")
        return row

    store = place.store()
    async with headgate.Engine(limits={"*": {"concurrency": SLOTS}}, store=store) as engine:
        first = await engine.share(made, 300, patience=0.3)
        assert (first.status.value, first.done, first.held, first.accepted) == ("held", 297, 3, 300)
        assert store.read_info("held").status == "running"
        away = False
        second = await engine.share(made, 300)
        assert (second.status.value, second.held) == ("completed", 0)
        assert second.done >= 3
        assert second.done - second.restored == 3
        results = await anyio.to_thread.run_sync(lambda: [row["answer"] for row in second.results()])
        assert results == list(range(300))
        more = await engine.share(made, 330)
        assert (more.done - more.restored, store.read_info("held").rows) == (30, 330)
        assert [(one.resource, one.requests) for one in more.resources] == [("test/m", 30)]
        assert sum(more.resources[0].seconds.values()) == pytest.approx(more.seconds)
    await store.aclose()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_costs_are_in_the_report_of_a_part_and_not_in_the_store(place: Place) -> None:
    """Each group would replace those of the others."""
    made = headgate.Pipeline("priced")

    @made.column(model="test/m")
    async def answer(row: int) -> int:
        async with headgate.request("test/m") as lease:
            lease.report(usage={"input_tokens": 100, "output_tokens": 0})
        return row

    store = place.store()
    async with headgate.Engine(limits={"*": {"concurrency": SLOTS}}, store=store) as engine:
        report = await engine.share(made, 40, prices={"test/m": {"input": 10.0}})
    assert report.cost == pytest.approx(40 * 0.001)
    assert report.spent is None
    assert read_report(store, "priced").costs == {}
    await store.aclose()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("newest_is_over", [False, True])
async def test_all_groups_of_the_part_are_stopped(place: Place, newest_is_over: bool) -> None:
    made = headgate.Pipeline("halted")

    @made.column(model="test/m")
    async def answer(row: int) -> int:
        await anyio.sleep_forever()
        return row

    store = place.store()
    parts: list[headgate.Run] = []
    reports: list[headgate.RunReport] = []
    async with (
        headgate.Engine(limits={"*": {"concurrency": SLOTS}}, store=store) as engine,
        anyio.create_task_group() as tasks,
    ):

        async def share() -> None:
            reports.append(await engine.share(made, 300, started=parts.append))

        tasks.start_soon(share)
        while len(parts) < 2:  # noqa: ASYNC110 - nobody announces it
            await anyio.sleep(0.005)
        going = len(parts)
        if newest_is_over:
            parts[-1].stop(grace=0)
            await parts[-1].ended()
            going = sum(not part.done for part in parts)
        runs = engine.controls.look()["runs"]
        assert isinstance(runs, list)
        assert len(cast("list[object]", runs)) == going
        assert engine.controls.stop(grace=0) == ("halted",)
        assert all(part.stopping for part in parts)
    assert [report.status.value for report in reports] == ["stopped"]
    await store.aclose()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_failures_and_texts_as_rows(place: Place) -> None:
    """By the short way in, with group columns, rows with ids, and a bug in some of them."""

    async def shout(word: str) -> str:
        if word == "bad":
            raise ValueError(word)
        return word.upper()

    store = place.store()
    words = ["good", "bad", "fine"] * 50
    report = await headgate.amap(shout, words, store=store, share=True, run="words")
    assert (report.status.value, report.done, report.failed, report.accepted) == (
        "completed_with_failures", 100, 50, 150
    )  # fmt: skip
    assert store.read_info("words").status == "completed_with_failures"
    assert sum(report.failure_counts.values()) == 50
    await store.aclose()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_d7_who_shares_has_the_same_columns_as_the_others(place: Place) -> None:
    """Else one would complete groups without a column that another one needs."""
    one, other = place.store(), place.store()
    a = await one.join_run(RUN, {"a": "1"}, group_rows=2)
    await a.extend(4)
    claims = await a.claim(9, 30.0)
    with pytest.raises(FingerprintMismatch, match=r"columns \['a'\], not \['a', 'b'\]"):
        await other.join_run(RUN, {"a": "1", "b": "1"}, group_rows=2)
    with pytest.raises(FingerprintMismatch, match="'a'"):
        await other.join_run(RUN, {"a": "2"}, group_rows=2)
    await a.complete(claims)
    with pytest.raises(FingerprintMismatch, match="not"):  # it does not say what becomes of both of its columns
        await other.join_run(RUN, {"a": "1", "b": "1"}, group_rows=2, kept=["a"])
    b = await other.join_run(RUN, {"a": "1", "b": "1"}, group_rows=2, kept=["a", "b"])
    with pytest.raises(FencedOut):
        await a.claim(9, 30.0)
    c = await one.join_run(RUN, {"a": "1", "b": "1"}, group_rows=2, kept=["a", "b"])
    assert len(await b.claim(1, 30.0)) == len(await c.claim(9, 30.0)) == 1, (
        "what was complete has to get the new column"
    )
    await one.aclose()
    await other.aclose()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_d7_who_has_the_columns_of_now_joins_a_run_that_was_made_anew(place: Place) -> None:
    """Its fingerprints have marks by then; who has others is still told which ones, and no more than those."""
    store = place.store()
    for version in ("1", "2"):
        await headgate.arun(pipeline(version), 2, store=store, run=RUN)
    joined, notices = await join_run(store, RUN, pipeline("2").columns, "auto", group_rows=2)
    assert notices == ()
    changed = headgate.Pipeline(RUN)
    changed.column(name="answer", model="test/m", version="2")(pipeline("2").columns[0].fn)
    changed.column(name="length", version="2")(pipeline("2").columns[1].fn)
    with pytest.raises(FingerprintMismatch, match=r"^column 'length' of run .* has changed.*; it is shared"):
        await join_run(store, RUN, changed.columns, "auto", group_rows=2)
    await joined.aclose()
    await store.aclose()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("on_change", ["rerun", "keep"])
@pytest.mark.parametrize("longer", [False, True])
async def test_d7_of_two_that_change_a_run_at_once_the_second_joins_the_first(
    place: Place, monkeypatch: pytest.MonkeyPatch, on_change: OnChange, longer: bool
) -> None:
    """The first one does so between the two looks of the second. ``longer``: it has one column more."""
    before, after = pipeline("1").columns, pipeline("1" if longer else "2", longer=longer).columns
    old, first, second = place.store(), place.store(), place.store()
    await join_run(old, RUN, before, "auto", group_rows=2)
    joined: list[SharedRun] = []
    looks_up = second.read_info

    def look_up(run: str) -> RunInfo:
        async def join() -> None:
            joined.append((await join_run(first, RUN, after, on_change, group_rows=2))[0])

        anyio.from_thread.run(join)
        return looks_up(run)

    monkeypatch.setattr(second, "read_info", look_up)
    joined.append((await join_run(second, RUN, after, on_change, group_rows=2))[0])
    await joined[0].extend(4)
    assert [len(await one.claim(1, 30.0)) for one in joined] == [1, 1], "one of them has turned the other away"
    for store in (old, first, second):
        await store.aclose()
