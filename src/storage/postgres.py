"""The store in a PostgreSQL database, for several processes and hosts. Needs the extra ``postgres`` (psycopg 3).

Writes and the reads of an opened run go through one thread with one connection
(:mod:`headgate.storage.postgres_writer`); ``read_rows`` and its kin use a second one, in the caller's thread.
Everything lives in one schema of the database, which the first use makes.

Connect directly, or through a pooler in session mode: settings of the session are relied on.
"""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from anyio import to_thread

from ..errors import ConfigError
from . import postgres_reads, postgres_records, postgres_registers, rules
from .ports import NOT_RENEWED, TERMINAL, Durability, Swept
from .postgres_groups import PostgresSharedRun
from .postgres_link import Link, where
from .postgres_records import Refused
from .postgres_run import PostgresRun
from .postgres_schema import bring_up, check_readable, check_server
from .postgres_writer import PostgresWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from psycopg import Connection

    from ..values import Usage
    from .ports import RunInfo, StoredRow
    from .sharing import SharedState

__all__ = ["PostgresStore"]

T = TypeVar("T")

_SCHEMA_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_LEVELS: Final = (Durability.PROCESS, Durability.HOST)


class PostgresStore:
    """A :class:`~headgate.storage.ports.RunStore` in a PostgreSQL database. Nothing is opened before the first use.

    ``dsn`` is an address as PostgreSQL's own programs take it (``postgresql://user@host/database``), ``schema`` where
    the tables are. ``durability`` HOST lets each commit wait for the server's disk (and for synchronous standbys, if
    the server has them), PROCESS does not: a crash of the server then loses the last moments. ``reconnect_s`` is how
    long a server that was lost or is starting is waited for before a call is StoreUnavailable, ``max_payload`` the
    bytes of one value, ``max_bytes`` those of all tables and indexes, about: a commit that would pass it is StoreFull,
    and VACUUM FULL after a sweep makes room. ``retention_s`` is the least that sweeps by this object keep, ``clock``
    gives wall-clock seconds. Raises ConfigError for options that cannot be meant.
    """

    def __init__(
        self,
        dsn: str,
        *,
        schema: str = "headgate",
        durability: Durability = Durability.HOST,
        reconnect_s: float = 10.0,
        max_payload: int = rules.MAX_PAYLOAD,
        max_bytes: int | None = None,
        retention_s: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if durability not in _LEVELS:
            raise ConfigError(
                f"a PostgreSQL store is durable at the level 'process' or 'host', not {str(durability)!r}"
            )
        if not _SCHEMA_NAME.fullmatch(schema):
            raise ConfigError(f"schema {schema!r}: small letters, digits and underscores, not beginning with a digit")
        rules.check_retention(retention_s)
        self._retention_s = retention_s
        self._dsn = dsn
        self._schema = schema
        self._durability = durability
        self._reconnect_s = reconnect_s
        self._max_payload = max_payload
        self._clock = clock
        self._writer = PostgresWriter(self._link(lambda connection: bring_up(connection, schema)), max_bytes)
        self._reader = self._link(lambda connection: None)
        self._reading = threading.Lock()
        self._found = False  # whether there is a store in the schema
        self._closed = False

    def __repr__(self) -> str:
        return f"PostgresStore({where(self._dsn)!r}, schema={self._schema!r})"

    @property
    def durability(self) -> Durability:
        """What an acknowledged commit survives here."""
        return self._durability

    async def probe(self) -> None:
        """See :meth:`headgate.storage.ports.RunStore.probe`. Makes the tables if they are missing."""
        schema, durability = self._schema, self._durability
        await self._writer.call(lambda link, _: link.do(lambda found: check_server(found, schema, durability)))

    async def open_run(
        self, run: str, fingerprints: Mapping[str, str], *, renewed: Collection[str] = (), kept: Collection[str] = ()
    ) -> PostgresRun:
        """See :meth:`headgate.storage.ports.RunStore.open_run`."""
        opened = await self._open(run, fingerprints, None, renewed=renewed, kept=kept)
        return PostgresRun(self._writer, opened, self._max_payload, self._clock)

    async def join_run(
        self,
        run: str,
        fingerprints: Mapping[str, str],
        *,
        group_rows: int,
        renewed: Collection[str] = (),
        kept: Collection[str] = (),
    ) -> PostgresSharedRun:
        """See :meth:`headgate.storage.sharing.SharingStore.join_run`."""
        assert group_rows > 0, f"group_rows {group_rows}: at least one row to a group"
        opened = await self._open(run, fingerprints, group_rows, renewed=renewed, kept=kept)
        return PostgresSharedRun(self._writer, opened, self._max_payload, self._clock)

    def read_rows(self, run: str, *, batch: int = 500, renewed: Mapping[str, str] = NOT_RENEWED) -> Iterator[StoredRow]:
        """See :meth:`headgate.storage.ports.RunStore.read_rows`."""
        assert batch > 0, f"batch {batch}: at least one row at a time"
        return self._read_on(run, self._read_batch(run, 0, batch, renewed), batch, renewed)

    def read_runs(self) -> tuple[str, ...]:
        """See :meth:`headgate.storage.ports.RunStore.read_runs`."""
        return self._read_if_there(postgres_reads.read_runs) or ()

    def read_info(self, run: str) -> RunInfo:
        """See :meth:`headgate.storage.ports.RunStore.read_info`."""
        return self._read(run, lambda found: postgres_reads.read_info(found, run, self._durability))

    def read_spent(self, run: str) -> Mapping[str, Usage]:
        """See :meth:`headgate.storage.ports.RunStore.read_spent`."""
        return self._read(run, lambda found: postgres_reads.read_spent(found, run))

    def read_learned(self, run: str) -> bytes | None:
        """See :meth:`headgate.storage.ports.RunStore.read_learned`."""
        return self._read(run, lambda found: postgres_reads.read_learned(found, run))

    def read_shared(self, run: str) -> SharedState | None:
        """See :meth:`headgate.storage.sharing.SharingStore.read_shared`."""
        return self._read(run, lambda found: postgres_reads.read_shared(found, run))

    def count_outcomes(self, run: str) -> int:
        """See :meth:`headgate.storage.ports.RunStore.count_outcomes`."""
        return self._read(run, lambda found: postgres_reads.count_outcomes(found, run))

    async def sweep(self, *, keep_s: float, statuses: Collection[str] = TERMINAL, spare: Collection[str] = ()) -> Swept:
        """See :meth:`headgate.storage.ports.RunStore.sweep`. It uses a connection and a thread of its own."""
        rules.check_sweep(keep_s, statuses, spare, self._retention_s)
        if self._closed:
            raise rules.closed(repr(self))
        return await to_thread.run_sync(self._sweep, self._clock() - keep_s, tuple(statuses), tuple(spare))

    async def read_register(self, name: str) -> tuple[int, bytes]:
        """See :meth:`headgate.restart.ports.DecisionStore.read_register`."""
        return await self._writer.call(lambda link, _: link.do(lambda found: postgres_registers.read(found, name)))

    async def write_register(self, name: str, data: bytes, *, after: int) -> bool:
        """See :meth:`headgate.restart.ports.DecisionStore.write_register`."""
        write = postgres_registers.RegisterWrite(name, data, after)
        return await self._writer.call(lambda link, _: link.do(write.act))

    async def aclose(self) -> None:
        """Finish what was handed in, close the connections."""
        self._closed = True
        await self._writer.aclose()
        with self._reading:
            self._reader.close()

    async def _open(
        self,
        run: str,
        fingerprints: Mapping[str, str],
        group_rows: int | None,
        *,
        renewed: Collection[str] = (),
        kept: Collection[str] = (),
    ) -> postgres_records.Opened:
        columns, now, durability = dict(fingerprints), self._clock(), self._durability
        anew, as_they_are = frozenset(renewed), frozenset(kept)
        fixed = {name: mark for name, mark in columns.items() if name not in anew and name not in as_they_are}

        def open_run(connection: Connection[Any]) -> postgres_records.Opened:
            return postgres_records.open_run(
                connection, run, columns, now, durability, group_rows, renewed=anew, kept=as_they_are
            )

        def act(link: Link, _: int) -> postgres_records.Opened:
            try:
                return link.do(open_run)
            except Refused:
                raise link.do(lambda found: postgres_records.why_not_opened(found, run, fixed, columns)) from None

        return await self._writer.call(act)

    def _link(self, prepare: Callable[[Connection[Any]], None]) -> Link:
        return Link(
            self._dsn,
            schema=self._schema,
            durability=self._durability,
            patience_s=self._reconnect_s,
            prepare=prepare,
        )

    def _read(self, run: str, act: Callable[[Connection[Any]], T]) -> T:
        def work(connection: Connection[Any]) -> tuple[T]:
            return (act(connection),)

        found = self._read_if_there(work)
        if found is None:
            raise rules.unknown_run(run)
        return found[0]

    def _read_if_there(self, act: Callable[[Connection[Any]], T]) -> T | None:
        """What ``act`` reads; None if there is no store in the schema."""

        def work(connection: Connection[Any]) -> T | None:
            self._found = self._found or check_readable(connection, self._schema)
            return act(connection) if self._found else None

        with self._reading:
            try:
                return self._reader.do(work)
            finally:
                if self._closed:  # nobody else will close it
                    self._reader.close()

    def _read_batch(self, run: str, first: int, batch: int, renewed: Mapping[str, str]) -> list[StoredRow]:
        return self._read(run, lambda found: postgres_reads.load(found, run, first, most=batch, renewed=renewed))

    def _read_on(self, run: str, rows: list[StoredRow], batch: int, renewed: Mapping[str, str]) -> Iterator[StoredRow]:
        while rows:
            yield from rows
            rows = self._read_batch(run, rows[-1].record.row + 1, batch, renewed) if len(rows) == batch else []

    def _sweep(self, before: float, statuses: tuple[str, ...], spare: tuple[str, ...]) -> Swept:
        link = self._link(lambda connection: bring_up(connection, self._schema))
        try:
            dropped = link.do(lambda found: postgres_records.drop_runs(found, before, statuses, spare))
            while link.do(postgres_records.empty_trash):
                pass
        finally:
            link.close()
        return Swept(tuple(dropped))
