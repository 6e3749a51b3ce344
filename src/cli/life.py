"""A run that is one life under a supervisor: what it is ordered, what is noted of it, what it says of its end."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ..engine.supervised import known_cells, ledger_of
from ..restart import ChildReport
from ..restart.in_flight import InFlightFile
from ..restart.process import at_work_file, read_orders, say_end
from ..restart.supervisor import NO_CURE
from ..restart.values import cause_of
from ..values import EXIT_CODES
from . import data

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from ..engine.pipeline import Pipeline
    from ..engine.report import RunReport
    from ..engine.runs import Run
    from ..export import Export

__all__ = ["LifeNotes", "life_in"]

_LEAVING_S = 15.0
"""How long a life whose supervisor is gone has to end in good order."""


class LifeNotes:
    """What is known of this life while it goes on."""

    def __init__(self, set_aside: frozenset[tuple[int, str]], in_flight: InFlightFile) -> None:
        self.set_aside = set_aside
        self._in_flight = in_flight
        self._runs: list[Run] = []
        self._report: tuple[RunReport, Export | None] | None = None

    def begun(self, run: Run) -> None:
        """``run`` is what it does."""
        self._runs[:] = [one for one in self._runs if not one.done]  # of a shared run there is one for each row group
        self._runs.append(run)
        run.watch_flight(self._in_flight)

    def ended(self, report: RunReport, written: Export | None) -> None:
        """The run has ended so."""
        self._report = report, written

    def end(self, error: Exception | None) -> ChildReport:
        """What there is to say of the end."""
        report, written = self._report or (None, None)
        ledger = ledger_of(report, self._runs)
        if report is None or error is not None:
            cause = None if error is None else cause_of(error)
            return ChildReport("crashed", EXIT_CODES["crashed"], cause, isinstance(error, NO_CURE), ledger)
        plain = json.loads(data.as_json(data.of_report(report, written)))
        return ChildReport(report.status.value, report.exit_code, ledger=ledger, report=plain)


@contextmanager
def life_in(folder: Path, pipeline: Pipeline) -> Generator[LifeNotes]:
    """Be the life in ``folder``, for the length of the block. Raises ConfigError if it is none."""
    set_aside = known_cells(pipeline, read_orders(folder))
    threading.Thread(target=_end_with_supervisor, name="headgate-supervisor", daemon=True).start()
    columns = [column.spec.name for column in pipeline.columns]
    with InFlightFile(at_work_file(folder), columns) as in_flight:
        notes = LifeNotes(set_aside, in_flight)
        try:
            yield notes
        except Exception as error:
            say_end(folder, notes.end(error))
            raise
        say_end(folder, notes.end(None))


def _end_with_supervisor() -> None:
    """Standard input ends when the supervisor does: then so does this process, in good order if it can."""
    with suppress(OSError, ValueError, AttributeError):
        while os.read(sys.stdin.fileno(), 4096):
            pass
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(_LEAVING_S)
    os._exit(EXIT_CODES["stopped"])
