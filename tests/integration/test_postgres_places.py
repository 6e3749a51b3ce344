"""Where a PostgreSQL store may live: addresses, rights, settings, schemas, versions. What is missing is named (D9)."""

from __future__ import annotations

from typing import LiteralString, cast

import anyio
import psycopg
import pytest

from headgate.errors import (
    ConfigError,
    HeadgateError,
    SchemaMismatch,
    StoreUnavailable,
    StoreUnsupported,
    UnknownRun,
)
from headgate.storage import Durability, PostgresStore
from headgate.storage.postgres_schema import bring_up
from headgate.storage.postgres_tables import STEPS
from tests.integration.postgres_child import COLUMNS, RUN, batch, expected
from tests.integration.postgres_server import ROLE, new_server, shared_server

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])


async def refused(store: PostgresStore) -> str:
    """What a store says that cannot be used."""
    with pytest.raises(HeadgateError) as caught:
        await store.probe()
    await store.aclose()
    return f"{type(caught.value).__name__}: {caught.value}"


async def test_what_is_missing_is_named() -> None:
    """D9: the wrong address, database, role, rights: each says what to do, and is not worth another try."""
    server = shared_server()
    with server.schema() as schema:
        server.execute(f"CREATE ROLE r_{schema} LOGIN")
        try:
            for dsn, kind, words in (
                (server.address(database="nowhere"), StoreUnsupported, 'database "nowhere" does not exist'),
                (server.address(user="nobody"), StoreUnsupported, 'role "nobody" does not exist'),
                (server.address(user=f"r_{schema}"), StoreUnsupported, f"CREATE SCHEMA {schema} AUTHORIZATION r_"),
                (
                    server.address(options="?options=-cdefault_transaction_read_only%3Don"),
                    StoreUnsupported,
                    "read-only",
                ),
                (f"{server.dsn}?nonsense=1", ConfigError, "nonsense"),
                ("postgresql://127.0.0.1:1/x?user=a", StoreUnavailable, "127.0.0.1"),
                ("postgresql://no.such.host.invalid/x", StoreUnavailable, "no.such.host.invalid"),
            ):
                said = await refused(PostgresStore(dsn, schema=schema))
                assert said.startswith(f"{kind.__name__}: "), said
                assert words in said, said
            server.execute(f"CREATE SCHEMA {schema}")
            said = await refused(PostgresStore(server.address(user=f"r_{schema}"), schema=schema))
            assert f"GRANT USAGE, CREATE ON SCHEMA {schema} TO r_{schema}" in said
        finally:
            server.execute(f"DROP ROLE r_{schema}")


async def test_rights_that_are_missing_on_the_tables_are_named() -> None:
    server = shared_server()
    with server.schema() as schema:
        store = PostgresStore(server.dsn, schema=schema)
        handle = await store.open_run(RUN, COLUMNS)
        await handle.commit(batch(0))
        role = f"r_{schema}"
        server.execute(f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA {schema} TO {role}")
        server.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}")
        try:
            reader = PostgresStore(server.address(user=role), schema=schema)
            assert list(reader.read_rows(RUN)) == [expected(0)]
            with pytest.raises(StoreUnsupported, match="permission denied"):
                await reader.open_run(RUN, COLUMNS)
            server.execute(f"GRANT CREATE ON SCHEMA {schema} TO {role}")
            with pytest.raises(StoreUnsupported, match="GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES"):
                await reader.probe()
            await reader.aclose()
        finally:
            server.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
        await store.aclose()


async def test_a_password_is_never_shown() -> None:
    server = shared_server()
    for place in (
        f"127.0.0.1:{server.port}/nowhere",
        "127.0.0.1:1/x",
        "[127.0.0.1/x",
        f"127.0.0.1:{server.port}/x?y=1",
    ):
        assert "secret" not in await refused(PostgresStore(f"postgresql://{ROLE}:secret@{place}"))


async def test_a_server_that_may_lose_everything_is_not_taken_for_durable() -> None:
    """D1: what a power loss takes away is not acknowledged as if it stayed."""
    server = new_server("-c", "fsync=off")
    assert "fsync or full_page_writes off" in await refused(PostgresStore(server.dsn))
    store = PostgresStore(server.dsn, durability=Durability.PROCESS)
    await store.probe()
    await store.aclose()
    server.remove()


async def test_a_schema_of_somebody_else_is_left_alone() -> None:
    server = shared_server()
    with server.schema() as schema:
        server.execute(f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.theirs (x integer)")
        store = PostgresStore(server.dsn, schema=schema)
        with pytest.raises(SchemaMismatch, match="something else than a store"):
            await store.probe()
        with pytest.raises(SchemaMismatch):
            store.read_info(RUN)
        assert server.execute(f"SELECT relname FROM pg_class WHERE relnamespace = '{schema}'::regnamespace") == [
            ("theirs",)
        ]
        await store.aclose()


async def test_a_store_of_a_newer_headgate_is_refused() -> None:
    server = shared_server()
    with server.schema() as schema:
        store = PostgresStore(server.dsn, schema=schema)
        await store.probe()
        await store.aclose()
        server.execute(f"UPDATE {schema}.headgate_store SET version = 99")
        store = PostgresStore(server.dsn, schema=schema)
        for _ in range(2):
            with pytest.raises(SchemaMismatch, match="upgrade headgate"):
                await store.probe()
        await store.aclose()


async def test_reading_makes_nothing() -> None:
    server = shared_server()
    with server.schema() as schema:
        store = PostgresStore(server.dsn, schema=schema)
        with pytest.raises(UnknownRun):
            store.read_info(RUN)
        assert server.execute(f"SELECT to_regnamespace('{schema}')") == [(None,)]
        await store.aclose()


async def test_many_who_come_first_make_the_tables_once() -> None:
    server = shared_server()
    with server.schema() as schema:
        stores = [PostgresStore(server.dsn, schema=schema) for _ in range(8)]
        epochs: list[int] = []

        async def open_run(store: PostgresStore) -> None:
            epochs.append((await store.open_run(RUN, COLUMNS)).info.epoch)

        async with anyio.create_task_group() as tasks:
            for store in stores:
                tasks.start_soon(open_run, store)
        assert sorted(epochs) == list(range(1, 9))
        for store in stores:
            await store.aclose()


async def test_an_earlier_version_is_brought_up_to_date_and_keeps_what_it_has() -> None:
    """A step is added to those of today, as the next version will."""
    server = shared_server()
    with server.schema() as schema:
        store = PostgresStore(server.dsn, schema=schema)
        handle = await store.open_run(RUN, COLUMNS)
        await handle.commit(batch(0))
        step: tuple[LiteralString, ...] = ("ALTER TABLE run ADD COLUMN colour text DEFAULT 'blue'",)
        later: tuple[tuple[LiteralString, ...], ...] = (*STEPS, step)
        for _ in range(2):
            with psycopg.connect(server.dsn, autocommit=True) as connection:
                connection.execute(f"SET search_path = {schema}".encode())
                bring_up(connection, schema, later)
        assert server.execute(f"SELECT version FROM {schema}.headgate_store") == [(len(later),)]
        assert server.execute(f"SELECT colour, epoch FROM {schema}.run") == [("blue", 1)]
        # A process of the earlier version that has it open goes on.
        await handle.commit(batch(1))
        await store.aclose()


async def test_a_store_without_its_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cast("dict[str, object]", __import__("sys").modules), "psycopg", None)
    assert "pip install 'headgate[postgres]'" in await refused(PostgresStore("postgresql://host/db"))
