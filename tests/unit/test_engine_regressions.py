"""Faults that a review of the run's shell found, each as the smallest run that showed it. In virtual time."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import headgate
from headgate.errors import RowFailed
from headgate.testing import run_virtual
from tests.unit.asked import Backend, asking, both, echo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator


class Broken(Exception):
    status_code = 500


class Unauthorized(Exception):
    status_code = 401


def test_a_body_that_awaits_what_others_cancelled_does_not_end_the_run() -> None:
    """A task that the body awaited was cancelled by somebody else: the CancelledError ended the worker, with it the
    run, silently as ``held``, and every request in flight was cancelled (asyncio only: trio cannot leak one).
    """

    async def body(row: int) -> int:
        await anyio.sleep(1)
        if row == 3 and not leaked:
            leaked.append(row)
            task = asyncio.ensure_future(asyncio.sleep(100))
            asyncio.get_running_loop().call_later(1, task.cancel)
            await task
        return row

    leaked: list[int] = []
    report = run_virtual(lambda: headgate.arun(asking(body), 20, limits={"x/a": {"concurrency": 4}}, seed=1))
    assert leaked == [3]
    assert (report.status, report.done) == ("completed", 20)


@both
def test_an_error_made_of_a_cancellation_is_no_failure(backend: Backend) -> None:
    """A body that turns cancellation into an error of its own made every row in flight at a stop fail for good."""

    async def body(row: int) -> int:
        try:
            await anyio.sleep(100)
        except BaseException as error:
            raise TypeError("interrupted") from error
        return row

    async def main() -> headgate.RunReport:
        async with headgate.Engine(seed=1) as engine:
            run = await engine.start(asking(body), 4)
            await anyio.sleep(1)
            run.stop(grace=0)
            return await run.wait()

    report = run_virtual(main, backend=backend)
    assert (report.failed, report.held) == (0, 4)
    assert report.wasted == 0


@both
def test_a_timeout_stays_a_timeout_when_the_body_makes_an_error_of_it(backend: Backend) -> None:
    """The same at a column's timeout: a bug of the column, and final, instead of a slow provider."""

    async def body(row: int) -> int:
        tries.append(row)
        try:
            await anyio.sleep(100 if len(tries) == 1 else 1)
        except BaseException as error:
            raise TypeError("interrupted") from error
        return row

    tries: list[int] = []
    report = run_virtual(lambda: headgate.arun(asking(body, timeout=5), 1, seed=1), backend=backend)
    assert (report.done, tries) == (1, [0, 0])


@both
@pytest.mark.parametrize("where", ["when", "tokens", "group"])
def test_on_failure_raise_wherever_a_row_fails(where: str, backend: Backend) -> None:
    """Only a body that failed as a whole raised RowFailed; a condition, a token estimate or one row of a group did
    not, and the run went on to the end.
    """

    def broken(row: int) -> int:
        return 10 // (row - 3) ** 2

    async def several(row: list[int]) -> list[object]:
        return [ValueError("no") if one == 3 else one for one in row]

    if where == "group":
        pipeline = headgate.Pipeline("regression")
        pipeline.column(several, name="value", scope="group", output=list[Any])
    else:
        options: dict[str, Any] = {where: broken}
        pipeline = asking(**options)
    with pytest.raises(RowFailed, match="row 3, value: bug"):
        run_virtual(lambda: headgate.arun(pipeline, 20, on_failure="raise", seed=1), backend=backend)


@both
def test_a_run_that_waits_for_its_reader_ends_when_the_last_row_is_taken(backend: Backend) -> None:
    """Open rows were full of held ones and one finished row had not been taken. When it was, nobody told the run's
    loop, which slept on until some timer went off: at worst ``stall_timeout``, and then the run ended as stalled.
    """

    async def large(row: int) -> str:
        await anyio.sleep(5 if row == 1 else 1)
        return "x" * 1000

    async def refused(value: str) -> int:
        raise Unauthorized

    def all_but_one(row: int) -> bool:
        return row != 1

    pipeline = asking(large, timeout=None)
    pipeline.column(refused, name="verdict", model="x/b", when=all_but_one, output=int)

    async def main() -> tuple[list[int], float, str]:
        async with headgate.Engine(seed=1) as engine:
            run = await engine.start(pipeline, 20, max_open_bytes=2500)
            taken: list[int] = []
            async for row in run.rows():
                taken.append(row.index)
                await anyio.sleep(100)
            return taken, anyio.current_time(), (await run.wait()).status

    taken, ended_at, status = run_virtual(main, backend=backend)
    assert (taken, status) == ([1], "held")
    assert ended_at < 110


@both
def test_a_bid_taken_back_at_the_end_of_a_step_is_made_anew(backend: Backend) -> None:
    """A row failed while tasks were being placed, and the bid of its other column was withdrawn after that: no bid
    stood for the rows behind it, and with nothing in flight nobody made one.
    """

    def broken(local: int) -> int:
        return 10 // (local - 1) ** 2

    async def local(row: int) -> int:
        await anyio.sleep(5 if row == 1 else 1)
        return row

    async def third(local: int) -> int:
        return local

    async def at_once(row: int) -> int:
        return row

    pipeline = asking(at_once)
    pipeline.column(local)
    pipeline.column(third, model="x/c", tokens=broken)
    limits = {"x/a": {"concurrency": 8, "requests_per_minute": 1}, "x/c": {"concurrency": 4}}
    report = run_virtual(lambda: headgate.arun(pipeline, 3, limits=limits, seed=1), backend=backend)
    assert (report.done, report.failed) == (2, 1)
    assert report.seconds < 100


@both
def test_a_parked_resource_is_tried_again_by_the_next_run(backend: Backend) -> None:
    """A run that met a 401 closed the model for good, for the whole engine: the next run sent nothing, said nothing
    and stalled after two hours, whether or not the key had been repaired.
    """

    async def body(row: int) -> int:
        if not repaired:
            raise Unauthorized
        return row

    repaired: list[bool] = []

    async def main() -> list[headgate.RunReport]:
        async with headgate.Engine(seed=1) as engine:
            first = await (await engine.start(asking(body), 5, run="first")).wait()
            second = await (await engine.start(asking(body), 5, run="second")).wait()
            repaired.append(True)
            third = await (await engine.start(asking(body), 5, run="third")).wait()
            return [first, second, third]

    reports = run_virtual(main, backend=backend)
    assert [report.status for report in reports] == ["held", "held", "completed"]
    assert all(report.notices for report in reports[:2])
    assert all(report.seconds < 60 for report in reports)


@both
@pytest.mark.parametrize("where", ["source", "tokens", "when"])
def test_a_stop_from_inside_of_a_step(where: str, backend: Backend) -> None:
    """The user's rows, estimate or condition may stop the run. It is the engine that calls them, amid placing tasks:
    it went on placing, and a bid made after the stop stood for ever, or the step lost its place.
    """

    def rows() -> Iterator[dict[str, int]]:
        for row in range(100):
            if where == "source" and row == 40:
                runs[0].stop()
            yield {"row": row}

    def stop_at_40(row: int) -> int:
        if row == 40:
            runs[0].stop()
        return 1

    runs: list[headgate.Run] = []
    options: dict[str, Any] = {} if where == "source" else {where: stop_at_40}
    limits = {"x/a": {"concurrency": 8, "requests_per_minute": 60}}

    async def main() -> headgate.RunReport:
        async with headgate.Engine(limits=limits, seed=1) as engine:
            runs.append(await engine.start(asking(**options), rows()))
            report = await runs[0].wait()
            assert engine.admission.gate.leases() == 0
            engine.admission.gate.check()
            return report

    report = run_virtual(main, backend=backend)
    assert report.status == "stopped"
    assert report.done >= 10


@both
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_rows_that_break_do_not_cost_what_is_in_flight(kind: str, backend: Backend) -> None:
    """An error in the user's source cancelled every request in flight and dropped what had yet to be committed."""

    def rows() -> Iterator[dict[str, int]]:
        for row in range(30):
            yield {"row": row}
        raise ValueError("the source broke")

    async def body(row: int) -> int:
        asked.append(row)
        return await echo(row)

    async def later() -> AsyncIterator[dict[str, int]]:
        for row in rows():
            yield row

    asked: list[int] = []
    store, limits = headgate.MemoryStore(), {"x/a": {"concurrency": 8}}
    source = rows() if kind == "sync" else later()
    with pytest.raises(ValueError, match="the source broke"):
        run_virtual(lambda: headgate.arun(asking(body), source, limits=limits, store=store), backend=backend)
    assert sum(len(row.cells) for row in store.read_rows("regression")) == len(asked) >= 8
    assert store.read_info("regression").status == "stopped"


@both
@pytest.mark.parametrize("how", ["stop", "drain", "cancel"])
@pytest.mark.parametrize("kind", ["sync", "sync, resumed", "async"])
def test_a_source_is_closed_when_the_run_stops(kind: str, how: str, backend: Backend) -> None:
    """A generator was left where it stood: its ``finally`` came when it was collected."""

    def rows() -> Generator[dict[str, int]]:
        try:
            for row in range(1000):
                yield {"row": row}
        finally:
            closed.append(anyio.current_time())

    async def later() -> AsyncIterator[dict[str, int]]:
        with closing(rows()) as source:
            for row in source:
                yield row

    async def main() -> None:
        store = headgate.MemoryStore()
        if kind == "sync, resumed":
            await headgate.arun(asking(), [{"row": 0}], store=store)
        source = later() if kind == "async" else rows()
        with anyio.CancelScope() as scope:
            async with headgate.Engine(seed=1, store=store) as engine:
                run = await engine.start(asking(), source)
                await anyio.sleep(2.5)
                assert not closed
                if how == "cancel":
                    scope.cancel()
                elif how == "stop":
                    run.stop()
                else:
                    run.drain()
                await run.wait()
                assert closed
        assert closed

    closed: list[float] = []
    run_virtual(main, backend=backend)


def test_what_a_source_raises_when_it_is_closed_is_the_runs_error() -> None:
    def rows() -> Iterator[dict[str, int]]:
        try:
            for row in range(1000):
                yield {"row": row}
        finally:
            raise OSError("the file has gone")

    async def main() -> None:
        async with headgate.Engine(seed=1) as engine:
            run = await engine.start(asking(), rows())
            await anyio.sleep(2.5)
            run.stop()
            with pytest.raises(OSError, match="the file has gone"):
                await run.wait()

    run_virtual(main)


def test_a_plain_function_reports_from_its_thread() -> None:
    """It failed as a bug there, after the call was paid for."""
    pipeline = headgate.Pipeline("p")

    @pipeline.column(model="acme/m")
    def a(row: int) -> int:
        lease = headgate.current_lease()
        assert lease is not None
        lease.report(status=200, headers={"x-request-id": "1"}, usage={"input_tokens": 100, "output_tokens": 50})
        return row

    report = headgate.run(pipeline, 3)
    assert (report.done, report.resources[0].usage) == (3, headgate.Usage(300, 150))


@both
def test_what_fails_while_its_scope_is_paused_comes_back(backend: Backend) -> None:
    """A pause has no end that is known, and tasks that failed in it were held until then: their rows were left held
    when patience ended an hour later, however soon somebody had resumed.
    """

    async def body(row: int) -> int:
        asked.append(row)
        await anyio.sleep(5)
        if row < 3 and asked.count(row) == 1:
            raise Broken
        return row

    async def main() -> headgate.RunReport:
        async with headgate.Engine(limits={"x/a": {"concurrency": 3}}, seed=1) as engine:
            run = await engine.start(asking(body), 10)
            await anyio.sleep(1)
            engine.controls.pause("x/a")
            await anyio.sleep(20)
            assert len(asked) == 3
            engine.controls.resume("x/a")
            return await run.wait()

    asked: list[int] = []
    report = run_virtual(main, backend=backend)
    assert (report.status, report.done) == ("completed", 10)
    assert report.seconds < 60


@both
def test_a_handle_that_cannot_be_given_up_is_its_own_runs_error(backend: Backend) -> None:
    """What a store raised there cancelled all other runs of the engine; who waited elsewhere waited for ever."""

    class Torn:
        def __init__(self, handle: Any) -> None:
            self._handle = handle

        def __getattr__(self, name: str) -> Any:
            return getattr(self._handle, name)

        async def aclose(self) -> None:
            raise OSError("torn")

    class Store(headgate.MemoryStore):
        async def open_run(self, run: str, *arguments: Any, **named: Any) -> Any:
            handle = await super().open_run(run, *arguments, **named)
            return Torn(handle) if run == "torn" else handle

    async def main() -> headgate.RunReport:
        async with headgate.Engine(store=Store(), seed=1) as engine:
            other = await engine.start(asking(), 20, run="other")
            torn = await engine.start(asking(), 1, run="torn")
            with pytest.raises(OSError, match="torn"):
                await torn.wait()
            assert not other.done
            return await other.wait()

    report = run_virtual(main, backend=backend)
    assert (report.status, report.done) == ("completed", 20)


@both
def test_rows_that_come_when_their_lane_is_given_up_are_left(backend: Backend) -> None:
    """A rejected key is nothing that time mends: rows that came in after it would each be one more request in vain."""

    async def rows() -> AsyncIterator[dict[str, int]]:
        for row in range(6):
            if row == 3:
                await anyio.sleep(100)
                asked_before.extend(asked)
            yield {"row": row}

    async def body(row: int) -> int:
        asked.append(row)
        raise Unauthorized

    asked: list[int] = []
    asked_before: list[int] = []
    report = run_virtual(lambda: headgate.arun(asking(body), rows(), seed=1), backend=backend)
    assert (report.status, report.held, report.failed) == ("held", 6, 0)
    assert asked == asked_before
    assert asked
