"""The thread that does the jobs of many tasks: nobody who waits for it is forgotten."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import anyio
import pytest

from headgate.storage.job_thread import JobThread

if TYPE_CHECKING:
    from headgate.storage.job_thread import Job


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_whoever_closes_it_is_told_also_if_letting_go_of_the_connection_fails() -> None:
    def serve(jobs: list[Job[int]]) -> None:
        thread.settle(jobs)

    def end() -> None:
        raise OSError("the disk has gone")

    thread: JobThread[int] = JobThread("store", serve, end)
    await thread.do(1)
    with anyio.fail_after(5.0):
        await thread.aclose()
        await thread.aclose()
    assert not any(one.name == "headgate-store-store" for one in threading.enumerate())
