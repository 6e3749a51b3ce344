"""Performing a run for the command line: with a live view beside it, and Ctrl-C that ends it in good order."""

from __future__ import annotations

import shlex
import sys
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from ..engine.faces import arun
from ..engine.interrupts import interruptible
from ..engine.report import RunStatus
from ..observe import live
from ..storage.opening import without_secrets

if TYPE_CHECKING:
    from ..engine.pipeline import Pipeline
    from ..engine.report import RunReport
    from ..engine.runs import Run
    from .life import LifeNotes
    from .targets import GivenRows

__all__ = ["Errand", "default_store", "perform", "resume_line"]


@dataclass(frozen=True)
class Errand:
    """A run as it was asked for. ``words`` are the arguments and options with which it can be resumed."""

    pipeline: Pipeline
    rows: GivenRows
    store: str
    run: str
    options: dict[str, Any]
    words: tuple[str, ...]


def default_store(pipeline: Pipeline) -> str:
    """Where a run is kept if nobody says where."""
    return f"{pipeline.name}.db"


def perform(errand: Errand, notes: LifeNotes | None = None, *, progress: bool, quiet_stdout: bool) -> RunReport:
    """Run to the end, or until Ctrl-C, and return the report, which says by which command the run can be resumed.

    ``notes`` are taken of a life under a supervisor. With ``quiet_stdout`` what the user's code prints goes to standard
    error.
    """
    face = partial(_face, errand, notes, progress=progress)
    with redirect_stdout(sys.stderr) if quiet_stdout else nullcontext():
        report, _ = anyio.run(interruptible, face, dict[str, object]())
    if not report.resume_hint:
        return report
    how = "resume with a larger budget" if report.status is RunStatus.BUDGET_EXHAUSTED else "resume"
    return replace(report, resume_hint=f"{how}: {resume_line(errand)}")


def resume_line(errand: Errand) -> str:
    """The command that resumes the run."""
    return shlex.join(("headgate", "resume", *errand.words, "--store", without_secrets(errand.store)))


async def _face(errand: Errand, notes: LifeNotes | None, *, progress: bool, started: Any) -> RunReport:
    options: dict[str, Any] = errand.options
    if notes is not None and notes.set_aside:
        own: list[Any] = list(options.get("set_aside", ()))
        options = {**options, "set_aside": [*own, *notes.set_aside]}
    view = live(total=errand.rows.total)

    def begun(run: Run) -> None:
        if notes is not None:
            notes.begun(run)
        if progress:
            view(run)
        started(run)

    return await arun(errand.pipeline, errand.rows.rows, store=errand.store, run=errand.run, started=begun, **options)
