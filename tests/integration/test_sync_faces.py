"""The faces for code that is not async: from a script, a notebook, a thread; and Ctrl-C, once and twice."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

import anyio
import pytest

import headgate
from headgate.storage import CellStatus, SqliteStore
from headgate.testing.provider import (
    Capacity,
    Fault,
    Faults,
    Latency,
    ModelSpec,
    OutputTokens,
    ProviderProcess,
    ProviderSpec,
)
from tests.integration.engine_child import CAP, RUN
from tests.integration.warm_children import WarmChild
from tests.integration.warm_servers import WarmProvider

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAM = Path(__file__).with_name("engine_child.py")
ROWS = 120


def served(**faults: Fault) -> ProviderSpec:
    """A model of a fifth of a second; a row whose prompt holds a key of ``faults`` meets that fault."""
    poison = {f"number {row.removeprefix('row_')} ": fault for row, fault in faults.items()}
    model = ModelSpec(latency=Latency(mean_s=0.2), output_tokens=OutputTokens(mean=5), faults=Faults(poison=poison))
    return ProviderSpec(models={"m": model}, seed=5)


def start(provider: ProviderProcess, store: Path, grace: float) -> WarmChild:
    command = [sys.executable, str(PROGRAM), "sync", provider.base_url, str(store), str(ROWS), str(grace)]
    return WarmChild(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for(lines: IO[str], answers: int) -> None:
    for line in lines:
        answers -= line.startswith("answered")
        if answers <= 0:
            return
    raise AssertionError("the program ended too early")


def done_cells(store: Path) -> int:
    rows = SqliteStore(store).read_rows(RUN)
    return sum(cell.status is CellStatus.DONE for row in rows for cell in row.cells)


def wait_for_all_but_one(child: WarmChild, provider: ProviderProcess, store: Path) -> None:
    """Until only the request that hangs is in flight, and all that was answered is committed."""
    while child.poll() is None:
        stats = provider.stats().models["m"]
        if stats.in_flight == 1 and stats.answered == done_cells(store):
            return
        time.sleep(0.05)


def test_ctrl_c_once_finishes_what_is_in_flight_commits_and_says_how_to_resume(tmp_path: Path) -> None:
    """Section 3: exit 130, the report on standard error, everything answered is kept."""
    store = tmp_path / "s.db"
    with WarmProvider(served()) as provider:
        with start(provider, store, grace=30.0) as child:
            assert child.stdout is not None
            wait_for(child.stdout, 3 * CAP)
            child.send_signal(signal.SIGINT)
            out, err = child.communicate(timeout=60)
        assert child.returncode == 130, err
        assert "ended" not in out, "the program went on after Ctrl-C"
        stats = provider.stats().models["m"]
    assert f"run {RUN}: stopped" in err
    assert "Traceback" not in err
    assert f"resume: run it again with store={str(store)!r} and run={RUN!r}" in err
    columns = [int(count) for count in re.findall(r"^  (?:answer|verdict): (\d+) done", err, re.MULTILINE)]
    assert len(columns) == 2
    assert stats.statuses == {"200": stats.requests}, "what was in flight was cancelled"
    assert sum(columns) == done_cells(store) == stats.answered
    assert 3 * CAP <= stats.answered < ROWS


def test_ctrl_c_twice_leaves_at_once_and_keeps_what_was_committed(tmp_path: Path) -> None:
    """Section 3: a request that hangs, and a grace of ten minutes that nobody waits for."""
    store = tmp_path / "s.db"
    with WarmProvider(served(row_9=Fault.HANG)) as provider:
        with start(provider, store, grace=600.0) as child:
            assert child.stdout is not None
            wait_for(child.stdout, 4 * CAP)
            child.send_signal(signal.SIGINT)
            wait_for_all_but_one(child, provider, store)
            assert child.poll() is None, "it did not wait for what is in flight"
            child.send_signal(signal.SIGINT)
            _, err = child.communicate(timeout=60)
        assert child.returncode == 130, err
        assert "Traceback" not in err
        answered = provider.stats().models["m"].answered
        assert answered >= 4 * CAP
        assert done_cells(store) == answered
        # And the next life asks for nothing of that again.
        provider.control("m", Capacity(faults=Faults(), latency=Latency(mean_s=0.01)))
        with start(provider, store, grace=1.0) as again:
            out, err = again.communicate(timeout=120)
        assert again.returncode == 0, err
        assert "ended completed" in out
        stats = provider.stats().models["m"]
    assert stats.answered == 2 * ROWS
    assert stats.answered_again == 0


def double(value: int) -> int:
    return 2 * value


def doubled(report: headgate.RunReport) -> bool:
    results = [row["double"] for row in report.results()]
    return report.status is headgate.RunStatus.COMPLETED and results == [0, 2, 4, 6, 8]


def in_a_script() -> headgate.RunReport:
    return headgate.map(double, range(5))


def in_a_thread() -> headgate.RunReport:
    found: list[headgate.RunReport] = []
    thread = threading.Thread(target=lambda: found.append(headgate.map(double, range(5))))
    thread.start()
    thread.join()
    return found[0]


def in_a_notebook() -> headgate.RunReport:
    """A cell is plain code that runs on a thread whose loop is already running."""

    async def cell() -> headgate.RunReport:
        return headgate.map(double, range(5))

    return anyio.run(cell)


def in_a_notebook_on_trio() -> headgate.RunReport:
    async def cell() -> headgate.RunReport:
        return headgate.map(double, range(5))

    return anyio.run(cell, backend="trio")


def in_a_worker_thread_of_a_loop() -> headgate.RunReport:
    async def main() -> headgate.RunReport:
        return await anyio.to_thread.run_sync(in_a_script)

    return anyio.run(main)


@pytest.mark.parametrize(
    "where", [in_a_script, in_a_thread, in_a_notebook, in_a_notebook_on_trio, in_a_worker_thread_of_a_loop]
)
def test_the_sync_face_works_where_it_is_called(where: Callable[[], headgate.RunReport]) -> None:
    """Section 3: with a loop running or without, in the main thread or another."""
    assert doubled(where())
    # Twice: nothing of the first is left that the second could trip over.
    assert doubled(where())


def broken_in_a_script() -> headgate.RunReport:
    return headgate.map(double, range(5), limits={"openai/m": {"concurrency": 0}})


def broken_in_a_notebook() -> headgate.RunReport:
    async def cell() -> headgate.RunReport:
        return broken_in_a_script()

    return anyio.run(cell)


@pytest.mark.parametrize("where", [broken_in_a_script, broken_in_a_notebook])
def test_the_sync_face_raises_the_error_itself(where: Callable[[], headgate.RunReport]) -> None:
    """Not a group with the error in it: ``except ConfigError`` must work."""
    with pytest.raises(headgate.ConfigError, match="concurrency = 0"):
        where()


def test_the_sync_face_leaves_the_signal_handler_as_it_was() -> None:
    before = signal.getsignal(signal.SIGINT)
    assert doubled(in_a_script())
    assert signal.getsignal(signal.SIGINT) is before


def test_a_pipeline_with_blocking_functions_runs_in_threads_and_writes_its_file(tmp_path: Path) -> None:
    pipeline = headgate.Pipeline("blocking")
    threads: set[str] = set()

    @pipeline.column
    def shout(text: str) -> str:
        threads.add(threading.current_thread().name)
        time.sleep(0.01)
        return text.upper()

    out = tmp_path / "out.jsonl"
    report = headgate.run(pipeline, [{"text": f"t{row}"} for row in range(20)], out=out, store=tmp_path / "s.db")
    assert report.done == 20
    assert out.read_text(encoding="utf-8").splitlines()[3] == '{"text":"t3","shout":"T3"}'
    assert threading.main_thread().name not in threads
