"""Whether a database holds a store, which version of it, and making or bringing up what is missing.

A schema is ours if it has our table ``headgate_store``, which names the version. One that has other tables instead is
left alone. Processes that come at the same time do it once: the first one holds a lock until the transaction ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, LiteralString

from ..errors import SchemaMismatch, StoreUnsupported
from .postgres_functions import FUNCTIONS
from .postgres_tables import READABLE_SINCE, STEPS, VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import Connection

    from .ports import Durability

__all__ = ["bring_up", "check_readable", "check_server"]

_LOCK_KEY: Final = 0x68656164
_VERSION_TABLE: Final = "CREATE TABLE headgate_store (version integer NOT NULL)"

# In one query, so that nobody makes the store between two looks.
_WHAT_IS_THERE: Final = """SELECT count(*) > 0, coalesce(bool_or(relname = 'headgate_store'), false)
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE nspname = %s"""
_MAY: Final = """SELECT current_user, current_database(),
    has_database_privilege(current_database(), 'CREATE'),
    EXISTS (SELECT FROM pg_namespace WHERE nspname = %s),
    coalesce((SELECT has_schema_privilege(oid, 'USAGE') AND has_schema_privilege(oid, 'CREATE')
        FROM pg_namespace WHERE nspname = %s), false),
    pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean"""
_SETTINGS: Final = "SELECT current_setting('fsync')::boolean, current_setting('full_page_writes')::boolean"
_FORBIDDEN: Final = """SELECT string_agg(relname, ', ' ORDER BY relname)
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = %s AND (
        relkind = 'S' AND NOT has_sequence_privilege(pg_class.oid, 'USAGE')
        OR relkind = 'r' AND relname <> 'headgate_store'
            AND NOT (has_table_privilege(pg_class.oid, 'SELECT') AND has_table_privilege(pg_class.oid, 'INSERT')
                AND has_table_privilege(pg_class.oid, 'UPDATE') AND has_table_privilege(pg_class.oid, 'DELETE')))"""


def _version_of(connection: Connection[Any], schema: str, newest: int = VERSION) -> int | None:
    """Return the version of the store in ``schema``, None if there is none. It changes nothing.

    Raises SchemaMismatch for something else than a store of a version up to ``newest``.
    """
    there = connection.execute(_WHAT_IS_THERE, (schema,)).fetchone()
    if there == (False, False):
        return None
    if there != (True, True):
        raise SchemaMismatch(f"the schema {schema!r} holds something else than a store: give the store another schema")
    found = connection.execute("SELECT version FROM headgate_store").fetchone()
    version = int(found[0]) if found is not None else 0
    if not 1 <= version <= newest:
        raise SchemaMismatch(
            f"the schema {schema!r} was made by a newer headgate (its format is {version}, this one writes {newest}): "
            "upgrade headgate, or give the store another schema"
        )
    return version


def bring_up(connection: Connection[Any], schema: str, steps: Sequence[Sequence[LiteralString]] = STEPS) -> None:
    """Make the store, or bring it to the version of this code, in one transaction. Raises SchemaMismatch."""
    newest = len(steps)
    if _version_of(connection, schema, newest) == newest:
        return
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (_LOCK_KEY, schema))
        # Another process may have been quicker while this one waited for the lock.
        version = _version_of(connection, schema, newest)
        if version == newest:
            return
        _check_allowed(connection, schema)
        if version is None:
            # A plain name, as the store has seen to.
            connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'.encode())
            _run(connection, [_VERSION_TABLE, "INSERT INTO headgate_store VALUES (0)"])
        for step in steps[version or 0 :]:
            _run(connection, step)
        _run(connection, FUNCTIONS)
        connection.execute("UPDATE headgate_store SET version = %s", (newest,))


def check_readable(connection: Connection[Any], schema: str) -> bool:
    """Return whether there is a store, and change nothing. Raises SchemaMismatch if it cannot be read as it is."""
    version = _version_of(connection, schema)
    if version is not None and version < READABLE_SINCE:
        raise SchemaMismatch(
            f"the schema {schema!r} was made by an older headgate (its format is {version}, this one reads "
            f"{READABLE_SINCE} and later): open a run for writing, or probe the store, which brings it up to date"
        )
    return version is not None


def check_server(connection: Connection[Any], schema: str, durability: Durability) -> None:
    """Check what a store needs of the server. Raises StoreUnsupported that names what is missing and the cure."""
    _check_allowed(connection, schema)
    forbidden = connection.execute(_FORBIDDEN, (schema,)).fetchone()
    if forbidden is not None and forbidden[0] is not None:
        raise StoreUnsupported(
            f"the role lacks rights on {forbidden[0]} in schema {schema!r}: GRANT SELECT, INSERT, UPDATE, DELETE ON "
            f"ALL TABLES IN SCHEMA {schema} to it, and USAGE ON ALL SEQUENCES"
        )
    settings = connection.execute(_SETTINGS).fetchone()
    if durability.value != "process" and settings != (True, True):
        raise StoreUnsupported(
            "the server runs with fsync or full_page_writes off, so that nothing survives a power loss: turn them on, "
            "or ask for durability 'process' only"
        )


def _check_allowed(connection: Connection[Any], schema: str) -> None:
    found = connection.execute(_MAY, (schema, schema)).fetchone()
    assert found is not None
    role, database, may_create, exists, may_use, read_only = found
    if read_only:
        raise StoreUnsupported(
            f"database {database!r} is read-only here (a standby, or default_transaction_read_only): name the primary, "
            "e.g. with target_session_attrs=read-write"
        )
    if exists and not may_use:
        raise StoreUnsupported(
            f"role {role!r} may not use schema {schema!r} of database {database!r}: "
            f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {role}"
        )
    if not exists and not may_create:
        raise StoreUnsupported(
            f"role {role!r} may not make schema {schema!r} in database {database!r}: "
            f"CREATE SCHEMA {schema} AUTHORIZATION {role}"
        )


def _run(connection: Connection[Any], statements: Sequence[LiteralString]) -> None:
    for statement in statements:
        connection.execute(statement)
