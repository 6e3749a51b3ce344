"""What admission learned is kept with a run: when it is written, and how the next run on the store begins."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import headgate
from headgate.admission import Limits
from headgate.engine.keeping import EVERY_S, FIRST_S, begin_with
from headgate.errors import StoreUnavailable
from headgate.storage import Batch, MemoryStore
from headgate.storage.memory import MemoryRun
from headgate.testing import run_virtual
from headgate.testing.provider import (
    Latency,
    ModelSpec,
    OutputTokens,
    ProviderResponseError,
    ProviderSpec,
    VirtualProvider,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping


SCOPE = "acme/m"
WALL = 1_700_000_000.0


class WatchedStore(MemoryStore):
    """Remembers every record that was written, and when; refuses some if told to."""

    def __init__(self, clock: Callable[[], float], *, refuse: bool = False) -> None:
        super().__init__(clock=clock)
        self.written: list[tuple[float, dict[str, object]]] = []
        self.refuse = refuse

    async def open_run(self, run: str, fingerprints: Mapping[str, str], **how: Collection[str]) -> WatchedRun:
        return WatchedRun(self, await super().open_run(run, fingerprints, **how))


class WatchedRun(MemoryRun):
    def __init__(self, store: WatchedStore, inner: MemoryRun) -> None:
        self.__dict__.update(inner.__dict__)
        self._store = store

    async def commit(self, batch: Batch) -> None:
        if batch.learned is not None:
            if self._store.refuse and not batch.cells:
                raise StoreUnavailable("away")
            self._store.written.append((anyio.current_time(), json.loads(batch.learned)))
        await super().commit(batch)


class World:
    """One provider with 16 slots, one store, and runs on them."""

    def __init__(self, *, refuse: bool = False, concurrency: int = 16) -> None:
        spec = ModelSpec(
            concurrency=concurrency, latency=Latency(mean_s=2, sigma=0.5), output_tokens=OutputTokens(mean=40)
        )
        self.provider = VirtualProvider(ProviderSpec(models={"m": spec}))
        self.store = WatchedStore(self.provider.wall_s, refuse=refuse)
        self.began: list[float] = []
        self.rejected = 0

    def pipeline(self) -> headgate.Pipeline:
        pipeline = headgate.Pipeline("p")

        @pipeline.column(model=SCOPE)
        async def answer(row: int) -> str:
            try:
                found = await self.provider.chat("m", f"say {row}")
            except ProviderResponseError:
                self.rejected += 1
                raise
            lease = headgate.current_lease()
            assert lease is not None
            lease.report(usage=found.usage)
            return found.text

        return pipeline

    async def run(
        self,
        rows: int,
        *,
        name: str = "p",
        limits: Limits | None = None,
        wall_clock: Callable[[], float] | None = None,
        look: Callable[[headgate.Run], Awaitable[None]] | None = None,
    ) -> headgate.RunReport:
        async with headgate.Engine(
            limits=limits, store=self.store, wall_clock=wall_clock or self.provider.wall_s, seed=1
        ) as engine:
            run = await engine.start(self.pipeline(), rows, run=name)
            self.began.append(engine.admission.gate.scopes()[SCOPE].limit)
            if look is not None:
                await look(run)
            return await run.wait()


def limit_in(record: Any) -> float:
    found: float = record["learned"]["scopes"][SCOPE]["concurrency"]["limit"]
    return found


def test_a_run_writes_soon_then_each_minute_and_at_its_end() -> None:
    world = World()

    async def main() -> float:
        await world.run(1600)
        return anyio.current_time()

    ended = run_virtual(main)
    times = [at for at, _ in world.store.written]
    assert ended > 180
    assert times[0] == pytest.approx(FIRST_S, abs=2.0)
    gaps = [later - earlier for earlier, later in pairwise(times[:-1])]
    assert gaps
    assert all(EVERY_S <= gap < EVERY_S + 2.0 for gap in gaps)
    assert times[-1] == ended
    assert limit_in(world.store.written[-1][1]) == pytest.approx(16, abs=1)


def test_the_next_run_begins_where_the_last_one_was() -> None:
    world = World()

    async def main() -> None:
        await world.run(400)
        await world.run(800)
        await world.run(50, name="another run on this store")

    run_virtual(main)
    assert world.began[0] == 4.0
    for limit in world.began[1:]:
        assert limit == pytest.approx(0.9 * 16, abs=1)


@pytest.mark.parametrize("how", ["stopped", "left", "crashed"])
def test_a_run_that_ends_early_leaves_what_it_had_learned(how: str) -> None:
    """Stopped, as by Ctrl-C, it writes at once; crashed or left by an error, what it wrote last counts."""
    world = World()

    async def stop(run: headgate.Run) -> None:
        await anyio.sleep(30)
        if how == "left":
            raise RuntimeError("the caller has a fault")
        if how == "crashed":
            world.store.refuse = True  # nothing more is written from here on
        run.stop(grace=0)

    async def main() -> None:
        if how == "left":
            with pytest.raises(RuntimeError, match="has a fault"):
                await world.run(10_000, look=stop)
        else:
            await world.run(10_000, look=stop)
        world.store.refuse = False
        assert len(world.store.written) == (2 if how == "stopped" else 1)
        await world.run(10)

    run_virtual(main)
    assert world.began[1] == pytest.approx(0.9 * 16, abs=1.5)


def test_a_store_that_fails_the_last_record_fails_no_run() -> None:
    world = World(refuse=True)
    report = run_virtual(lambda: world.run(400))
    assert report.status is headgate.RunStatus.COMPLETED
    assert report.done == 400


@pytest.mark.parametrize(
    ("shift_s", "limit"),
    [(0.0, 14.4), (3000.0, 14.4), (3700.0, 4.0), (10 * 365 * 86_400.0, 4.0), (-5000.0, 4.0)],
    ids=["at once", "within the hour", "later", "years later", "clock set back"],
)
def test_the_wall_clock_says_how_old_it_is(shift_s: float, limit: float) -> None:
    world = World()

    async def main() -> None:
        await world.run(400)
        await world.run(10, wall_clock=lambda: world.provider.wall_s() + shift_s)

    run_virtual(main)
    assert world.began[1] == pytest.approx(limit, abs=1)


@pytest.mark.parametrize(
    "limits", [Limits(concurrency=6), Limits(concurrency="1-4-6")], ids=["fixed", "smaller maximum"]
)
def test_limits_that_the_user_set_meanwhile_win(limits: Limits) -> None:
    world = World()

    async def main() -> None:
        await world.run(400)
        await world.run(450, limits=limits)

    run_virtual(main)
    assert world.began[1] == 6.0


def test_a_resource_in_use_is_left_alone() -> None:
    world = World()

    async def main() -> None:
        await world.run(200, name="old")
        async with headgate.Engine(store=world.store, wall_clock=world.provider.wall_s, seed=1) as engine:
            scopes = engine.admission.gate.scopes()
            run = await engine.start(world.pipeline(), 200, run="new", patience=3600.0)
            await anyio.sleep(5)
            before = scopes[SCOPE].limit
            other = await engine.start(world.pipeline(), 300, run="old")
            assert scopes[SCOPE].limit == before
            await run.wait()
            await other.wait()

    run_virtual(main)


def test_what_columns_used_is_known_to_the_next_run() -> None:
    world = World()
    limits = Limits(concurrency=16, tokens_per_minute=1e9)

    async def main() -> None:
        await world.run(100, limits=limits)
        async with headgate.Engine(limits=limits, store=world.store, wall_clock=world.provider.wall_s) as engine:
            run = await engine.start(world.pipeline(), 200, run="p")
            async for _ in run.rows():
                break
            learned = engine.admission.learned()[SCOPE].tokens
            assert learned is not None
            flow = learned.flows["p/answer"]
            assert flow.output is not None
            assert flow.output.mean == pytest.approx(40, abs=10)
            run.stop(grace=0)
            await run.wait()

    run_virtual(main)


@pytest.mark.parametrize(
    "record",
    [
        None,
        b"",
        b"\xff\x00",
        b"[]",
        b"null",
        b'{"at":0}',
        b'{"at":"noon","learned":{"version":1,"scopes":{"acme/m":5}}}',
        b'{"at":-1e999,"learned":{"version":9,"scopes":{}}}',
        b'{"at":' + b"9" * 400 + b',"learned":[]}',
        b'{"at":-' + b"9" * 400 + b',"learned":[]}',
        b"[" * 100_000,
    ],
)
def test_garbage_is_never_a_failed_run(record: bytes | None) -> None:
    async def main() -> None:
        async with headgate.Engine() as engine:
            assert begin_with(engine.admission, record, WALL) == []
        world = World()
        run = await world.store.open_run("p", {})
        if record is not None:
            await MemoryRun.commit(run, Batch(learned=record))
        report = await world.run(5)
        assert report.done == 5
        assert world.began == [4.0]

    run_virtual(main)
