"""What the registers of a store promise, for stores that have them: restarts are decided in them."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ...errors import PayloadTooLarge, StoreError
from .stage import Stage, StoreMaker, staged

if TYPE_CHECKING:
    from ...restart.ports import DecisionStore
    from ...storage.ports import RunStore

__all__ = ["RegisterSuite"]

NAMES = ("restart/tickets", "restart/Tickets", "ü/ x\0\ud800")


def registers(store: RunStore) -> DecisionStore:
    """The store as one of registers."""
    return cast("DecisionStore", store)


class RegisterSuite(StoreMaker):
    """Everything that registers promise: compare-and-set, for all handles and lives of a store one after another."""

    @staged
    async def test_a_register_that_was_never_written_has_version_zero(self, stage: Stage) -> None:
        """Nothing is there, and reading it makes nothing."""
        store = registers(stage.store)
        assert await store.read_register("restart/tickets") == (0, b"")
        assert await store.read_register("restart/tickets") == (0, b"")

    @staged
    async def test_only_who_knows_the_version_writes(self, stage: Stage) -> None:
        """R1: of two who write after the same version one does."""
        store, other = registers(stage.store), registers(stage.other)
        assert await store.write_register("r", b"first", after=0)
        assert not await other.write_register("r", b"second", after=0)
        assert await other.read_register("r") == (1, b"first")
        assert await other.write_register("r", b"second", after=1)
        assert not await store.write_register("r", b"third", after=1)
        assert not await store.write_register("r", b"third", after=3)
        assert await store.read_register("r") == (2, b"second")

    @staged
    async def test_empty_is_a_content(self, stage: Stage) -> None:
        """Written, and empty: not the same as never written (T46)."""
        assert await registers(stage.store).write_register("r", b"", after=0)
        assert await registers(stage.other).read_register("r") == (1, b"")

    @staged
    async def test_of_many_at_once_one_writes(self, stage: Stage) -> None:
        """R1: whoever is told that he wrote is the one whose content stands there."""
        stores = [registers(stage.store), registers(stage.other)]
        for version in range(5):
            wrote: list[bytes] = []

            async def write(number: int, version: int = version, wrote: list[bytes] = wrote) -> None:
                content = b"%d of %d" % (number, version)
                if await stores[number % 2].write_register("r", content, after=version):
                    wrote.append(content)

            async with anyio.create_task_group() as tasks:
                for number in range(8):
                    tasks.start_soon(write, number)
            assert len(wrote) == 1
            assert await stores[0].read_register("r") == (version + 1, wrote[0])

    @staged
    async def test_what_was_written_outlives_the_process(self, stage: Stage) -> None:
        """T61: a decision is durable once somebody was told of it."""
        assert await registers(stage.store).write_register("r", b"kept", after=0)
        stage.crash()
        assert await registers(stage.store).read_register("r") == (1, b"kept")

    @staged
    async def test_registers_live_beside_runs(self, stage: Stage) -> None:
        """Neither opening nor sweeping a run touches them."""
        assert await registers(stage.store).write_register("tickets", b"kept", after=0)
        handle = await stage.open("tickets")
        await handle.finish("completed")
        await stage.store.sweep(keep_s=0.0)
        assert await registers(stage.other).read_register("tickets") == (1, b"kept")

    @staged
    async def test_too_large_is_refused_and_a_megabyte_is_not(self, stage: Stage) -> None:
        """A register has a bound."""
        store = registers(stage.store)
        with pytest.raises(PayloadTooLarge):
            await store.write_register("r", bytes(4 * 1024 * 1024 + 1), after=0)
        assert await store.write_register("r", bytes(1024 * 1024), after=0)
        assert await registers(stage.other).read_register("r") == (1, bytes(1024 * 1024))

    @staged
    async def test_a_closed_store_says_so(self, stage: Stage) -> None:
        """As for runs."""
        await stage.store.aclose()
        with pytest.raises(StoreError):
            await registers(stage.store).read_register("r")
        with pytest.raises(StoreError):
            await registers(stage.store).write_register("r", b"", after=0)

    def test_registers_behave_like_a_dict(self) -> None:
        """Any sequence of calls, through several handles, with crashes."""
        step = st.tuples(st.integers(0, 2), st.sampled_from(NAMES), st.integers(-1, 1), st.binary(max_size=8))
        how = settings(max_examples=max(5, round(settings().max_examples * self.share / 3)), deadline=None)

        @how
        @given(steps=st.lists(step, max_size=25))
        def play(steps: list[tuple[int, str, int, bytes]]) -> None:
            anyio.run(self._play_steps, steps, backend=self.backend)

        cast("Any", play)()

    async def _play_steps(self, steps: list[tuple[int, str, int, bytes]]) -> None:
        naive: dict[str, tuple[int, bytes]] = {}
        with self.new_place() as place:
            async with AsyncExitStack() as exits:
                stage = Stage(self, place, exits)
                for who, name, off, data in steps:
                    if who == 2:
                        stage.crash()
                        continue
                    store = registers(stage.store if who else stage.other)
                    version = naive.get(name, (0, b""))[0]
                    after = max(0, version + off)
                    assert await store.write_register(name, data, after=after) == (after == version)
                    if after == version:
                        naive[name] = (version + 1, data)
                    assert await store.read_register(name) == naive.get(name, (0, b""))
