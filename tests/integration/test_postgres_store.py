"""The PostgreSQL store under the public suite, on a real server (D1 to D6, D8; T42 to T46)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headgate.storage import Durability, PostgresStore, RunStore
from headgate.testing.store import MAX_PAYLOAD, StoreSuite
from tests.integration.postgres_server import shared_server

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


class TestPostgresStore(StoreSuite):
    """Each place is a schema of one database. What a crash of the server leaves is looked at elsewhere."""

    share = 0.17  # every example makes tables and connections, which takes a second or two

    def new_place(self) -> AbstractContextManager[str]:
        return shared_server().schema()

    def open_store(self, place: str) -> RunStore:
        return PostgresStore(shared_server().dsn, schema=place, durability=Durability.PROCESS, max_payload=MAX_PAYLOAD)

    def open_retaining(self, place: str, retention_s: float) -> RunStore:
        return PostgresStore(shared_server().dsn, schema=place, durability=Durability.PROCESS, retention_s=retention_s)


class TestPostgresStoreOnTrio(TestPostgresStore):
    backend = "trio"
    share = 0.05
