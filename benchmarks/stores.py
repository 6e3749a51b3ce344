"""The stores that are measured, each at a place of its own; for PostgreSQL a real server, if one can be started."""

from __future__ import annotations

import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final

from headgate.storage import FileStore, MemoryStore, PostgresStore, SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from headgate.storage import RunStore
    from tests.integration.postgres_server import Server

__all__ = ["IN_MEMORY", "POSTGRES", "Kind", "durable", "open_store"]

POSTGRES: Final = "PostgreSQL"

_schemas = count(1)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of store. ``place`` makes a new place for one and gives its address."""

    name: str
    place: Callable[[Path], str]

    @contextmanager
    def at_a_new_place(self) -> Generator[str]:
        """The address of a place where nothing is yet."""
        with tempfile.TemporaryDirectory(prefix="headgate-bench-") as folder:
            yield f"{self.name}@{self.place(Path(folder))}"


IN_MEMORY: Final = Kind("memory", lambda _: "")


def open_store(address: str) -> RunStore:
    """Open the store at an address, in any process."""
    kind, _, place = address.partition("@")
    if kind == IN_MEMORY.name:
        return MemoryStore()
    if kind == "SQLite":
        return SqliteStore(place)
    if kind == "files":
        return FileStore(place)
    dsn, _, schema = place.rpartition("#")
    return PostgresStore(dsn, schema=schema)


def _schema(_: Path) -> str:
    found = _server()
    assert not isinstance(found, str), found
    return f"{found.dsn}#bench{next(_schemas)}"


def durable(*, server: bool = True) -> Iterator[Kind]:
    """The stores that a crash does not touch, at their defaults: they wait for the disk.

    PostgreSQL only if a ``server`` may be started, and if that works.
    """
    yield Kind("SQLite", lambda folder: str(folder / "store.db"))
    yield Kind("files", lambda folder: str(folder / "store"))
    if server and not isinstance(_server(), str):
        yield Kind(POSTGRES, _schema)


@cache
def _server() -> Server | str:
    """One server for the whole process, which ends with it; or why there is none."""
    try:
        from tests.integration.postgres_server import Server, binaries

        place = binaries()
        if place is not None:
            return Server(place, "-c", "max_wal_size=1GB")
        why = "no PostgreSQL server is installed"
    except (ImportError, OSError, AssertionError) as error:
        why = f"no PostgreSQL server can be started: {error!r}"
    print(why, file=sys.stderr, flush=True)
    return why
