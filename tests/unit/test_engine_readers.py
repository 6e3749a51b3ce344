"""Faults that a review of the run's shell found: who reads, who waits, who is a guest. In virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

import headgate
from headgate.errors import ConfigError, FingerprintMismatch, HeadgateError
from headgate.testing import run_virtual
from headgate.values import ResourceKey
from tests.unit.asked import Backend, asking, both, echo

if TYPE_CHECKING:
    from anyio.abc import TaskGroup


@both
def test_an_alias_has_one_meter(backend: Backend) -> None:
    """Attempts began under the name that the column gave and ended under the one that it stands for: the report had
    10 in flight at a limit of 4, and no request.
    """

    async def body(row: int) -> int:
        async with headgate.request("x/a"):
            await anyio.sleep(1)
        return row

    limits: dict[str, dict[str, object]] = {"x/real": {"concurrency": 4}, "x/a": {"alias_of": "x/real"}}
    report = run_virtual(lambda: headgate.arun(asking(body), 10, limits=limits), backend=backend)
    (resource,) = report.resources
    assert (resource.resource, resource.requests, resource.peak_in_flight) == ("x/a", 10, 4)


@both
def test_a_column_that_came_between_is_named(backend: Backend) -> None:
    """An optional parameter became a column, so that finished cells lacked something: a bare AssertionError. They are
    made anew, and where they are to be kept all the same it is named.
    """

    async def value(row: int, extra: int = 0) -> int:
        return row + extra

    async def extra(row: int) -> int:
        return row

    def pipeline(*, extended: bool) -> headgate.Pipeline:
        made = headgate.Pipeline("regression")
        made.column(value)
        if extended:
            made.column(extra)
        return made

    store = headgate.MemoryStore()
    run_virtual(lambda: headgate.arun(pipeline(extended=False), 3, store=store), backend=backend)
    report = run_virtual(lambda: headgate.arun(pipeline(extended=True), 3, store=store), backend=backend)
    assert [row["value"] for row in report.results()] == [0, 2, 4]
    store = headgate.MemoryStore()
    run_virtual(lambda: headgate.arun(pipeline(extended=False), 3, store=store), backend=backend)
    with pytest.raises(FingerprintMismatch, match=r"'value' was done .* without 'extra'"):
        run_virtual(lambda: headgate.arun(pipeline(extended=True), 3, store=store, on_change="keep"), backend=backend)


def test_a_stall_timeout_of_zero_is_refused() -> None:
    """It got past the options and tripped an assertion after the run had been opened in the store."""
    with pytest.raises(ConfigError, match="stall_timeout"):
        run_virtual(lambda: headgate.arun(asking(), 3, stall_timeout=0))


@both
def test_waiting_for_the_report_leaves_the_rows_to_another_reader(backend: Backend) -> None:
    """One task read rows() and another called wait(): every row from then on was thrown away, silently."""
    taken: list[int] = []

    async def read(run: headgate.Run) -> None:
        async for row in run.rows():
            taken.append(row.index)

    async def main() -> None:
        async with headgate.Engine(seed=1) as engine, anyio.create_task_group() as tasks:
            run = await engine.start(asking(), 50)
            tasks.start_soon(read, run)
            await anyio.sleep(2.5)
            assert (await run.wait()).done == 50

    run_virtual(main, backend=backend)
    assert sorted(taken) == list(range(50))


@both
def test_a_reader_that_leaves_does_not_hold_up_who_waits(backend: Backend) -> None:
    """The other side of it: the reader is gone, its rows fill the window, and wait() must still come to its end."""

    async def read(run: headgate.Run) -> None:
        rows = run.rows()
        await anext(rows)
        await anyio.sleep(5)
        await rows.aclose()

    async def main() -> None:
        async with headgate.Engine(seed=1) as engine, anyio.create_task_group() as tasks:
            run = await engine.start(asking(), 50, max_open_rows=32)
            tasks.start_soon(read, run)
            await anyio.sleep(2.5)
            assert (await run.wait()).done == 50
            ended.append(run.name)

    ended: list[str] = []
    run_virtual(main, backend=backend)
    assert ended


@both
def test_who_waits_for_a_run_is_not_cancelled_with_it(backend: Backend) -> None:
    """The engine was left by an error, which cancels its runs; wait() in another task raised that cancellation, which
    is none of its own.
    """
    met: list[BaseException] = []

    async def wait(run: headgate.Run) -> None:
        try:
            await run.wait()
        except BaseException as error:
            met.append(error)
            if not isinstance(error, Exception):
                raise

    async def leave_by_an_error(tasks: TaskGroup) -> None:
        async with headgate.Engine(seed=1) as engine:
            tasks.start_soon(wait, await engine.start(asking(), 50))
            await anyio.sleep(0.5)
            raise ValueError("the user's")

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            with pytest.raises(ValueError, match="the user's"):
                await leave_by_an_error(tasks)

    run_virtual(main, backend=backend)
    (error,) = met
    assert isinstance(error, HeadgateError)
    assert "engine was left" in str(error)


@both
def test_an_engine_inside_another_is_only_its_guest(backend: Backend) -> None:
    """Leaving the inner engine left the code around it, a column body or the outer engine's user, without any."""

    async def body(row: int) -> int:
        inner = await headgate.amap(echo, 1, name="inner", model="x/b")
        async with headgate.request("x/a"):
            return inner.done + row

    async def main() -> None:
        async with headgate.Engine(limits={"*": {"concurrency": 2}}) as outer:
            async with headgate.Engine() as inner, headgate.request("x/b"):
                assert inner.admission.pressure(ResourceKey.parse("x/b")).in_flight == 1
            async with headgate.request("x/a"):
                assert outer.admission.pressure(ResourceKey.parse("x/a")).in_flight == 1
            run = await outer.start(asking(body), 2)
            report = await run.wait()
            assert report.status == "completed", report.failures

    run_virtual(main, backend=backend)


@both
def test_an_engine_is_entered_once(backend: Backend) -> None:
    """Entered again it refused all requests, and every cell failed; or each run, which was told to enter it first."""

    async def main() -> None:
        engine = headgate.Engine(store=headgate.MemoryStore(), seed=1)
        async with engine:
            with pytest.raises(HeadgateError, match="make another"):
                await engine.__aenter__()
            assert (await (await engine.start(asking(), 3)).wait()).done == 3
        with pytest.raises(HeadgateError, match="make another"):
            await engine.start(asking(), 3)
        with pytest.raises(HeadgateError, match="make another"):
            await engine.__aenter__()

    run_virtual(main, backend=backend)
