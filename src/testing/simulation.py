"""A pipeline of your own under limits that you name, in virtual time: hours in seconds, nothing sent, nothing spent.

The engine is the real one, with its admission, control law, salvage and store in memory; only the provider and the
column bodies are not. So the forecast is as good as what is assumed of the provider: see :mod:`.assumed`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Unpack, cast

from ..admission.limits_book import LimitsSource, load_limits
from ..engine.engine import Engine
from ..engine.faces import loop_is_running
from ..engine.options import RunKeywords, RunOptions
from ..engine.rows import COUNT_FIELD, RowId, Rows
from ..engine.spans import span
from ..errors import ConfigError
from .assumed import AssumptionsSource, load_assumptions
from .clock import run_virtual
from .provider.spec import ModelSpec, ProviderSpec
from .provider.virtual import VirtualProvider
from .scenario import directly
from .stand_in import Answers, StandIn

if TYPE_CHECKING:
    from collections.abc import Collection

    from ..engine.pipeline import Pipeline
    from ..engine.report import RunReport
    from .assumed import Assumptions
    from .provider.values import ModelStats, ProviderStats

__all__ = ["Knob", "SimulatedResource", "SimulatedRun", "simulate"]

EPOCH_S = 1_700_000_000.0
KNOB = 2.0
"""How far each limit is turned to see what it would gain."""


@dataclass(frozen=True, slots=True)
class SimulatedResource:
    """What the provider saw of one model. Rates are per minute, over the time from its first request to the end.

    ``rejected`` counts 429s by the limit that they were about; ``used`` is the part of each limit that was in use on
    average, from 0 to 1 (of a burst more); ``limit`` is the one that was used most, or None if it has none.
    """

    resource: str
    requests: int
    answered: int
    rejected: Mapping[str, int]
    requests_per_minute: float
    tokens_per_minute: float
    used: Mapping[str, float]

    @property
    def rejected_share(self) -> float:
        """The part of all requests that was answered with 429."""
        return sum(self.rejected.values()) / self.requests if self.requests else 0.0

    @property
    def limit(self) -> str | None:
        """The limit that was used most."""
        return max(self.used, key=lambda name: self.used[name]) if self.used else None


@dataclass(frozen=True, slots=True)
class Knob:
    """What turning one knob would gain: the run takes ``seconds`` then. One that gains under a fiftieth is left out."""

    knob: str
    before: str
    after: str
    seconds: float


@dataclass(frozen=True, slots=True)
class SimulatedRun:
    """What a simulation came to. ``report`` is that of any run, in virtual seconds; ``str(...)`` shows it all.

    ``assumed`` says what was not as it will be; ``knobs``, the best first, what else would have come of it, if that was
    asked. ``took_s`` is what it took to simulate.
    """

    report: RunReport
    resources: tuple[SimulatedResource, ...]
    assumed: tuple[str, ...]
    knobs: tuple[Knob, ...]
    took_s: float

    @property
    def seconds(self) -> float:
        """How long the run would take."""
        return self.report.seconds

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def simulate(
    pipeline: Pipeline,
    rows: Rows,
    provider: AssumptionsSource,
    *,
    limits: LimitsSource = None,
    answers: Answers | None = None,
    call: Collection[str] = (),
    knobs: bool = False,
    row_id: RowId = None,
    argument: str | None = None,
    **options: Unpack[RunKeywords],
) -> SimulatedRun:
    """Run ``pipeline`` over ``rows`` against a provider that behaves as assumed, in virtual time, and forecast the run.

    ``provider`` says what is true (a TOML file, a mapping, or :class:`~headgate.testing.Assumptions`), ``limits`` what
    headgate is told of it, as for :func:`headgate.run`: leave them out to see what it finds out.

    No column body is called. A model column takes the latency of its simulated requests and yields a value made from
    its return type, unless ``answers`` has one: a value, or a plain function of the column's parameters. Local columns
    named in ``call`` are called after all: they must ask nobody. Conditions are asked where all that they look at is
    known, and hold always otherwise; ``tokens=`` functions are asked. ``rows`` are read as a run would read them; a
    number makes rows up, all fields the same. With ``knobs`` each limit is also tried at twice its size.

    Raises ConfigError and PipelineError. Takes about 1 ms of CPU for a request. Not for async iterables: give it
    a list of their rows.
    """
    assumed = load_assumptions(provider)
    load_limits(limits)
    RunOptions.of(cast("dict[str, object]", options))
    if isinstance(rows, AsyncIterable):
        raise ConfigError("a simulation waits for nothing real: give it the rows as a list, not as an async iterable")
    known, made_up = _rows(pipeline, rows, again=knobs)
    run = _Simulated(pipeline, known, limits, answers or {}, frozenset(call), made_up, row_id, argument, options)
    return _alone(lambda: run.forecast(assumed, knobs=knobs))


class _Simulated:
    """Everything that stays the same while knobs are turned."""

    def __init__(
        self,
        pipeline: Pipeline,
        rows: Rows,
        limits: LimitsSource,
        answers: Answers,
        call: frozenset[str],
        made_up: frozenset[str],
        row_id: RowId,
        argument: str | None,
        options: RunKeywords,
    ) -> None:
        self._pipeline = pipeline
        self._rows = rows
        self._limits = limits
        self._answers = answers
        self._call = call
        self._made_up = made_up
        self._row_id = row_id
        self._argument = argument
        self._options = options

    def forecast(self, assumed: Assumptions, *, knobs: bool) -> SimulatedRun:
        began = time.monotonic()
        stand_in, report, stats = self._once(assumed, self._limits)
        tried = sorted(self._knobs(assumed, stand_in, report.seconds), key=lambda one: one.seconds) if knobs else ()
        resources = tuple(
            _resource(name, stats.models[name], model, stats.now_s) for name, model in stand_in.models.items()
        )
        assumed_of = (*self._made_up_notes(), *stand_in.notes)
        return SimulatedRun(report, resources, assumed_of, tuple(tried), time.monotonic() - began)

    def _once(self, assumed: Assumptions, limits: LimitsSource) -> tuple[StandIn, RunReport, ProviderStats]:
        stand_in = StandIn(self._pipeline, assumed, self._answers, self._call, made_up=self._made_up, seed=assumed.seed)
        report, stats = run_virtual(self._run, stand_in, assumed, limits)
        return stand_in, report, stats

    async def _run(
        self, stand_in: StandIn, assumed: Assumptions, limits: LimitsSource
    ) -> tuple[RunReport, ProviderStats]:
        models = cast("Mapping[str, ModelSpec]", stand_in.models)
        spec = ProviderSpec(models=models, seed=assumed.seed)
        provider = stand_in.provider = VirtualProvider(spec, network_s=assumed.network_s, epoch_s=EPOCH_S)
        engine = Engine(limits=limits, seed=assumed.seed, threads=directly, wall_clock=provider.wall_s)
        async with engine:
            run = await engine.start(
                stand_in.pipeline, self._rows, row_id=self._row_id, argument=self._argument, **self._options
            )
            async with aclosing(run.rows()) as finished:  # taken, so that memory does not grow with the run
                async for _ in finished:
                    pass
            return await run.wait(), provider.stats()

    def _knobs(self, assumed: Assumptions, stand_in: StandIn, seconds: float) -> Iterator[Knob]:
        """Each limit alone at twice its size; and without the limits that headgate was told."""
        for name, model in stand_in.models.items():
            for limit in _LIMITS:
                value = getattr(model, limit)
                if value is None:
                    continue
                larger = model.model_copy(update={limit: type(value)(value * KNOB)})
                changed = assumed.model_copy(update={"models": {**assumed.models, name: larger}})
                _, report, _ = self._once(changed, self._limits)
                yield from _knob(f"{name} {limit}", f"{value:g}", f"{value * KNOB:g}", report, seconds)
        if self._limits is not None:
            _, report, _ = self._once(assumed, None)
            yield from _knob("the limits that headgate is told", "as given", "found out", report, seconds)

    def _made_up_notes(self) -> Iterator[str]:
        called = f" but {', '.join(sorted(self._call))}" if self._call else ""
        yield f"no function of a column was called{called}; answers are made up, and take as long as assumed"
        if self._made_up:
            yield f"the rows are made up: {', '.join(sorted(self._made_up))}"


_LIMITS = (
    "concurrency",
    "requests_per_minute",
    "tokens_per_minute",
    "input_tokens_per_minute",
    "output_tokens_per_minute",
)


def _knob(knob: str, before: str, after: str, report: RunReport, seconds: float) -> Iterator[Knob]:
    if report.seconds < 0.98 * seconds:
        yield Knob(knob, before, after, report.seconds)


def _resource(name: str, stats: ModelStats, model: ModelSpec, seconds: float) -> SimulatedResource:
    minutes = max(seconds, 1e-9) / 60
    tokens = stats.input_tokens + stats.output_tokens
    rates = {
        "requests_per_minute": stats.accepted,
        "tokens_per_minute": tokens,
        "input_tokens_per_minute": stats.input_tokens,
        "output_tokens_per_minute": stats.output_tokens,
    }
    used = {
        limit: done / minutes / getattr(model, limit) for limit, done in rates.items() if getattr(model, limit, None)
    }
    if stats.utilisation is not None and model.concurrency:
        used["concurrency"] = stats.utilisation
    return SimulatedResource(
        resource=name,
        requests=stats.requests,
        answered=stats.answered,
        rejected=dict(stats.rejected),
        requests_per_minute=stats.accepted / minutes,
        tokens_per_minute=tokens / minutes,
        used=used,
    )


def _rows(pipeline: Pipeline, rows: Rows, *, again: bool) -> tuple[Rows, frozenset[str]]:
    """The rows, as often as they are needed, and the fields of them that are made up."""
    if not isinstance(rows, int):
        if again and isinstance(rows, Iterator):
            rows = list(cast("Iterable[object]", rows))
        return rows, frozenset()
    needs = pipeline.compile(None).input_fields - {COUNT_FIELD}
    if not needs:
        return rows, frozenset()
    return _MadeUp(rows, needs), needs


class _MadeUp:
    """Rows with fields of which nothing is known."""

    def __init__(self, count: int, fields: frozenset[str]) -> None:
        self._count = count
        self._fields = dict.fromkeys(sorted(fields), "made up")

    def __iter__(self) -> Iterator[dict[str, object]]:
        return ({COUNT_FIELD: index, **self._fields} for index in range(self._count))


def _alone(work: Callable[[], SimulatedRun]) -> SimulatedRun:
    """Virtual time needs a loop of its own: in a notebook, whose thread has one already, in another thread."""
    if not loop_is_running():
        return work()
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


def _lines(run: SimulatedRun) -> Iterator[str]:
    report = run.report
    yield f"simulated: the run takes {span(run.seconds)}; nothing was sent, it took {span(run.took_s)} to simulate"
    for one in run.resources:
        said = ", ".join(f"{count} for {limit}" for limit, count in sorted(one.rejected.items()))
        yield (
            f"  {one.resource}: {one.answered} answers, {one.requests_per_minute:.4g} requests and "
            f"{one.tokens_per_minute:.6g} tokens a minute, {100 * one.rejected_share:.2g} % 429s"
            + (f" ({said})" if said else "")
        )
        if one.used:
            yield "    in use of " + ", ".join(
                f"{limit} {100 * part:.0f} %" for limit, part in sorted(one.used.items(), key=lambda item: -item[1])
            )
    yield from (f"  {line}" for line in str(report).splitlines())
    for knob in run.knobs:
        yield f"  with {knob.knob} {knob.after} instead of {knob.before}: {span(knob.seconds)}"
    yield from (f"  assumed: {note}" for note in run.assumed)
