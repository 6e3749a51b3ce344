"""What goes wrong between a PostgreSQL store and its server: lost answers, a server that is away, locks, damage."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import psycopg
import pytest
from anyio import from_thread, to_thread

from headgate.errors import (
    ConflictingResult,
    FencedOut,
    PayloadTooLarge,
    ResultCorrupt,
    ResultExpired,
    StoreError,
    StoreFull,
    StoreUnavailable,
)
from headgate.storage import Batch, Durability, PostgresStore, postgres_reads
from tests.integration.postgres_child import COLUMNS, RUN, batch, expected
from tests.integration.postgres_server import ROLE, Server, new_server, shared_server
from tests.integration.severed_line import Line, Moment

if TYPE_CHECKING:
    from collections.abc import Generator

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@contextmanager
def severed_line(server: Server) -> Generator[Line]:
    line = Line(server.port)
    try:
        yield line
    finally:
        line.close()


def address(line: Line) -> str:
    return f"postgresql://{ROLE}@127.0.0.1:{line.port}/postgres?sslmode=disable&gssencmode=disable"


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_commit_whose_answer_was_lost_is_made_once(moment: Moment) -> None:
    """D3: nobody knew whether it was done; the same again finds out, and does it only if it was not."""
    server = shared_server()
    with server.schema() as schema, severed_line(server) as line:
        store = PostgresStore(address(line), schema=schema)
        handle = await store.open_run(RUN, COLUMNS)
        for row in range(6):
            line.cut(moment)
            await handle.commit(batch(row))
            assert line.cuts == row + 1
        assert await handle.load(0, 9) == [expected(row) for row in range(6)]
        line.cut(moment)
        await handle.finish("completed")
        assert store.read_info(RUN).status == "completed"
        await store.aclose()


def taken_over(server: Server, schema: str) -> None:
    """Another engine opens the run."""

    async def take_over() -> None:
        store = PostgresStore(server.dsn, schema=schema)
        await store.open_run(RUN, COLUMNS)
        await store.aclose()

    thread = threading.Thread(target=anyio.run, args=(take_over,))
    thread.start()
    thread.join()


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_lost_answer_is_known_even_after_somebody_else_has_taken_over(moment: Moment) -> None:
    """D4: what was done before the new epoch was done, and is acknowledged; what was not is fenced out."""
    server = shared_server()
    with server.schema() as schema, severed_line(server) as line:
        store = PostgresStore(address(line), schema=schema)
        handle = await store.open_run(RUN, COLUMNS)
        await handle.commit(batch(0))
        line.cut(moment, lambda: taken_over(server, schema))
        if moment == "after":
            await handle.commit(batch(1))
        else:
            with pytest.raises(FencedOut):
                await handle.commit(batch(1))
        assert list(store.read_rows(RUN)) == [expected(row) for row in range(2 if moment == "after" else 1)]
        with pytest.raises(FencedOut):
            await handle.commit(batch(2))
        await store.aclose()


async def test_a_statement_that_comes_late_from_a_lost_connection_changes_nothing() -> None:
    """The server may still work at it when the same was done, or given up, on another connection."""
    server = shared_server()
    with server.schema() as schema:
        store = PostgresStore(server.dsn, schema=schema)
        handle = await store.open_run(RUN, COLUMNS)
        for row in range(3):
            await handle.commit(batch(row))
        late = f"SELECT {schema}.enter(1, 1, %d)"
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute(f"SET search_path = {schema}".encode())
            words = [connection.execute((late % sequence).encode()).fetchone() for sequence in (1, 4, 5)]
        assert words == [("done",), ("done",), ("go",)]
        await store.aclose()


async def test_a_server_that_is_away_is_said_to_be_and_found_again() -> None:
    """D9: retryable, with the address and the cure; the handle of before still works when the server is back."""
    server = new_server()
    store = PostgresStore(server.dsn, reconnect_s=0.2)
    handle = await store.open_run(RUN, COLUMNS)
    await handle.commit(batch(0))
    server.stop()
    for ask in (lambda: handle.commit(batch(1)), lambda: handle.load(0, 9), lambda: handle.finish("completed")):
        with pytest.raises(StoreUnavailable, match="check that the server runs") as caught:
            await ask()
        assert caught.value.retryable
    with pytest.raises(StoreUnavailable):
        await to_thread.run_sync(store.read_info, RUN)
    never = PostgresStore(server.dsn)
    with pytest.raises(StoreUnavailable):  # at once, for nobody has seen it there
        await never.probe()
    server.start()
    await handle.commit(batch(1))
    assert list(store.read_rows(RUN)) == [expected(0), expected(1)]
    await store.aclose()
    await never.aclose()
    server.remove()


async def test_a_server_that_is_starting_is_waited_for() -> None:
    """Also by a store that had no connection before: a server that is coming back is no wrong address."""
    server = new_server()
    try:
        server.stop()
        server.start_as_standby()
        impatient = PostgresStore(server.dsn, reconnect_s=0.0)
        with pytest.raises(StoreUnavailable, match=r"not accepting connections|starting up"):
            await impatient.open_run(RUN, COLUMNS)
        store = PostgresStore(server.dsn, reconnect_s=60)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(store.open_run, RUN, COLUMNS)
            await anyio.sleep(0.1)
            server.promote()
        assert store.read_info(RUN).status == "running"
        await impatient.aclose()
        await store.aclose()
    finally:
        server.remove()


async def test_reading_goes_on_after_the_server_was_restarted() -> None:
    server = new_server()
    store = PostgresStore(server.dsn)
    handle = await store.open_run(RUN, COLUMNS)
    for row in range(6):
        await handle.commit(batch(row))
    rows = store.read_rows(RUN, batch=2)
    assert next(rows) == expected(0)
    server.kill()
    server.start()
    assert list(rows) == [expected(row) for row in range(1, 6)]
    await store.aclose()
    server.remove()


async def test_a_full_disk_is_said_to_be_and_takes_no_other_commit_along() -> None:
    """D9: retryable; what was acknowledged is safe, and the rest of the group is committed."""
    server = shared_server()
    with server.schema() as schema:
        store = PostgresStore(server.dsn, schema=schema)
        handle = await store.open_run(RUN, COLUMNS)
        # The server's own error for a disk that is full, raised for one row.
        server.execute(
            f"CREATE FUNCTION {schema}.full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$; "
            f"CREATE TRIGGER full_disk BEFORE INSERT ON {schema}.input_row FOR EACH ROW WHEN (NEW.position = 3) "
            f"EXECUTE FUNCTION {schema}.full()"
        )
        refusals: list[int] = []

        async def commit(row: int) -> None:
            try:
                await handle.commit(batch(row))
            except StoreFull:
                refusals.append(row)

        async with anyio.create_task_group() as tasks:
            for row in range(8):
                tasks.start_soon(commit, row)
        assert refusals == [3]
        server.execute(f"DROP TRIGGER full_disk ON {schema}.input_row")
        await handle.commit(batch(3))
        assert list(store.read_rows(RUN)) == [expected(row) for row in range(8)]
        await store.aclose()


async def test_somebody_who_locks_a_table_is_waited_for_and_then_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """T55: a lock of somebody else killed the run."""
    monkeypatch.setattr("headgate.storage.postgres_link._LOCK_MS", 300)
    server = shared_server()
    with server.schema() as schema:
        store = PostgresStore(server.dsn, schema=schema, reconnect_s=0.0)
        handle = await store.open_run(RUN, COLUMNS)
        with psycopg.connect(server.dsn) as other:
            other.execute(f"LOCK TABLE {schema}.cell".encode())
            with pytest.raises(StoreUnavailable, match="somebody else keeps it locked"):
                await handle.commit(batch(0))
        await handle.commit(batch(0))
        assert list(store.read_rows(RUN)) == [expected(0)]
        await store.aclose()


async def test_a_server_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for without end; the commit is made when the server goes on, and made once."""
    monkeypatch.setattr("headgate.storage.postgres_link._ANSWER_S", 0.3)
    monkeypatch.setattr("headgate.storage.postgres_link._LOCK_MS", 60_000)
    server = shared_server()
    with server.schema() as schema:
        store = PostgresStore(server.dsn, schema=schema, reconnect_s=0.0)
        handle = await store.open_run(RUN, COLUMNS)
        with psycopg.connect(server.dsn) as other:
            other.execute(f"LOCK TABLE {schema}.cell".encode())
            with pytest.raises(StoreUnavailable):
                await handle.commit(batch(0))
        await handle.commit(batch(0))
        assert list(store.read_rows(RUN)) == [expected(0)]
        await store.aclose()


async def test_a_run_that_is_swept_while_it_is_read_is_whole_or_expired() -> None:
    """Its columns were gone before its cells: that was a KeyError."""
    server = shared_server()
    with server.schema() as schema:
        reader, sweeper = (PostgresStore(server.dsn, schema=schema) for _ in range(2))
        handle = await sweeper.open_run(RUN, COLUMNS)
        await handle.commit(batch(0))
        await handle.finish("completed")
        asked = postgres_reads.columns

        def columns(connection: psycopg.Connection[Any], number: int) -> dict[str, int]:
            from_thread.run(partial(sweeper.sweep, keep_s=0.0))
            return asked(connection, number)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("headgate.storage.postgres_reads.columns", columns)
            assert await to_thread.run_sync(lambda: list(reader.read_rows(RUN, batch=2))) == [expected(0)]
        with pytest.raises(ResultExpired):
            reader.read_rows(RUN)
        await reader.aclose()
        await sweeper.aclose()


async def test_t45_a_damaged_payload_is_named_and_final() -> None:
    server = shared_server()
    with server.schema() as schema:
        store = PostgresStore(server.dsn, schema=schema)
        handle = await store.open_run(RUN, COLUMNS)
        await handle.commit(batch(0))
        server.execute(f"UPDATE {schema}.cell SET payload = '\\x2278' WHERE payload IS NOT NULL")
        with pytest.raises(ResultCorrupt, match="row 0 of run 'run': column 'a'") as caught:
            list(store.read_rows(RUN))
        assert not caught.value.retryable
        await store.aclose()


async def test_a_commit_that_no_message_can_hold_is_refused() -> None:
    server = shared_server()
    with server.schema() as schema:
        store = PostgresStore(server.dsn, schema=schema)
        handle = await store.open_run(RUN, COLUMNS)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("headgate.storage.postgres_writer._BATCH_BYTES", 10)
            with pytest.raises(PayloadTooLarge, match="commit it in parts"):
                await handle.commit(batch(0))
        await handle.commit(batch(0))
        await store.aclose()


async def test_a_commit_reads_what_it_writes_and_not_what_is_there() -> None:
    """S4: the planner joined the records with all rows of the run, as long as it had no statistics."""
    server = shared_server()
    others = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    with server.schema() as schema:
        earlier = set(server.execute(others))
        store = PostgresStore(server.dsn, schema=schema, durability=Durability.PROCESS)
        handle = await store.open_run(RUN, COLUMNS)
        commits, rows = 40, 20
        for first in range(0, commits * rows, rows):
            parts = [batch(row) for row in range(first, first + rows)]
            whole = Batch(
                rows=tuple(part.rows[0] for part in parts),
                cells=tuple(cell for part in parts for cell in part.cells),
                held=tuple(part.held[0] for part in parts),
                spent=tuple(part.spent[0] for part in parts),
            )
            await handle.commit(whole)
            await handle.commit(whole)  # what is there is compared
        theirs = set(server.execute(others)) - earlier
        assert theirs
        await store.aclose()
        # They say what they have read when they end, which is after we are told that they will.
        with anyio.fail_after(60):
            while not theirs.isdisjoint(server.execute(others)):  # noqa: ASYNC110 - it is of the server
                await anyio.sleep(0.01)
        [(read,)] = server.execute(
            "SELECT sum(coalesce(idx_tup_fetch, 0) + seq_tup_read) FROM pg_stat_user_tables "
            f"WHERE schemaname = '{schema}'"
        )
        assert rows * commits < read < 20 * rows * commits


async def test_a_refusal_does_not_fill_the_servers_log() -> None:
    server = shared_server()
    with server.schema() as schema:
        store = PostgresStore(server.dsn, schema=schema)
        handle = await store.open_run(RUN, COLUMNS)
        await handle.commit(batch(0))
        other = batch(0)
        before = server.log()
        with pytest.raises(ConflictingResult):
            await handle.commit(Batch(cells=(replace(other.cells[0], payload=b"1"),)))
        await store.open_run(RUN, COLUMNS)
        with pytest.raises(StoreError):
            await handle.commit(batch(1))
        assert server.log() == before
        await store.aclose()
