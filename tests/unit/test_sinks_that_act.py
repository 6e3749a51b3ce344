"""Sinks of events that do something to the run that they are told of. In virtual time."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import anyio
import pytest

import headgate
from headgate.testing import run_virtual
from tests.unit.asked import Backend, asking, both

if TYPE_CHECKING:
    from headgate.events import Event


@both
@pytest.mark.parametrize("at", ["cell_ended", "row_finished"])
def test_a_sink_that_drains_the_run(at: str, backend: Backend) -> None:
    """The finished rows, over which the telling went, were let go by that: the run ended with a RuntimeError, or they
    were not told of.
    """

    def sink(event: Event) -> None:
        told[event.kind] += 1
        if event.kind == at and not going[0].draining:
            going[0].drain()

    async def main() -> headgate.RunReport:
        async with headgate.Engine(limits={"x/a": {"concurrency": 20}}, seed=1, events=sink) as engine:
            going.append(await engine.start(asking(at_once), 200))
            return await going[0].wait()

    async def at_once(row: int) -> int:
        await anyio.sleep(1)
        return row

    going: list[headgate.Run] = []
    told: Counter[str] = Counter()
    report = run_virtual(main, backend=backend)
    assert report.status == "stopped"
    assert report.done == report.accepted == told["row_finished"] == told["cell_ended"]


def test_a_sink_that_stops_the_run_when_it_has_ended() -> None:
    """It was told that the run was stopping after it had been told of its end."""

    def sink(event: Event) -> None:
        told.append(event.kind)
        if event.kind == "run_ended":
            going[0].stop()

    async def main() -> headgate.RunReport:
        async with headgate.Engine(events=sink) as engine:
            going.append(await engine.start(asking(), 2))
            return await going[0].wait()

    going: list[headgate.Run] = []
    told: list[str] = []
    assert run_virtual(main).status == "completed"
    assert told[-1] == "run_ended"
    assert "run_stopping" not in told
