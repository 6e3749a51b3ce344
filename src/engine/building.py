"""Building a run: from a pipeline and rows to a shell with a core of its own, in two steps.

A *blueprint* is what can be said before anything is opened: the pipeline fits the rows, its models are known, the
options can be meant. From it a run is built once its handle is open; of one that engines share, one for each row group.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from anyio.lowlevel import checkpoint

from ..export import RunResults
from ..salvage.policy import SalvagePolicy
from ..salvage.salvage import Salvage
from ..scheduler.tasks import Task
from ..storage.memory import MemoryRun
from ..wakeup import loop_clock
from .accounts import check_prices, open_account, open_book
from .core import RunCore
from .intake import Intake
from .jobs import ThreadRunner, worker_threads
from .keeping import Keeper
from .main_loop import RunLoop
from .meter import Meter
from .open_rows import OpenRows
from .plan import plan_columns, set_aside_tasks
from .recording import recorder_of
from .records import Records
from .steps import Steps
from .summary import Heading
from .telling import RunTeller

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..admission.controller import AdmissionController
    from ..prices.lookup import PriceBook
    from ..salvage.classify import Classifier
    from ..scheduler.graph import Graph
    from ..storage.ports import RunHandle, RunStore
    from ..storage.sharing import Claim
    from .listeners import Listeners
    from .options import RunOptions
    from .pipeline import Pipeline
    from .recording import Recorder
    from .rows import RowSource
    from .values import ColumnPlan

__all__ = ["Blueprint", "RunBuilder", "require_fields"]


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A run that may begin. ``set_aside`` are the tasks that it leaves out, ``book`` has its prices if it needs any."""

    name: str
    graph: Graph
    plans: tuple[ColumnPlan, ...]
    options: RunOptions
    set_aside: frozenset[Task]
    book: PriceBook | None


def require_fields(source: RowSource, pipeline: Pipeline, graph: Graph) -> None:
    """Every row of ``source`` must have what the columns of ``pipeline`` need. Raises InputError."""
    source.require(graph.input_fields, _needs(pipeline))


def _needs(pipeline: Pipeline) -> dict[str, tuple[str, ...]]:
    return {column.spec.name: column.spec.required() for column in pipeline.columns}


class RunBuilder:
    """Builds the runs of one engine, which share its admission and its store.

    ``rng`` seeds the jitter of each; ``threads`` runs blocking functions (None: worker threads); ``store_source`` is
    what the engine's user gave as the store.
    """

    def __init__(
        self,
        admission: AdmissionController,
        store: RunStore,
        classifier: Classifier,
        *,
        rng: random.Random,
        threads: ThreadRunner | None,
        wall_clock: Callable[[], float],
        store_source: str | os.PathLike[str] | RunStore | None,
    ) -> None:
        self._admission = admission
        self._store = store
        self._classifier = classifier
        self._rng = rng
        self._threads = threads
        self._wall_clock = wall_clock
        self._store_source = store_source
        self.listeners: Listeners | None = None
        """Who listens to the engine, once it is entered; None if nobody does."""

    async def check(self, name: str, pipeline: Pipeline, source: RowSource, options: RunOptions) -> Blueprint:
        """The blueprint of a run of ``pipeline`` over ``source``, whose models admission knows from now on.

        Raises PipelineError, InputError, ConfigError, and AdmissionDenied for a model that the limits do not know.
        """
        book = await open_book(options, self._threads)
        graph = pipeline.compile(source.first_fields)
        for _ in source.requiring(graph.input_fields, _needs(pipeline)):
            await checkpoint()
        plans = plan_columns(pipeline, graph)
        set_aside = set_aside_tasks(options.set_aside, plans)
        for plan in plans:
            if plan.resource is not None:
                self._admission.register(plan.resource)
        check_prices(name, book, options, plans)
        return Blueprint(name, graph, plans, options, set_aside, book)

    def build(
        self,
        blueprint: Blueprint,
        source: RowSource,
        handle: RunHandle,
        notices: tuple[str, ...],
        *,
        claim: Claim | None = None,
        whole: RunTeller | None = None,
    ) -> RunLoop:
        """The shell of a run with a core of its own.

        ``claim`` is the row group that it is of a run that engines share, and ``whole`` tells what happens in that.
        """
        name, plans, options = blueprint.name, blueprint.plans, blueprint.options
        policy = SalvagePolicy(
            max_attempts=options.max_attempts,
            max_output_attempts=options.max_output_attempts,
            patience_s=options.patience,
        )
        teller = self.teller(blueprint, claim, whole)
        open_rows = OpenRows(plans)
        core = RunCore(
            blueprint.graph,
            plans,
            open_rows=open_rows,
            records=Records(open_rows.journal, plans, self._wall_clock),
            salvage=Salvage[Task](policy, rng=random.Random(self._rng.random())),
            finish_siblings=options.finish_siblings,
            group_size=options.group_size,
            patience_s=options.patience,
            set_aside=blueprint.set_aside,
        )
        intake = Intake(source, core, handle, self._admission, options, wall_clock=self._wall_clock, teller=teller)
        now = loop_clock()()
        meter = Meter(now)
        spending = open_account(blueprint.book, options, plans, handle)
        # Neither figures nor an account of a row group: the run that it belongs to has others beside it.
        recorder = None if claim else self._recorder(handle, core, meter, intake)
        account = None if claim else spending
        keeper = Keeper(self._admission, self._wall_clock, now, recorder, run=handle.info, spending=account)
        steps = Steps(
            name,
            core,
            intake,
            meter,
            controller=self._admission,
            classifier=self._classifier,
            handle=handle,
            keeper=keeper,
            recorder=recorder,
            options=options,
            threads=self._threads or worker_threads(options.thread_workers),
            wall_clock=self._wall_clock,
            teller=teller,
            spending=spending,
        )
        # Nobody named a store, so nobody asks it for rows that were handed out: a long run must not pile them up.
        forget = handle.forget if self._store_source is None and isinstance(handle, MemoryRun) else None
        return RunLoop(self.heading(blueprint, notices), steps, handle, options, forget=forget, teller=teller)

    def _recorder(self, handle: RunHandle, core: RunCore, meter: Meter, intake: Intake) -> Recorder:
        return recorder_of(handle, core, meter, self._admission, intake.resources, self._wall_clock())

    def teller(
        self, blueprint: Blueprint, claim: Claim | None = None, whole: RunTeller | None = None
    ) -> RunTeller | None:
        """Who tells what happens in a run, or in the row group ``claim`` of it; None if nobody listens."""
        if self.listeners is None:
            return None
        first = 0 if claim is None else _groups_before(claim, blueprint.options.group_size)
        return RunTeller(self.listeners, blueprint.name, blueprint.plans, whole=whole, first_group=first)

    def heading(self, blueprint: Blueprint, notices: tuple[str, ...]) -> Heading:
        """How the report of a run begins."""
        results = RunResults(self._store, blueprint.name, tuple(plan.name for plan in blueprint.plans))
        return Heading(blueprint.name, notices, self._resumed_with(blueprint.name), results)

    def _resumed_with(self, name: str) -> str:
        place = self._store_source
        if place is None:
            return ""
        if not isinstance(place, (str, os.PathLike)) or "://" in str(place):  # an address may hold a password
            place = "the same store"
        return f"store={str(place)!r} and run={name!r}"


def _groups_before(claim: Claim, group_size: int) -> int:
    """The groups of ``group_size`` rows in the claims before this one: all claims but the last are of one size."""
    return claim.group and claim.group * ceil(claim.first / claim.group / group_size)
