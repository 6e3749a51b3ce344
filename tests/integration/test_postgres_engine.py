"""The engine on a PostgreSQL store: `store="postgresql://..."`, resume, a server that is restarted in the middle."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import anyio
import psycopg
import pytest
from anyio import to_thread

import headgate
from headgate import Pipeline
from headgate.storage import PostgresStore
from tests.integration.postgres_server import new_server, shared_server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def database() -> Iterator[str]:
    """The address of an empty database."""
    server = shared_server()
    server.execute("CREATE DATABASE answers")
    try:
        yield server.address(database="answers")
    finally:
        server.execute("DROP DATABASE answers WITH (FORCE)")


def pipeline(calls: list[str]) -> Pipeline:
    made = Pipeline("tickets")

    @made.column
    async def shout(topic: str) -> str:
        calls.append(topic)
        await anyio.sleep(0.001)
        return topic.upper()

    @made.column
    async def length(shout: str) -> int:
        return len(shout)

    return made


def topics(count: int) -> list[dict[str, object]]:
    return [{"topic": f"topic {number}"} for number in range(count)]


async def test_a_run_is_resumed_and_extended_at_the_grain_of_a_cell(database: str) -> None:
    """D8, T53: 100, 110, 150 rows; nothing that is there is asked for again."""
    for count, asked in ((100, 100), (110, 10), (110, 0), (150, 40)):
        calls: list[str] = []
        report = await headgate.arun(pipeline(calls), topics(count), store=database)
        assert (report.done, len(calls)) == (count, asked)
    results = [row["length"] for row in await to_thread.run_sync(lambda: list(report.results()))]
    assert results == [len(f"topic {number}") for number in range(150)]
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM headgate.cell").fetchone() == (300,)


async def test_how_to_resume_is_said_without_the_password(database: str) -> None:
    address = database.replace("headgate@", "headgate:secret@")
    async with headgate.Engine(store=address) as engine:
        run = await engine.start(pipeline([]), topics(10))
        run.stop()
        hint = (await run.wait()).resume_hint
        assert "resume: run it again with store='the same store'" in hint


async def test_a_run_outlives_a_restart_of_the_server() -> None:
    """D9: the rows that wait for their commit wait, and the run ends as if nothing had been."""
    server = new_server()
    store = PostgresStore(server.dsn, reconnect_s=60)
    ended = threading.Event()

    def restart() -> None:
        for _ in range(6):
            if ended.wait(0.3):
                return
            server.kill()
            server.start()

    calls: list[str] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(to_thread.run_sync, restart)
        try:
            report = await headgate.arun(pipeline(calls), topics(600), store=store)
        finally:
            ended.set()
        assert (report.done, len(calls)) == (600, 600)
    assert len(list(store.read_rows("tickets"))) == 600
    await store.aclose()
    server.remove()
