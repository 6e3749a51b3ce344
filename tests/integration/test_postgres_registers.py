"""The registers of the PostgreSQL store under the public suite, on a real server (R1, T61)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from headgate.errors import StoreUnavailable
from headgate.storage import Durability, PostgresStore, RunStore
from headgate.storage.postgres_registers import RegisterWrite, read
from headgate.testing.store import RegisterSuite
from tests.integration.postgres_server import shared_server

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


class TestPostgresRegisters(RegisterSuite):
    share = 1 / 6

    def new_place(self) -> AbstractContextManager[Any]:
        return shared_server().schema()

    def open_store(self, place: str) -> RunStore:
        return PostgresStore(shared_server().dsn, schema=place, durability=Durability.PROCESS)


async def test_a_write_whose_answer_was_lost_finds_out_whether_it_was_done() -> None:
    """R1: sent again, it is not refused on account of itself; and it does not claim what another one wrote."""
    with shared_server().schema() as place:
        # What is tried again and again at the end is given up after this.
        store = PostgresStore(shared_server().dsn, schema=place, durability=Durability.PROCESS, reconnect_s=0.2)

        async def act(write: RegisterWrite) -> bool:
            return await store._writer.call(lambda link, _: link.do(write.act))  # pyright: ignore[reportPrivateUsage]

        for after in (0, 1):
            mine = RegisterWrite("r", b"mine", after)
            assert await act(mine)
            assert await act(mine), "the same write, sent again"
            assert not await act(RegisterWrite("r", b"another", after))
        late = RegisterWrite("r", b"late", 1)
        assert not await act(late)
        assert not await act(late), "another one stands there"
        lost = RegisterWrite("r", b"lost", 2)
        assert await act(lost)
        assert await store.write_register("r", b"next", after=3)
        with pytest.raises(StoreUnavailable, match="written again"):
            await act(lost)
        found = await store._writer.call(lambda link, _: link.do(lambda at: read(at, "r")))  # pyright: ignore[reportPrivateUsage]
        assert found == (4, b"next")
        await store.aclose()
