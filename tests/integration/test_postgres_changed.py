"""Columns that begin anew and reopened cells in PostgreSQL, beyond what the suite asks of all stores (D3, D4, D7)."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from headgate.errors import ClaimLost, ConflictingResult, SchemaMismatch
from headgate.storage import Batch, CellRecord, CellStatus, Durability, PostgresStore, RowRecord, StoredRow
from headgate.values import Usage
from tests.integration.postgres_child import COLUMNS, RUN, batch, expected
from tests.integration.postgres_server import Server, shared_server

if TYPE_CHECKING:
    from collections.abc import Generator

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])

RENEWED = {**COLUMNS, "a": "2"}


@contextmanager
def place() -> Generator[tuple[Server, str, PostgresStore]]:
    server = shared_server()
    with server.schema() as schema:
        yield server, schema, PostgresStore(server.dsn, schema=schema, durability=Durability.PROCESS)


async def test_a_store_of_the_version_before_is_brought_up_to_date_by_the_first_write() -> None:
    """Then it has generations, and what it had is the first one. Reading only says that this is needed."""
    with place() as (server, schema, store):
        handle = await store.open_run(RUN, COLUMNS)
        await handle.commit(batch(0))
        await store.aclose()
        server.execute(
            f"ALTER TABLE {schema}.run_column DROP COLUMN number; DROP TABLE {schema}.generation; "
            f"DROP TABLE {schema}.register; "
            f"DROP FUNCTION {schema}.open_run; UPDATE {schema}.headgate_store SET version = 2"
        )
        earlier = "text, text[], text[], double precision, integer"
        server.execute(f"CREATE FUNCTION {schema}.open_run({earlier}) RETURNS void LANGUAGE sql AS 'SELECT'")
        store = PostgresStore(server.dsn, schema=schema, durability=Durability.PROCESS)
        for _ in range(2):
            with pytest.raises(
                SchemaMismatch, match=r"made by an older headgate .* probe the store, which brings it up"
            ):
                list(store.read_rows(RUN))
        assert server.execute(f"SELECT version FROM {schema}.headgate_store") == [(2,)]
        await store.open_run(RUN, RENEWED, renewed=["a"])
        (row,) = store.read_rows(RUN)
        assert [cell.column for cell in row.cells] == ["b"]
        await store.open_run(RUN, COLUMNS, renewed=["a"])
        assert list(store.read_rows(RUN)) == [expected(0)]
        # Who opened runs as the earlier version does would write to the wrong cells.
        assert server.execute(f"SELECT to_regprocedure('{schema}.open_run({earlier})')") == [(None,)]
        await store.aclose()


async def test_a_refusal_names_the_cell_that_is_wrong_and_not_one_that_is_reopened() -> None:
    """Nothing is reopened then, and nothing is taken off the tokens."""
    with place() as (_, _, store):
        handle = await store.open_run(RUN, COLUMNS)
        await handle.commit(Batch(rows=batch(0).rows, cells=(*batch(0).cells, _done("c", b"1"))))
        spent = store.read_spent(RUN)
        handle = await store.open_run(RUN, COLUMNS)
        with pytest.raises(ConflictingResult, match=r"cell \(0, 'c'\)"):
            await handle.commit(Batch(reopened=((0, "b"),), cells=(_done("b", b"2"), _done("c", b"2"))))
        (row,) = await handle.load(0, 9)
        assert [(cell.column, cell.status) for cell in row.cells] == [("a", "done"), ("b", "failed"), ("c", "done")]
        assert store.read_spent(RUN) == spent
        await store.aclose()


async def test_what_is_reopened_belongs_to_a_group_that_is_held() -> None:
    """D4: a cell of somebody else's row is not taken off."""
    with place() as (_, _, store):
        alone = await store.open_run(RUN, COLUMNS)
        await alone.commit(batch(0))
        run = await store.join_run(RUN, COLUMNS, group_rows=2)
        await run.extend(4)
        with pytest.raises(ClaimLost):
            await run.commit(Batch(reopened=((0, "b"),)))
        assert await run.load(0, 9) == [expected(0)]
        other = await store.join_run(RUN, COLUMNS, group_rows=2)
        await run.claim(1, 0.0)
        await other.claim(1, 1e6)
        with pytest.raises(ClaimLost):
            await run.commit(Batch(reopened=((0, "b"),)))
        await other.commit(Batch(reopened=((0, "b"),)))
        (row,) = await run.load(0, 9)
        assert [cell.column for cell in row.cells] == ["a"]
        await store.aclose()


async def test_groups_are_open_again_when_a_column_begins_anew() -> None:
    """They were complete with what is put aside. A column that is kept opens none."""
    with place() as (_, _, store):
        run = await store.join_run(RUN, COLUMNS, group_rows=2)
        await run.extend(4)
        await run.complete(await run.claim(9, 1e6))
        await store.open_run(RUN, RENEWED, kept=["a"])
        run = await store.join_run(RUN, RENEWED, group_rows=2)
        assert await run.claim(9, 1e6) == []
        await store.open_run(RUN, COLUMNS, renewed=["a"])
        run = await store.join_run(RUN, COLUMNS, group_rows=2)
        assert [claim.group for claim in await run.claim(9, 1e6)] == [0, 1]
        await store.aclose()


async def test_generations_are_many_and_each_comes_back() -> None:
    """Every column of a run has its own; the tokens of all are on record, until the run is swept."""
    with place() as (server, schema, store):
        row = RowRecord(0, "id0", b"d", b"{}")
        for turn, mark in enumerate("12341234"):
            handle = await store.open_run(RUN, {"x": mark, "y": mark}, renewed="xy")
            cells = tuple(replace(_done(name, f'"{mark}"'.encode()), usage=Usage(1, 1)) for name in "xy")
            if turn < 4:
                assert all(not stored.cells for stored in await handle.load(0, 9))
                await handle.commit(Batch(rows=(row,), cells=cells))
            assert await handle.load(0, 9) == [StoredRow(row, cells, ())]
        assert store.read_spent(RUN) == {"x": Usage(4, 4), "y": Usage(4, 4)}
        await (await store.open_run(RUN, {})).finish("completed")
        assert (await store.sweep(keep_s=0.0)).runs == (RUN,)
        assert server.execute(f"SELECT count(*) FROM {schema}.generation") == [(0,)]
        await store.open_run(RUN, {"x": "1"})
        handle = await store.open_run(RUN, {"x": "2"}, renewed="x")
        await handle.commit(Batch(rows=(row,)))
        assert await handle.load(0, 9) == [StoredRow(row, (), ())]
        assert store.read_spent(RUN) == {}
        await store.aclose()


async def test_reopening_reads_what_it_takes_off_and_not_what_is_there() -> None:
    """S4, as with every other part of a commit."""
    commits, rows = 20, 20
    with place() as (server, schema, first):
        await first.aclose()
        read: list[int] = []
        for reopens in (False, True):
            store = PostgresStore(server.dsn, schema=schema, durability=Durability.PROCESS)
            handle = await store.open_run(RUN, COLUMNS)
            for start in range(0, commits * rows, rows):
                parts = [batch(row) for row in range(start, start + rows)]
                given = Batch(rows=tuple(p.rows[0] for p in parts), cells=tuple(c for p in parts for c in p.cells))
                if reopens:
                    given = Batch(reopened=tuple((row.row, "b") for row in given.rows))
                await handle.commit(given)
                await handle.commit(given)
            await store.aclose()
            written = "n_tup_del" if reopens else "n_tup_ins / 2"
            _wait_for_count(server, schema, f"CASE relname WHEN 'cell' THEN {written} END", rows * commits)
            read.append(_counted(server, schema, "coalesce(idx_tup_fetch, 0) + seq_tup_read"))
        assert rows * commits <= read[1] - read[0] < 20 * rows * commits
        store = PostgresStore(server.dsn, schema=schema)
        assert {len(row.cells) for row in store.read_rows(RUN)} == {1}
        await store.aclose()


def _counted(server: Server, schema: str, what: str) -> int:
    [(found,)] = server.execute(f"SELECT sum({what})::bigint FROM pg_stat_user_tables WHERE schemaname = '{schema}'")
    return int(found or 0)


def _wait_for_count(server: Server, schema: str, what: str, count: int) -> None:
    """The server process of a connection counts when it ends, which nobody is told."""
    give_up_at = time.monotonic() + 30.0
    while _counted(server, schema, what) < count:
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


def _done(column: str, payload: bytes) -> CellRecord:
    return CellRecord(0, column, CellStatus.DONE, payload)
