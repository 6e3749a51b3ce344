"""Faults that other engines had, tried on the whole engine in virtual time. Each is named after its trap."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal

import anyio
import anyio.lowlevel
import pytest

import headgate
from headgate.testing import (
    Capacity,
    Faults,
    Latency,
    ModelSpec,
    ProviderResponseError,
    RetryAfter,
    VirtualProvider,
    run_virtual,
)
from headgate.testing.provider import Fault
from tests.simulation.staged import Stage, ask, chained, one_column, provider_spec, two_models

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.mark.parametrize(("form", "hint_s"), [(RetryAfter.MS, 0.1), (RetryAfter.SECONDS, 1.0)])
def test_t03_frozen_by_the_hint(form: RetryAfter, hint_s: float) -> None:
    """Elsewhere a stream of 429s that all carried Retry-After froze the controller after one cut: its limit was 50
    against a capacity of 15 and made 3,096 429s.
    """
    model = ModelSpec(concurrency=15, latency=Latency(mean_s=2, sigma=0.5), retry_after=form, retry_after_s=hint_s)

    async def main() -> None:
        stage = Stage(provider_spec(m=model), one_column, limits={"acme/m": {"concurrency": "1-50-150"}})
        report = await stage.run(2000)
        assert report.done == 2000
        stats = stage.stats()
        assert sum(stats.rejected.values()) <= 100
        assert stats.utilisation is not None
        assert stats.utilisation >= 0.93

    run_virtual(main)


def test_t12_slot_held_while_sleeping() -> None:
    """Elsewhere the retry slept with the slot: N sleeping rows starved N good ones. Here eight rows always fail, twice
    as many as there are slots, and the others finish as if those were not there.
    """
    model = ModelSpec(
        latency=Latency(mean_s=1), faults=Faults(poison={f"asks about {row}.": Fault.ERROR_500 for row in range(8)})
    )
    finished: dict[int, float] = {}

    def build(provider: VirtualProvider) -> headgate.Pipeline:
        pipeline = headgate.Pipeline("one")

        @pipeline.column(model="acme/m")
        async def a(row: int) -> str:
            answer = await ask(provider)(row)
            finished[row] = anyio.current_time()
            return answer

        return pipeline

    held: list[int] = []

    def look(engine: headgate.Engine, run: headgate.Run) -> None:
        assert engine.admission.gate.leases() == run.in_flight
        held.append(run.core.salvage.held)

    async def main() -> None:
        stage = Stage(provider_spec(m=model), build, limits={"acme/m": {"concurrency": 4}})
        report = await stage.run(80, look=look)
        assert (report.done, report.failed) == (72, 8)
        assert max(held) >= 4, "more tasks were held than slots left to the others"
        attempts = stage.stats().requests
        assert max(finished.values()) <= 1.1 * attempts / 4

    run_virtual(main)


def test_t15_hidden_retries() -> None:
    """Elsewhere the SDK retried inside one lease: attempts that nobody counted. Here a body that tries again takes a
    lease for each attempt, the first included, and provider and report count the same.
    """

    def build(provider: VirtualProvider) -> headgate.Pipeline:
        pipeline = headgate.Pipeline("retries")

        @pipeline.column(model="acme/m")
        async def a(row: int) -> str:
            while True:
                try:
                    async with headgate.request("acme/m"):
                        return await ask(provider)(row)
                except ProviderResponseError:
                    await anyio.sleep(0.5)

        return pipeline

    def look(engine: headgate.Engine, run: headgate.Run) -> None:
        assert stage.stats().in_flight <= engine.admission.gate.leases() <= 3

    async def main() -> None:
        report = await stage.run(50, look=look)
        stats = stage.stats()
        assert report.done == 50
        assert stats.requests > 60
        assert report.resources[0].requests == stats.requests
        assert report.resources[0].outcomes["provider_error"] == stats.statuses["500"]

    spec = provider_spec(m=ModelSpec(latency=Latency(mean_s=1, sigma=0.5), faults=Faults(error_500=0.3)))
    stage = Stage(spec, build, limits={"acme/m": {"concurrency": 3}})
    run_virtual(main)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_t22_second_ledger(backend: Literal["asyncio", "trio"]) -> None:
    """Elsewhere tasks were admitted by one count and requests by another: healthy rows timed out in the local queue and
    were dropped, 47 of 128 done with 2,132 wait timeouts. The same case: 128 rows, two columns, 4 slots, 20 ms.
    """
    waiting: list[int] = []

    def look(engine: headgate.Engine, run: headgate.Run) -> None:
        pressure = engine.admission.pressure(headgate.ResourceKey.parse("acme/m"))
        waiting.append(pressure.waiting)
        assert pressure.bids <= 1

    async def main() -> None:
        model = ModelSpec(concurrency=4, latency=Latency(mean_s=0.5, sigma=0.5))
        limits: dict[str, dict[str, object]] = {"acme/m": {"concurrency": 4, "queue_timeout": 0.02}}
        stage = Stage(provider_spec(m=model), lambda p: chained(p, "m"), limits=limits, look_every_s=0.01)
        report = await stage.run(128, look=look)
        stats = stage.stats()
        assert report.done == 128
        assert report.resources[0].outcomes == {"success": 256}
        assert stats.requests == 256
        assert set(waiting) == {0}
        assert report.seconds <= 1.05 * stats.busy_s / 4

    run_virtual(main, backend=backend)


def test_t23_column_barriers() -> None:
    """Elsewhere judge endpoints idled until every row had its first column. Here two columns of equal work take little
    longer than one of them, and the second begins while nearly all of the first is still to come.
    """

    async def main() -> None:
        model = ModelSpec(concurrency=4, latency=Latency(mean_s=1, sigma=0.5))
        limits: dict[str, dict[str, object]] = {"*": {"concurrency": 4}}
        stage = Stage(provider_spec(m=model, n=model), lambda p: chained(p, "n"), limits=limits)
        report = await stage.run(200)
        busiest = max(stage.stats("m").busy_s, stage.stats("n").busy_s)
        assert report.done == 200
        assert report.seconds <= 1.1 * busiest / 4

    run_virtual(main)


def test_t25_stalls_of_the_loop() -> None:
    """Elsewhere 20,000 cells became ready in one step of 741 ms. Here other tasks get their turn after a bounded number
    of body calls, also when a group column makes thousands of cells ready at once.
    """
    turn = 0
    starts: Counter[int] = Counter()

    def build(provider: VirtualProvider) -> headgate.Pipeline:
        pipeline = headgate.Pipeline("burst")

        @pipeline.column(scope="group")
        async def a(row: list[int]) -> list[int]:
            return row

        @pipeline.column(model="acme/m")
        async def b(a: int) -> int:
            starts[turn] += 1
            return a

        @pipeline.column
        async def c(a: int) -> int:
            starts[turn] += 1
            return a

        return pipeline

    async def main() -> None:
        async def count_turns() -> None:
            nonlocal turn
            while True:
                turn += 1
                await anyio.lowlevel.checkpoint()

        stage = Stage(provider_spec(m=ModelSpec()), build, limits={"acme/m": {"concurrency": 256}})
        reports: list[headgate.RunReport] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count_turns)
            reports.append(await stage.run(4000, group_size=4000))
            tasks.cancel_scope.cancel()
        assert [report.done for report in reports] == [4000]
        assert starts.total() == 8000
        assert max(starts.values()) <= 512

    run_virtual(main)


def test_t26_blocked_by_a_neighbour() -> None:
    """Elsewhere one model in endless 429 let a healthy one do 30 of 100 cells, and nothing was finalised. Here the
    healthy one does all of its cells at full rate; the run ends as held, and a later one does what is left, no more.
    """
    done_at: list[float] = []

    def build(provider: VirtualProvider) -> headgate.Pipeline:
        pipeline = headgate.Pipeline("two")

        @pipeline.column(model="acme/m")
        async def a(row: int) -> str:
            answer = await ask(provider)(row)
            done_at.append(anyio.current_time())
            return answer

        pipeline.column(ask(provider, "n"), name="b", model="acme/n")
        return pipeline

    async def main() -> None:
        healthy = ModelSpec(concurrency=4, latency=Latency(mean_s=1, sigma=0.5))
        spec = provider_spec(m=healthy, n=healthy.model_copy(update={"reject": 429}))
        stage = Stage(spec, build, limits={"acme/m": {"concurrency": 4}, "*": {}})
        report = await stage.run(400, patience=600)
        assert report.status is headgate.RunStatus.HELD
        assert (report.failed, report.held) == (0, 400)
        assert (report.columns[0].done, report.columns[1].held) == (400, 400)
        assert max(done_at) <= 1.05 * stage.stats("m").busy_s / 4
        stage.provider.change("n", Capacity(reject=None))
        report = await stage.run(400)
        assert (report.status, report.done) == (headgate.RunStatus.COMPLETED, 400)
        assert stage.stats("m").requests == 400
        assert stage.stats("n").answered_again == 0

    run_virtual(main)


def test_t28_memory_per_row_up_front() -> None:
    """Elsewhere 253 to 420 MiB of bookkeeping came before the first request. Here rows come as room opens: at most
    a few times what the model carries are open at any time, however many there are.
    """
    pulled = 0

    def source() -> Iterator[dict[str, int]]:
        nonlocal pulled
        for row in range(3000):
            pulled += 1
            yield {"row": row}

    open_rows: list[int] = []

    def look(engine: headgate.Engine, run: headgate.Run) -> None:
        statistics = run.statistics()
        open_rows.append(pulled - statistics.done)
        assert statistics.open_rows <= 64

    async def main() -> None:
        model = ModelSpec(concurrency=8, latency=Latency(mean_s=1, sigma=0.5))
        stage = Stage(provider_spec(m=model), one_column, limits={"acme/m": {"concurrency": 8}})
        report = await stage.run(source(), look=look)
        assert report.done == 3000
        assert max(open_rows) <= 64

    run_virtual(main)


@pytest.mark.parametrize("second", ["m", "n"])
def test_t28_a_closed_model_pulls_no_rows(second: str) -> None:
    """The other side of T26: rows that could only queue up for a closed model stay in their source, also when another
    one, which they would reach through it, has nothing to do.
    """
    pulled = 0

    def source() -> Iterator[dict[str, int]]:
        nonlocal pulled
        for row in range(3000):
            pulled += 1
            yield {"row": row}

    async def main() -> None:
        spec = provider_spec(m=ModelSpec(reject=429, retry_after=RetryAfter.SECONDS, retry_after_s=30), n=ModelSpec())
        limits: dict[str, dict[str, object]] = {"*": {"concurrency": 8}}
        stage = Stage(spec, lambda p: chained(p, second), limits=limits)
        report = await stage.run(source(), deadline=600)
        assert (report.done, report.failed) == (0, 0)
        assert pulled <= 64

    run_virtual(main)


def test_t30_budget_re_derived() -> None:
    """Elsewhere the scheduler guessed the controller's start-up ramp from its configuration, and the two differed after
    any change. Here the run follows ramp and changed limits at once, up and down, because it asks who owns them.
    """
    scale: list[tuple[float, int]] = []

    def look(engine: headgate.Engine, run: headgate.Run) -> None:
        now = anyio.current_time()
        scale.append((now, run.in_flight))
        if now == 30.0:
            engine.admission.set_limits("acme/m", {"concurrency": 40})
        if now == 60.0:
            engine.admission.set_limits("acme/m", {"concurrency": 5})

    async def main() -> None:
        model = ModelSpec(latency=Latency(mean_s=1, sigma=0.3))
        limits: dict[str, dict[str, object]] = {"acme/m": {"concurrency": 20, "startup_ramp": 10.0}}
        stage = Stage(provider_spec(m=model), one_column, limits=limits, look_every_s=0.5)
        report = await stage.run(2500, look=look)
        assert report.done == 2500
        for now, in_flight in scale:
            if now < 10:
                assert in_flight <= 1 + 2 * now
        assert {in_flight for now, in_flight in scale if 12 < now < 30} == {20}
        assert {in_flight for now, in_flight in scale if 30.5 <= now < 60} == {40}
        assert {in_flight for now, in_flight in scale if 65 <= now < 80} == {5}

    run_virtual(main)


@pytest.mark.parametrize("finish", [False, True])
def test_t31_siblings_run_on(finish: bool) -> None:
    """Elsewhere a dropped row's other requests in flight went on and were paid for. Here they are cancelled, unless the
    user wants them finished.
    """
    fails = {f"m asks about {row}.": Fault.BAD_REQUEST for row in range(10)}

    async def main() -> None:
        quick = ModelSpec(faults=Faults(poison=fails))
        stage = Stage(provider_spec(m=quick, n=ModelSpec(latency=Latency(mean_s=10))), two_models)
        report = await stage.run(10, finish_siblings=finish)
        assert (report.done, report.failed) == (0, 10)
        answered = stage.stats("n").answered
        assert answered == (10 if finish else 0)
        assert report.columns[1].done == answered
        assert (report.seconds >= 10) == finish

    run_virtual(main)
