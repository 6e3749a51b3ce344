"""A run keeps its course: what a report of it shows is what its meters counted, over all its lives."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING

import anyio
import pytest

import headgate
from headgate.errors import ResultExpired
from headgate.reports import RunFigures, StoredReport, read_report
from headgate.reports.figures import GAUGES, RESOURCES_MAX, read_figures
from headgate.reports.timeline import ABSENT, POINTS_MAX
from headgate.storage import MemoryStore
from headgate.storage.codec import decode, encode
from headgate.testing import run_virtual
from headgate.testing.provider import Faults, Latency, ModelSpec, ProviderSpec, VirtualProvider

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


class World:
    """A provider with slots for 16, some faults, and a store whose clock is the provider's."""

    def __init__(self) -> None:
        spec = ModelSpec(concurrency=16, latency=Latency(mean_s=2, sigma=0.5), faults=Faults(error_500=0.02))
        self.provider = VirtualProvider(ProviderSpec(seed=3, models={"m": spec, "n": spec}))
        self.store = MemoryStore(clock=self.provider.wall_s)

    def pipeline(self) -> headgate.Pipeline:
        pipeline = headgate.Pipeline("p")

        @pipeline.column(model="acme/m")
        async def answer(row: int) -> str:
            found = await self.provider.chat("m", f"say {row}")
            lease = headgate.current_lease()
            assert lease is not None
            lease.report(usage=found.usage)
            return found.text

        @pipeline.column
        async def size(row: int, answer: str) -> int:
            async with headgate.request("acme/n") as lease:
                lease.report(usage=(await self.provider.chat("n", answer)).usage)
            return row + len(answer)

        return pipeline

    async def run(self, rows: int, look: Callable[[headgate.Run], Awaitable[None]] | None = None) -> headgate.RunReport:
        async with headgate.Engine(store=self.store, wall_clock=self.provider.wall_s, seed=1) as engine:
            run = await engine.start(self.pipeline(), rows)
            if look is not None:
                await look(run)
            return await run.wait()

    def read(self) -> RunFigures:
        figures = read_report(self.store, "p").figures
        assert figures is not None
        return figures


def agree(figures: RunFigures) -> None:
    """What holds of all figures."""
    assert len(figures.times) <= POINTS_MAX
    assert figures.times[0] == 0.0
    assert figures.times[-1] == figures.seconds
    for one in figures.resources.values():
        assert max(0, one.ended[-1]) == one.requests
        assert max(0, one.rate_limited[-1]) == one.refused
        assert sum(one.latencies) == one.outcomes.get("success", 0)
        for counter in (one.ended, one.rate_limited, figures.rows, figures.cells):
            assert all(earlier <= later for earlier, later in pairwise(counter))
        assert max(one.in_flight) <= one.peak


def test_the_figures_are_those_of_the_report() -> None:
    world = World()
    report = run_virtual(lambda: world.run(300))
    figures = world.read()
    agree(figures)
    assert figures.models == {"answer": "acme/m", "size": ""}
    assert {one.resource for one in report.resources} == set(figures.resources) == {"acme/m", "acme/n"}
    for told in report.resources:
        kept = figures.resources[told.resource]
        assert (kept.outcomes, kept.peak) == (told.outcomes, told.peak_in_flight)
        assert (kept.input_tokens, kept.output_tokens) == (told.usage.input_tokens, told.usage.output_tokens)
        assert kept.mean_limit == (pytest.approx(told.mean_limit) if told.mean_limit else None)
        assert kept.seconds == pytest.approx(dict(told.seconds))
    assert figures.rows[-1] == 300
    assert figures.seconds == pytest.approx(report.seconds)
    assert figures.resources["acme/m"].refused > 0
    assert max(figures.resources["acme/m"].held) > 0
    assert max(figures.resources["acme/n"].limit) >= 16, "a model that only bodies ask for has a limit too"


def test_a_resumed_run_goes_on_where_it_was() -> None:
    world = World()

    async def stop(run: headgate.Run) -> None:
        await anyio.sleep(20)
        run.stop(grace=0)

    async def main() -> tuple[headgate.RunReport, RunFigures, headgate.RunReport]:
        first = await world.run(400, stop)
        figures = world.read()
        await anyio.sleep(3600)
        return first, figures, await world.run(400)

    first, before, second = run_virtual(main)
    after = world.read()
    agree(before)
    agree(after)
    assert after.seconds == pytest.approx(first.seconds + second.seconds)
    assert [began for began, _ in after.lives] == [0.0, pytest.approx(first.seconds)]
    assert after.lives[1][1] - after.lives[0][1] == pytest.approx(3600 + first.seconds)
    assert after.rows[-1] == 400
    for name in after.resources:
        of = [next(one for one in report.resources if one.resource == name) for report in (first, second)]
        assert after.resources[name].requests == of[0].requests + of[1].requests
        assert after.resources[name].peak == max(one.peak_in_flight for one in of)
    assert sum(after.resources["acme/m"].seconds.values()) == pytest.approx(after.seconds)
    idle = run_virtual(lambda: world.run(400))
    last = world.read()
    assert sum(one.requests for one in idle.resources) == 0
    assert [(one.peak, one.outcomes) for one in last.resources.values()] == [
        (one.peak, one.outcomes) for one in after.resources.values()
    ], "a life that does nothing takes nothing away"


def test_a_run_that_is_killed_leaves_what_it_kept_last() -> None:
    """What its store holds while it goes on is what it holds after a kill."""
    world, seen = World(), list[StoredReport]()

    async def look(run: headgate.Run) -> None:
        for _ in range(2):
            await anyio.sleep(8)
            seen.append(read_report(world.store, "p"))

    run_virtual(lambda: world.run(400, look))
    early, late = seen
    assert early.figures is None
    assert late.figures is not None
    agree(late.figures)
    assert 10 <= late.figures.seconds < 12
    assert late.overview.info.status == "running"


def test_what_is_not_this_runs_own_is_not_believed() -> None:
    world = World()
    run_virtual(lambda: world.run(20))
    record, info = world.store.read_learned("p"), world.store.read_info("p")
    assert read_figures(record, "p", info.created_at) == world.read()
    assert read_figures(record, "q", info.created_at) is None
    assert read_figures(record, "p", info.created_at + 1) is None, "a run of that name was swept, and begun anew"
    assert record is not None
    plain = decode(record)
    text = json.loads(plain["figures"])
    samples = text["resources"]["acme/m"]
    damages = [
        {**text, "version": 2},
        {**text, "more": 1},
        {**text, "times": text["times"][::-1]},
        {**text, "rows": text["rows"][1:]},
        {**text, "seconds": "NaN"},
        {**text, "resources": {"acme/m": {**samples, "limit": [*samples["limit"][1:], -2]}}},
        {**text, "resources": {"acme/m": {**samples, "latencies": [1]}}},
    ]
    records = [b"", b"1", b"{", encode({"figures": 3}), *(encode({"figures": json.dumps(one)}) for one in damages)]
    assert [read_figures(one, "p", info.created_at) for one in (None, *records)] == [None] * (1 + len(records))


def test_a_run_of_local_columns_keeps_its_pace() -> None:
    store = MemoryStore()
    pipeline = headgate.Pipeline("p")

    @pipeline.column
    async def twice(row: int) -> int:
        await anyio.sleep(0.1)
        return 2 * row

    async def main() -> None:
        async with headgate.Engine(store=store) as engine:
            await (await engine.start(pipeline, 50, local_workers=4)).wait()

    run_virtual(main)
    figures = read_report(store, "p").figures
    assert figures is not None
    assert (figures.rows[-1], figures.cells[-1], figures.resources) == (50, 50, {})


def test_figures_are_kept_of_a_bounded_number_of_resources() -> None:
    store, pipeline = MemoryStore(), headgate.Pipeline("p")

    def add(place: int) -> None:
        @pipeline.column(model=f"acme/m{place}", name=f"c{place}")
        async def answer(row: int) -> int:
            return row

    for place in range(RESOURCES_MAX + 3):
        add(place)

    async def main() -> None:
        async with headgate.Engine(store=store) as engine:
            await (await engine.start(pipeline, 2)).wait()

    run_virtual(main)
    figures = read_report(store, "p").figures
    assert figures is not None
    assert len(figures.resources) == RESOURCES_MAX
    assert all(len(getattr(one, gauge)) == len(figures.times) for one in figures.resources.values() for gauge in GAUGES)


def test_a_report_writes_itself(tmp_path: Path) -> None:
    world = World()
    report = run_virtual(lambda: world.run(20))
    report.to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h1>p</h1>" in page
    assert "acme/m" in report.to_markdown()
    assert json.loads(report.to_json())["figures"]["rows"][-1] == 20
    assert ABSENT not in json.loads(report.to_json())["figures"]["resources"][1]["samples"]["limit"]


def test_a_report_of_rows_that_were_handed_out_says_so() -> None:
    async def main() -> headgate.RunReport:
        async with headgate.Engine() as engine:
            pipeline = headgate.Pipeline("p")

            @pipeline.column
            async def same(row: int) -> int:
                return row

            run = await engine.start(pipeline, 5)
            async for _ in run.rows():
                pass
            return await run.wait()

    report = run_virtual(main)
    with pytest.raises(ResultExpired):
        report.to_markdown()
