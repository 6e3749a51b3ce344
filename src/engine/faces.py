"""The short ways in: one function over many rows, or a whole pipeline, from sync or async code."""

from __future__ import annotations

import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar, Unpack, cast

import anyio
import anyio.from_thread
import anyio.to_thread

from ..export import output_path
from .column import ColumnOptions
from .engine import Engine, StoreSource
from .interrupts import interruptible
from .options import RunKeywords
from .pipeline import Pipeline, one_column
from .planning import plan_run
from .sampling import asample

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from ..admission.limits_book import LimitsSource
    from ..salvage.classify import CustomClassifier
    from .forecast import Price
    from .interrupts import Face
    from .listeners import EventsSource
    from .planned import RunPlan
    from .report import RunReport
    from .rows import RowId, Rows
    from .runs import Run

__all__ = [
    "MapKeywords",
    "PlanKeywords",
    "RunFaceKeywords",
    "amap",
    "aplan",
    "arun",
    "block_on",
    "loop_is_running",
    "map",
    "plan",
    "run",
]

R = TypeVar("R")


class Ended(Protocol):
    """What a face returns: a report, or a plan."""

    @property
    def exit_code(self) -> int:
        """What the program should end with."""
        ...


class RunFaceKeywords(RunKeywords, total=False):
    """What :func:`run` takes by name: see :func:`arun`."""

    limits: LimitsSource
    store: StoreSource
    out: str | os.PathLike[str] | None
    run: str | None
    row_id: RowId
    classify: CustomClassifier | None
    seed: int | None
    started: Callable[[Run], object] | None
    share: bool
    events: EventsSource
    control: str | os.PathLike[str] | bool | None


class PlanKeywords(RunKeywords, total=False):
    """What :func:`plan` takes by name: see :func:`aplan`."""

    sample: int
    store: StoreSource
    limits: LimitsSource
    run: str | None
    row_id: RowId
    argument: str | None
    classify: CustomClassifier | None
    seed: int | None
    price: Price | None


class MapKeywords(RunFaceKeywords, ColumnOptions, total=False):
    """What :func:`map` takes by name: the options of one column and those of a run."""


async def arun(
    pipeline: Pipeline,
    rows: Rows,
    *,
    limits: LimitsSource = None,
    store: StoreSource = None,
    out: str | os.PathLike[str] | None = None,
    run: str | None = None,
    row_id: RowId = None,
    argument: str | None = None,
    classify: CustomClassifier | None = None,
    seed: int | None = None,
    started: Callable[[Run], object] | None = None,
    share: bool = False,
    events: EventsSource = None,
    control: str | os.PathLike[str] | bool | None = None,
    **options: Unpack[RunKeywords],
) -> RunReport:
    """Run ``pipeline`` over ``rows`` to its end and return the report.

    ``limits``: a TOML file, a mapping of scope names (``openai``, ``openai/gpt-x``, ``*``) to limits, one Limits, or
    None to find them out. ``store``: a path (SQLite, durable; the same call again resumes), a RunStore, or None for
    memory. ``out``: a .jsonl or .parquet file that the finished rows are written to, in order, in one piece; see
    :func:`headgate.export_run`. ``run`` names the
    run in the store, ``row_id`` identifies rows; ``argument`` is the field that a row which is no mapping becomes.
    ``classify`` is asked first what an exception means. ``started`` is called with the run in progress, to watch or
    stop it. ``share`` lets several such calls, in any processes, work on one run: see
    :meth:`headgate.Engine.share`; ``started`` hears of each row group then. ``events`` is a JSON-lines file or a
    function that is told what happens: see :mod:`headgate.events`. ``control`` opens a local socket for
    ``headgate ctl``: a path, or True for one in the usual directory. ``options`` are those of RunOptions:
    ``patience``, ``deadline``, ``max_attempts``, ``group_size``, ...

    A failed row never raises (unless ``on_failure="raise"``); a broken pipeline, input, store or configuration does.
    """
    path = None if out is None else output_path(out)
    async with Engine(
        limits=limits, store=store, classify=classify, seed=seed, events=events, control=control
    ) as engine:
        if share:
            report = await engine.share(
                pipeline, rows, run=run, row_id=row_id, argument=argument, started=started, **options
            )
        else:
            going = await engine.start(pipeline, rows, run=run, row_id=row_id, argument=argument, **options)
            if started is not None:
                started(going)
            report = await going.wait()
        if path is not None:
            await anyio.to_thread.run_sync(report.export, path)
    return report


async def amap(function: Callable[..., object], rows: Rows, **options: Unpack[MapKeywords]) -> RunReport:
    """Call ``function`` once for each row, under the limits of ``model=``, and return the report.

    A row that is a mapping gives its fields by parameter name; any other row is the one argument. The results are in
    ``report.results()`` under the function's name, or ``name=``. All options of a column (``model``, ``timeout``,
    ``tokens``, ...) and of :func:`arun` apply.
    """
    given = cast("dict[str, object]", options)
    column = {name: given[name] for name in given if name in ColumnOptions.__annotations__}
    of_run = {name: given[name] for name in given if name not in column}
    pipeline, argument = one_column(function, **cast("ColumnOptions", column))
    return await arun(pipeline, rows, argument=argument, **cast("RunFaceKeywords", of_run))


def run(pipeline: Pipeline, rows: Rows, **options: Unpack[RunFaceKeywords]) -> RunReport:
    """:func:`arun` for code that is not async; works inside a notebook too.

    In the main thread of a program Ctrl-C stops the run: what is in flight gets a grace time, everything finished is
    committed, the report says how to resume, and the program exits with status 130. A second Ctrl-C leaves at once.
    """
    given = cast("dict[str, object]", options)
    return block_on(cast("Face[RunReport]", partial(arun, pipeline, rows)), given)


def map(function: Callable[..., object], rows: Rows, **options: Unpack[MapKeywords]) -> RunReport:  # noqa: A001
    """:func:`amap` for code that is not async; Ctrl-C as in :func:`run`."""
    given = cast("dict[str, object]", options)
    return block_on(cast("Face[RunReport]", partial(amap, function, rows)), given)


async def aplan(
    pipeline: Pipeline,
    rows: Rows,
    *,
    sample: int = 0,
    store: StoreSource = None,
    limits: LimitsSource = None,
    run: str | None = None,
    row_id: RowId = None,
    argument: str | None = None,
    classify: CustomClassifier | None = None,
    seed: int | None = None,
    price: Price | None = None,
    started: Callable[[Run], object] | None = None,
    **options: Unpack[RunKeywords],
) -> RunPlan:
    """Say what :func:`arun` would do with the same arguments: how many cells of each column would run.

    Reads the store and all ``rows``, calls no function of a column or condition, and changes nothing: a run that goes
    on in another process is not disturbed. Of the ``options``, ``on_change``, ``retry_failed``, ``finish_siblings`` and
    ``group_size`` matter. The same is refused as by a run: PipelineError, InputError, ConfigError, FingerprintMismatch
    and other StoreErrors.

    With ``sample`` the first rows, so many of them, are run for real before, under ``limits`` and kept in ``store``,
    which the run that follows resumes from: nothing that was paid for is paid again. Then ``forecast`` of the plan says
    what the rest takes: tokens, cost if ``prices`` or ``price`` know it, and time. The first rows stand for all others:
    shuffle them if they are sorted. The rows are read twice then, so they must not be an iterator.
    """
    if not sample:
        return await plan_run(pipeline, rows, store=store, run=run, row_id=row_id, argument=argument, **options)
    return await asample(
        pipeline, rows, sample, store=store, run=run, limits=limits, row_id=row_id, argument=argument,
        classify=classify, seed=seed, price=price, started=started, **options,
    )  # fmt: skip


def plan(pipeline: Pipeline, rows: Rows, **options: Unpack[PlanKeywords]) -> RunPlan:
    """:func:`aplan` for code that is not async; works inside a notebook too. Ctrl-C as in :func:`run`."""
    given = cast("dict[str, object]", options)
    return block_on(cast("Face[RunPlan]", partial(aplan, pipeline, rows)), given)


def block_on(face: Face[R], options: dict[str, object]) -> R:
    """Await ``face(**options)`` from code that is not async, and end the program if Ctrl-C was pressed."""
    if loop_is_running():
        # A notebook: its loop has this thread, so the run gets a loop and a thread of its own.
        with anyio.from_thread.start_blocking_portal() as portal:
            return portal.call(partial(face, **options))
    if threading.current_thread() is not threading.main_thread():
        return anyio.run(partial(face, **options))
    report, interrupted = anyio.run(interruptible, face, options)
    if interrupted:
        print(report, file=sys.stderr)  # noqa: T201  (the program ends here, and this is what it has to say)
        raise SystemExit(cast("Ended", report).exit_code)
    return report


def loop_is_running() -> bool:
    """Whether this thread has a loop already, as in a notebook."""
    try:
        anyio.get_current_task()
    except Exception:
        return False
    return True
