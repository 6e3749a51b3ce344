"""S6: what is open stays within its bounds, whatever rows weigh and however slowly they are taken; and all ends."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
import hypothesis.strategies as st
import pytest
from hypothesis import given

import headgate
from headgate.storage.codec import encode, encode_row
from headgate.testing.clock import run_virtual

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

MODEL = "openai/gpt-x"


@dataclass(frozen=True)
class Stream:
    """Rows of these sizes, results of ``result`` times as many characters, and the bounds.

    ``arrival_s`` is the pause before each row of an async source, None for a source that does not wait. ``pace_s`` is
    the pause of the consumer after each row, None for nobody.
    """

    sizes: list[int]
    result: float
    most_rows: int
    most_bytes: int
    group: int
    arrival_s: float | None
    pace_s: float | None
    concurrency: int
    at_once: int


streams = st.builds(
    Stream,
    sizes=st.one_of(
        st.lists(st.one_of(st.integers(1, 50), st.integers(1, 4_000)), max_size=60),
        st.lists(st.integers(30, 40), min_size=40, max_size=60),  # where one row tells of the next
    ),
    result=st.sampled_from([0.0, 1.0, 20.0]),
    most_rows=st.integers(4, 40),
    most_bytes=st.integers(1, 8_000),
    group=st.sampled_from([0, 0, 1, 4]),
    arrival_s=st.sampled_from([None, 0.0, 0.3]),
    pace_s=st.sampled_from([None, 0.0, 0.1, 3.0]),
    concurrency=st.integers(1, 12),
    at_once=st.sampled_from([1, 16, 40]),
)


class Watch:
    """Stands at both ends of a run: what went in and has not come out is open, as far as anybody outside can see."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.run: headgate.Run | None = None
        self.pulled = 0
        self.taken: list[int] = []
        self.open: dict[int, int] = {}
        self.smallest = 10**9  # of all rows whose results are there, in bytes
        self.one_is_gone = False

    def ask(self) -> None:
        """One more row is asked for: then there has to be room for it."""
        if self.run is None:
            return
        if self.stream.pace_s is None:
            for index in list(self.open):
                if index not in self.run.core.rows:
                    self._goes(index)
        self.run.core.open.check()
        assert len(self.open) < self.stream.most_rows
        begun = self.stream.group > 1 and self.pulled % self.stream.group
        if not self.open or begun:
            return
        assert sum(self.open.values()) < self.stream.most_bytes
        if not self.one_is_gone:
            return
        # A row in progress will weigh what others did. So will this one; a source that pauses was asked for several.
        assert len(self.open) * self.smallest < self.stream.most_bytes
        assert self.stream.arrival_s is not None or (len(self.open) + 1) * self.smallest <= self.stream.most_bytes

    def give(self, size: int) -> dict[str, object]:
        row: dict[str, object] = {"row": self.pulled, "text": "x" * size}
        self.open[self.pulled] = len(encode_row(row))
        self.pulled += 1
        return row

    def answer(self, row: int, text: str) -> str:
        """What the body yields is there from now on, and open as the row is."""
        value = "y" * int(len(text) * self.stream.result)
        self.open[row] += len(encode(value))
        self.smallest = min(self.smallest, self.open[row])
        return value

    def take(self, row: headgate.FinishedRow) -> None:
        self.taken.append(row.index)
        self._goes(row.index)

    def _goes(self, row: int) -> None:
        del self.open[row]
        self.one_is_gone = True

    def rows(self) -> Iterator[dict[str, object]] | AsyncIterator[dict[str, object]]:
        pause = self.stream.arrival_s
        return self._now() if pause is None else self._later(pause)

    def _now(self) -> Iterator[dict[str, object]]:
        for size in self.stream.sizes:
            self.ask()
            yield self.give(size)

    async def _later(self, pause: float) -> AsyncIterator[dict[str, object]]:
        for size in self.stream.sizes:
            self.ask()
            await anyio.sleep(pause)
            yield self.give(size)


def pipeline_of(watch: Watch) -> headgate.Pipeline:
    pipeline = headgate.Pipeline("stream")

    @pipeline.column(model=MODEL)
    async def answer(row: int, text: str) -> str:
        await anyio.sleep(0.2 + 0.1 * (row % 3))
        return watch.answer(row, text)

    if watch.stream.group:

        @pipeline.column(scope="group")
        async def together(answer: list[str]) -> list[int]:
            return [len(one) for one in answer]

    return pipeline


@given(streams)
def test_open_rows_and_bytes_stay_within_their_bounds(stream: Stream) -> None:
    """A row is asked for only while fewer than ``max_open_rows`` are open and fewer than ``max_open_bytes`` bytes, what
    the bodies yielded included, and those that rows in progress will have if they are like the smallest before them.
    One that is larger passes alone, and a group that has begun comes in as a whole. Every row comes out once.
    """
    watch = Watch(stream)

    async def main() -> headgate.RunReport:
        limits = {"*": headgate.Limits(concurrency=stream.concurrency)}
        async with headgate.Engine(limits=limits, seed=1) as engine:
            run = watch.run = await engine.start(
                pipeline_of(watch),
                watch.rows(),
                group_size=max(1, stream.group),
                max_open_rows=stream.most_rows,
                max_open_bytes=stream.most_bytes,
                min_open_rows=stream.at_once,
            )
            if stream.pace_s is not None:
                async with aclosing(run.rows()) as rows:
                    async for row in rows:
                        watch.take(row)
                        await anyio.sleep(stream.pace_s)
            return await run.wait()

    report = run_virtual(main)
    assert report.done == watch.pulled == len(stream.sizes)
    if stream.pace_s is not None:
        assert sorted(watch.taken) == list(range(len(stream.sizes)))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_what_is_learned_while_a_source_pauses_counts(backend: str) -> None:
    """The source was asked for many rows while nobody knew what they weigh. The first one that ends shows it."""
    most = [0]

    async def slowly() -> AsyncIterator[dict[str, object]]:
        for row in range(20):
            await anyio.sleep(1)
            yield {"row": row}

    async def body(row: int) -> str:
        await anyio.sleep(100 if row else 0.5)
        return "x" * 1_000

    async def main() -> headgate.RunReport:
        async with headgate.Engine(limits={"*": headgate.Limits(concurrency=64)}, seed=1) as engine:
            pipeline = headgate.Pipeline("slow")
            pipeline.column(body, model=MODEL)
            run = await engine.start(pipeline, slowly(), max_open_bytes=4_000)
            while not run.done:
                most[0] = max(most[0], len(run.core.rows))
                await anyio.sleep(1)
            return await run.wait()

    assert run_virtual(main, backend=backend).done == 20  # type: ignore[arg-type]
    assert most[0] == 4


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_consumer_that_takes_nothing_stops_the_run(backend: str) -> None:
    """S6: nothing is spent on rows that have no place to go; once it takes them the run goes on."""
    most, rows = 40, 200
    stream = Stream([10] * rows, 1.0, most, 10**6, 0, None, 1.0, 64, 100)
    watch = Watch(stream)

    async def main() -> headgate.RunReport:
        async with headgate.Engine(limits={"*": headgate.Limits(concurrency=64)}, seed=1) as engine:
            run = await engine.start(pipeline_of(watch), watch.rows(), max_open_rows=most, min_open_rows=100)
            async with aclosing(run.rows()) as finished:
                watch.take(await anext(finished))
                await anyio.sleep(1_000)
                assert watch.pulled == most + 1, "all that are open, and the one in the consumer's hands"
                assert run.meter.of(MODEL).requests == most + 1
                async for row in finished:
                    watch.take(row)
            return await run.wait()

    report = run_virtual(main, backend=backend)  # type: ignore[arg-type]
    assert report.done == rows
    assert sorted(watch.taken) == list(range(rows))


@pytest.mark.parametrize("source", ["input", "results"])
@pytest.mark.parametrize("arrival_s", [None, 0.0])
def test_huge_payloads(source: str, arrival_s: float | None) -> None:
    """S6: bytes bind long before rows do, those of finished rows that nobody has taken yet included.

    What a cell yields is not known before: the first rows come in by their number. From then on no row comes in while
    the bytes are above their bound, which they passed again and again as long as finished rows did not count.
    """
    large, most_bytes, rows = 1_000_000, 6_000_000, 80
    size, result = (large, 0.0) if source == "input" else (10, large / 10)
    stream = Stream([size] * rows, result, 1_000, most_bytes, 0, arrival_s, 5.0, 4, 100)
    watch, held = Watch(stream), [0]

    async def main() -> headgate.RunReport:
        async with headgate.Engine(limits={"*": headgate.Limits(concurrency=4)}, seed=1) as engine:
            run = await engine.start(
                pipeline_of(watch), watch.rows(), max_open_rows=1_000, max_open_bytes=most_bytes, min_open_rows=20
            )
            async with aclosing(run.rows()) as finished:
                async for row in finished:
                    watch.take(row)
                    await anyio.sleep(5.0)
                    held.append(run.core.open.bytes)
            return await run.wait()

    report = run_virtual(main)
    assert report.done == rows
    later = held[rows // 2 :]
    assert large < max(later) <= most_bytes + 2 * large
    assert max(held) <= (22 if source == "results" else 8) * large
