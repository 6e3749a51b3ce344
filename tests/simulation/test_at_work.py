"""What of a run is at work is known to whoever watches, and what was at work when it stalled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

import headgate
from headgate.restart import TaskId
from headgate.restart.in_flight import InFlightFile, read_in_flight
from headgate.testing import run_virtual

if TYPE_CHECKING:
    from pathlib import Path

CELLS = {(row, "double") for row in range(6)} | {(0, "both"), (3, "both")}


def pipeline() -> headgate.Pipeline:
    made = headgate.Pipeline("tickets")

    @made.column()
    async def double(n: int) -> int:
        await anyio.sleep(1e6 if n == 4 else 1.0)
        return 2 * n

    @made.column(scope="group")
    async def both(n: list[int]) -> list[int]:
        await anyio.sleep(2.0)
        return n

    return made


class Witness:
    def __init__(self) -> None:
        self.at_work: dict[Any, tuple[int, str]] = {}

    def began(self, task: object, row: int, column: str) -> None:
        assert task not in self.at_work
        self.at_work[task] = (row, column)

    def ended(self, task: object) -> None:
        del self.at_work[task]


@pytest.mark.parametrize("how", ["stalls", "is stopped"])
def test_what_is_at_work_is_told_from_its_start_to_its_end(how: str, tmp_path: Path) -> None:
    """Cells and groups, each once; what has ended is at work no more, however the run ends."""

    async def main() -> None:
        witness, file = Witness(), InFlightFile(tmp_path / "at work", ["double", "both"])
        async with headgate.Engine() as engine:
            rows = [{"n": n} for n in range(6)]
            run = await engine.start(pipeline(), rows, group_size=3, stall_timeout=30.0)
            await anyio.sleep(0.5)
            run.watch_flight(witness)  # also of what runs already
            assert set(witness.at_work.values()) == CELLS
            run.watch_flight(file)
            assert len(read_in_flight(tmp_path / "at work")) == len(CELLS)
            await anyio.sleep(10.0)
            assert read_in_flight(tmp_path / "at work") == (TaskId(4, "double"),)
            if how == "is stopped":
                run.stop(grace=1.0)
            await run.wait()
            assert read_in_flight(tmp_path / "at work") == ()
            assert run.stalled_at == (((4, "double"),) if how == "stalls" else ())

    run_virtual(main)
