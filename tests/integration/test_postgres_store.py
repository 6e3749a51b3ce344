"""The PostgreSQL store under the public suite, on a real server (D1 to D6, D8; T42 to T46)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from headgate.storage import Durability, RunStore
from headgate.storage.postgres import PostgresStore
from headgate.testing.store import MAX_PAYLOAD, StoreSuite
from headgate.testing.store.machine import StoreMachine
from tests.integration.postgres_server import shared_server

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


class TestPostgresStore(StoreSuite):
    """Each place is a schema of one database. What a crash of the server leaves is looked at elsewhere."""

    def new_place(self) -> AbstractContextManager[str]:
        return shared_server().schema()

    def open_store(self, place: str) -> RunStore:
        return PostgresStore(shared_server().dsn, schema=place, durability=Durability.PROCESS, max_payload=MAX_PAYLOAD)

    def test_it_behaves_like_the_naive_store(self) -> None:
        machine = type("StoreMachine", (StoreMachine,), {"suite": self})
        profile = settings()
        # Every example makes tables and connections, which takes a second.
        few = settings(profile, max_examples=max(12, profile.max_examples // 5))
        run_state_machine_as_test(machine, settings=few)


class TestPostgresStoreOnTrio(TestPostgresStore):
    backend = "trio"
