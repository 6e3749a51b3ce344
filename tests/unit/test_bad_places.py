"""Bad input about where things are: outputs, stores, runs of somebody else, endpoints; and calls at the wrong time."""

from __future__ import annotations

import os
import socket
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import headgate
from headgate.errors import (
    ConfigError,
    ConflictingResult,
    FingerprintMismatch,
    HeadgateError,
    SchemaMismatch,
    StoreError,
    StoreUnsupported,
)
from headgate.testing.clock import run_virtual
from tests.unit.refusals import calls, echo, refused, run, topics

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _fresh() -> None:
    calls.clear()


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    with refused(ConfigError, "out.csv", ".jsonl"):
        run(echo(), topics(3), out=tmp_path / "out.csv")
    with refused(ConfigError, "nowhere", "folder does not exist"):
        run(echo(), topics(3), out=tmp_path / "nowhere" / "out.jsonl")
    (tmp_path / "taken.jsonl").mkdir()
    with refused(ConfigError, "taken.jsonl", "it is a folder"):
        run(echo(), topics(3), out=tmp_path / "taken.jsonl")


def test_an_output_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)  # pyright: ignore
    with refused(ConfigError, "cannot be written to"):
        run(echo(), topics(3), out=tmp_path / "out.jsonl")


def test_a_store_that_is_no_place(tmp_path: Path) -> None:
    with refused(ConfigError, "is a directory", "answers.db"):
        run(echo(), topics(3), store=tmp_path)
    with refused(ConfigError, "does not exist", "nowhere"):
        run(echo(), topics(3), store=tmp_path / "nowhere" / "s.db")
    with refused(ConfigError, "mysql://", "postgresql:// address"):
        run(echo(), topics(3), store="mysql://host/db")


def test_a_file_that_is_no_store_of_ours(tmp_path: Path) -> None:
    """D9: it is named, and not changed by one byte."""
    text = tmp_path / "notes.txt"
    text.write_bytes(b"my only copy\n" * 100)
    with refused(SchemaMismatch, "notes.txt", "not a database", "another path"):
        run(echo(), topics(3), store=text)
    assert text.read_bytes() == b"my only copy\n" * 100

    foreign = tmp_path / "foreign.db"
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE mine (x)")
        connection.commit()
    before = foreign.read_bytes()
    with refused(SchemaMismatch, "foreign.db", "not a headgate store"):
        run(echo(), topics(3), store=foreign)
    assert foreign.read_bytes() == before


def test_a_store_of_another_version(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    run_twice(tmp_path, topics(1), topics(1))
    calls.clear()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
        connection.commit()
    with refused(SchemaMismatch, "s.db", "99"):
        run(echo(), topics(3), store=path)


def run_twice(tmp_path: Path, first: Any, second: Any, **more: Any) -> headgate.RunReport:
    """The same run on one store, first over ``first``, then over ``second``."""

    def once(rows: Any) -> headgate.RunReport:
        async def main() -> headgate.RunReport:
            return await headgate.arun(echo(), rows, store=tmp_path / "s.db", **more)

        return anyio.run(main)

    assert once(first).status is headgate.RunStatus.COMPLETED
    calls.clear()
    return once(second)


def test_the_same_run_over_other_rows(tmp_path: Path) -> None:
    other = topics(5)
    other[3] = {"topic": "something else"}
    with refused(FingerprintMismatch, "row 3", "another name"):
        run_twice(tmp_path, topics(5), other)


def test_the_same_run_over_rows_in_another_order(tmp_path: Path) -> None:
    with refused(StoreError, "t0", "another name"):
        run_twice(tmp_path, topics(5), [*topics(5)[1:], {"topic": "t0"}], row_id="topic")


def test_a_row_that_moved_behind_new_ones(tmp_path: Path) -> None:
    rows = [{"topic": "new"}, {"topic": "t0"}]
    with refused((ConflictingResult, FingerprintMismatch), "another name"):  # type: ignore[arg-type] # pyright: ignore
        run_twice(tmp_path, topics(1), rows, row_id="topic")


def test_a_changed_column_under_the_same_run(tmp_path: Path) -> None:
    run_twice(tmp_path, topics(2), topics(2))
    pipeline = headgate.Pipeline("echo")

    @pipeline.column(model="openai/gpt-x", version="2")
    async def answer(topic: str) -> str:
        calls.append(topic)
        return topic

    calls.clear()
    with refused(FingerprintMismatch, "'answer'", "'echo'", "on_change="):
        run(pipeline, topics(2), store=tmp_path / "s.db", on_change="refuse")


def test_a_run_name_that_is_in_use() -> None:
    async def main() -> None:
        async with headgate.Engine() as engine:
            first = await engine.start(slow(), 3, run="mine")
            with refused(ConfigError, "'mine'", "another name", spent=3):
                await engine.start(slow(), 3, run="mine")
            assert (await first.wait()).done == 3
            again = await engine.start(slow(), 3, run="mine")
            assert (await again.wait()).restored == 3

    run_virtual(main)


def slow() -> headgate.Pipeline:
    pipeline = headgate.Pipeline("slow")

    @pipeline.column(model="openai/gpt-x")
    async def answer(row: int) -> int:
        await anyio.sleep(1.0)
        return row

    return pipeline


def test_rows_asked_for_too_late() -> None:
    async def main() -> None:
        async with headgate.Engine() as engine:
            going = await engine.start(slow(), 100)
            await anyio.sleep(5.0)
            with refused(HeadgateError, "rows()", "too late"):
                async for _ in going.rows():
                    pass
            assert (await going.wait()).done == 100

    run_virtual(main)


def test_starting_outside_of_the_engine() -> None:
    async def main() -> None:
        with refused(HeadgateError, "async with headgate.Engine"):
            await headgate.Engine().start(echo(), topics(1))

    run_virtual(main)


def test_a_request_outside_of_an_engine() -> None:
    with refused(HeadgateError, "headgate.request()", "async with headgate.Engine"):
        headgate.request("openai/gpt-x")
    assert headgate.current_lease() is None


def test_an_endpoint_that_refuses_connections(tmp_path: Path) -> None:
    """Nothing fails for good and nothing is hammered: the rows are held, and the report names the resource."""
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    pipeline = headgate.Pipeline("p")

    @pipeline.column(model="openai/gpt-x")
    async def answer(row: int) -> str:
        calls.append(row)
        await anyio.connect_tcp("127.0.0.1", port)
        return "connected"

    async def main() -> headgate.RunReport:
        return await headgate.arun(pipeline, 500, store=tmp_path / "s.db", patience=0.5)

    report = anyio.run(main)
    assert report.status is headgate.RunStatus.HELD
    assert report.exit_code == 4
    assert (report.failed, report.held) == (0, 500)
    assert len(calls) <= 40
    text = str(report)
    assert "openai/gpt-x" in text
    assert "run it again" in text
    assert "connection" in " ".join(report.notices).lower(), text


def test_a_store_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)  # pyright: ignore
    with refused(StoreUnsupported, "s.db", "no permission"):
        run(echo(), topics(3), store=tmp_path / "s.db")
