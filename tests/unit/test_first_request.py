"""What a task's first request asks for: the column's own estimate of its tokens, asked once for each dispatch."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

import anyio
import pytest

import headgate
from headgate.engine import steps
from headgate.engine.first_request import FirstRequests
from headgate.testing import run_virtual

Backend = Literal["asyncio", "trio"]
both = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class Overloaded(Exception):
    status_code = 503


@both
@pytest.mark.parametrize("concurrency", [1, 3, 100])
def test_an_estimate_is_asked_once_for_a_dispatch(backend: Backend, concurrency: int) -> None:
    """Whether a task starts at once or its bid has to wait: the user's function may be expensive."""
    asked: Counter[int] = Counter()

    def count(row: int) -> int:
        asked[row] += 1
        return 10

    async def ask(row: int) -> int:
        await anyio.sleep(1)
        return row

    pipeline = headgate.Pipeline("estimates")
    pipeline.column(ask, model="x/a", tokens=count, output=int)
    limits = {"x/a": {"concurrency": concurrency, "input_tokens_per_minute": 100_000}}
    report = run_virtual(lambda: headgate.arun(pipeline, 12, limits=limits, seed=1), backend=backend)
    assert (report.status, report.done) == ("completed", 12)
    assert asked == dict.fromkeys(range(12), 1)


@both
def test_a_retry_is_estimated_anew(backend: Backend) -> None:
    """An estimate serves one dispatch: the next attempt of the task is another, and nothing is kept of the first."""
    asked: Counter[int] = Counter()
    sent: Counter[int] = Counter()

    def count(row: int) -> int:
        asked[row] += 1
        return 10

    async def ask(row: int) -> int:
        sent[row] += 1
        await anyio.sleep(1)
        if sent[row] == 1 and row % 2:
            raise Overloaded
        return row

    pipeline = headgate.Pipeline("estimates")
    pipeline.column(ask, model="x/a", tokens=count, output=int)
    report = run_virtual(
        lambda: headgate.arun(pipeline, 6, limits={"x/a": {"concurrency": 2}}, seed=1), backend=backend
    )
    assert report.done == 6
    assert asked == sent


@both
def test_estimates_of_discarded_tasks_are_forgotten(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that waits for room in the budget keeps its estimate; when its row fails meanwhile nobody comes to take
    it back, and each of hundreds of such rows left one behind.
    """

    def count(row: int) -> int:
        return 10

    async def ask(row: int) -> int:
        await anyio.sleep_forever()
        return row

    async def check(row: int) -> int:
        await anyio.sleep(1)
        if row >= 50:
            raise FileNotFoundError
        return row

    pipeline = headgate.Pipeline("estimates")
    pipeline.column(ask, model="x/a", tokens=count, max_output_tokens=10, output=int)
    pipeline.column(check, output=int)
    made: list[FirstRequests] = []

    class Noted(FirstRequests):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(steps, "FirstRequests", Noted)

    async def main() -> tuple[int, int]:
        async with headgate.Engine(limits={"x/a": {"concurrency": 50}}, seed=1) as engine:
            run = await engine.start(pipeline, 250, budget=headgate.Budget(tokens=1000), local_workers=4)
            most = 0
            while run.statistics().failed < 190:
                await anyio.sleep(1)
                most = max(most, len(made[0].estimates))
            run.stop(grace=0)
            return most, (await run.wait()).failed

    most, failed = run_virtual(main, backend=backend)
    assert len(made) == 1
    assert failed >= 190
    assert most <= 64
