"""Looking ahead with a sample: the first rows are run for real, kept like any others, and the rest is forecast."""

from __future__ import annotations

import random
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import inf, sqrt
from typing import TYPE_CHECKING, Unpack

import anyio.to_thread

from ..errors import ConfigError, ResultExpired, UnknownRun
from ..values import Outcome, ResourceKey, Usage
from .accounts import open_book
from .engine import Engine
from .forecast import NORMAL_95, Range, ScopeLoad, WorkLeft, finish_time, forecast_usage, thinned
from .options import RunOptions
from .planning import plan_run

if TYPE_CHECKING:
    from ..admission.controller import AdmissionController
    from ..admission.limits_book import LimitsSource
    from ..admission.scope import Scope
    from ..salvage.classify import CustomClassifier
    from ..storage.ports import RunStore
    from .engine import StoreSource
    from .forecast import Forecast, Price
    from .options import RunKeywords
    from .pipeline import Pipeline
    from .planned import RunPlan
    from .report import RunReport
    from .rows import RowId, Rows
    from .runs import Run

__all__ = ["asample"]

_MEASURED = 0.8
"""A limit that rejections have shown may come down by a fifth, as a neighbour comes."""


async def asample(
    pipeline: Pipeline,
    rows: Rows,
    sample: int,
    *,
    store: StoreSource = None,
    run: str | None = None,
    limits: LimitsSource = None,
    row_id: RowId = None,
    argument: str | None = None,
    classify: CustomClassifier | None = None,
    seed: int | None = None,
    price: Price | None = None,
    started: Callable[[Run], object] | None = None,
    **options: Unpack[RunKeywords],
) -> RunPlan:
    """Run the first ``sample`` rows as :func:`headgate.arun` would, then plan the rest of the run and forecast it.

    What the sample pays for is kept in ``store`` and not paid again: the run that follows resumes from it, and the same
    call again runs nothing. Rows that were done before are part of the sample. The result is that of
    :func:`headgate.aplan` with its ``forecast``: tokens, cost by ``prices`` or ``price``, and time, which is known only
    if this call sent requests. The first rows stand for all others: shuffle them if they are sorted.

    Raises what those two raise; ConfigError for rows that can be read only once.
    """
    if store is None:
        raise ConfigError("a sample is paid for: give a store= that keeps it for the run")
    if sample < 1:
        raise ConfigError(f"a sample has one row or more, not {sample!r}")
    if isinstance(rows, AsyncIterable | Iterator):
        raise ConfigError("with a sample the rows are read twice: give them as a list, a count, or a file")
    first: Rows = min(sample, rows) if isinstance(rows, int) else list(islice(rows, sample))
    book = None if price is not None else await open_book(RunOptions.of(options), None)
    price = price if book is None else book.dollars
    before = await plan_run(pipeline, first, store=store, run=run, row_id=row_id, argument=argument, **options)
    async with Engine(limits=limits, store=store, classify=classify, seed=seed) as engine:
        going = await engine.start(pipeline, first, run=run, row_id=row_id, argument=argument, **options)
        if started is not None:
            started(going)
        report = await going.wait()
        plan = await plan_run(pipeline, rows, store=engine.store, run=run, row_id=row_id, argument=argument, **options)
        used = await anyio.to_thread.run_sync(_used, engine.store, plan)
        shares = _shares(before, report)
        models = dict.fromkeys(column.model for column in plan.columns if column.model is not None)
        fees = {one: shares.get(one, _NOTHING).per_cell * book.fee(one) for one in models} if book is not None else {}
        forecast = forecast_usage(list(_work(plan, used, fees)), rng=random.Random(seed or 0), price=price)
        timed = _timed(forecast, before, report, shares, engine.admission)
    unpriced = () if book is None else [model for model in models if book.price(model) is None]
    told = tuple(
        f"the price of {model} is not known, so the cost is not: give it in prices= (--price)" for model in unpriced
    )
    told = told if book is None or not book.notice else (*told, book.notice)
    return replace(plan, forecast=replace(timed, notices=(*timed.notices, *told)))


@dataclass(frozen=True, slots=True)
class _Used:
    """What the store has of a run: tokens by column of each row, and of all attempts of each column."""

    rows: Sequence[Mapping[str, Usage]]
    spent: Mapping[str, Usage]


def _used(store: RunStore, plan: RunPlan) -> _Used:
    """Blocks."""
    models = {column.column for column in plan.columns if column.model is not None}
    found: list[Mapping[str, Usage]] = []
    try:
        for row in store.read_rows(plan.run):
            ended = {cell.column: cell.usage for cell in row.cells if cell.column in models}
            if ended:
                found.append(ended)
        return _Used(found, store.read_spent(plan.run))
    except (UnknownRun, ResultExpired):  # not one row was given
        return _Used((), {})


def _work(plan: RunPlan, used: _Used, fees: Mapping[str, float]) -> Iterator[WorkLeft]:
    """``fees`` are those of a cell, by model."""
    rows = thinned(used.rows)
    if not rows:
        return
    for column in plan.columns:
        if column.model is None:
            continue
        last = sum((row[column.column] for row in used.rows if column.column in row), Usage())
        every = used.spent.get(column.column, Usage())
        tokens = last.input_tokens + last.output_tokens
        yield WorkLeft(
            column=column.column,
            model=column.model,
            cells=column.to_run,
            sample=tuple(row.get(column.column) for row in rows),
            waste=max(1.0, (every.input_tokens + every.output_tokens) / tokens) if tokens else 1.0,
            fees=fees.get(column.model, 0.0),
        )


# How long it takes


def _shares(before: RunPlan, report: RunReport) -> dict[str, _Share]:
    """What the sample took, by resource."""
    ended = {column.column: column.to_run for column in before.columns}
    for column in report.columns:
        ended[column.column] -= column.held
    return {
        resource.resource: _Share(
            busy_s=resource.busy_s,
            requests=resource.requests,
            answered=resource.outcomes.get(Outcome.SUCCESS, 0) + resource.outcomes.get(Outcome.INVALID_OUTPUT, 0),
            cells=sum(ended[column.column] for column in before.columns if column.model == resource.resource),
            peak=resource.peak_in_flight,
            rejected=resource.rate_limited > 0,
        )
        for resource in report.resources
    }


def _timed(
    forecast: Forecast, before: RunPlan, report: RunReport, shares: Mapping[str, _Share], admission: AdmissionController
) -> Forecast:
    notices = tuple(_notices(forecast, report))
    if not forecast.sampled and any(column.model is not None and column.to_run for column in before.columns):
        told = "no cell of the sample has ended, so nothing is known of the rest: see headgate report"
        return replace(forecast, cost=None, notices=(*notices, told))
    unknown = [c.column for c in forecast.columns if c.cells and not shares.get(c.model, _NOTHING).requests]
    if unknown:
        told = f"the time is not known, as no request of {', '.join(unknown)} was made this time: give a larger sample"
        return replace(forecast, notices=(*notices, told))
    seconds, pace = finish_time(list(_loads(forecast, shares, admission)))
    unshown = tuple(
        f"{name} has not shown its limit with up to {share.peak} requests in flight, so the time may be anything from "
        "what was seen to the most that is configured: say its limits, or give a larger sample"
        for name, share in shares.items()
        if share.requests and not share.rejected and _searches(name, admission)
    )
    return replace(forecast, seconds=seconds, pace=pace, notices=(*notices, *unshown))


def _notices(forecast: Forecast, report: RunReport) -> Iterator[str]:
    if report.failed or report.held:
        yield f"of the sample {report.failed} rows failed and {report.held} are held: see headgate report"
    for column in forecast.columns:
        if column.cells and not column.input_tokens.high and not column.output_tokens.high:
            yield f"{column.column} reported no tokens: lease.report(usage=...) or headgate.attach tells them"


def _loads(forecast: Forecast, shares: Mapping[str, _Share], admission: AdmissionController) -> Iterator[ScopeLoad]:
    """What each scope of admission has to carry yet."""
    for scope in admission.gate.scopes().values():
        inside = [name for name in shares if scope.name in _scopes(name, admission)]
        columns = [column for column in forecast.columns if column.model in inside and column.cells]
        if not columns:
            continue
        slot_s = sum(column.cells * shares[column.model].slot_s for column in columns)
        requests = _sum(shares[column.model].requests_for(column.cells) for column in columns)
        read = _sum(column.input_tokens for column in columns)
        written = _sum(column.output_tokens for column in columns)
        amounts = {
            "requests": requests,
            "input_tokens": read,
            "output_tokens": written,
            "tokens": _sum((read, written)),
        }
        rates = tuple(
            (str(kind.value), amounts[kind.value], limiter.rate_per_minute)
            for kind, limiter in scope.limiters.items()
            if 0 < limiter.rate_per_minute < inf
        )
        sent = sum(shares[name].requests for name in inside)
        yield ScopeLoad(scope.name, slot_s, sent, _slots(scope, [shares[name] for name in inside]), rates)


@dataclass(frozen=True, slots=True)
class _Share:
    """One resource in the sample, per cell that ended on it."""

    busy_s: float
    requests: int
    answered: int
    cells: int
    peak: int
    rejected: bool

    @property
    def slot_s(self) -> float:
        return self.busy_s / self.cells if self.cells else 0.0

    @property
    def per_cell(self) -> float:
        """Requests that are answered; one, if none was made this time."""
        return self.answered / self.cells if self.answered and self.cells else 1.0

    def requests_for(self, cells: int) -> Range:
        """Where conditions spare some cells, how many is known from so many of them."""
        per_cell = self.requests / self.cells if self.cells else 0.0
        asked = min(1.0, per_cell)
        unsure = NORMAL_95 * sqrt(asked * (1.0 - asked) / self.cells) if self.cells else 0.0
        likely = cells * per_cell
        return Range(max(0.0, likely - cells * unsure), likely, min(likely + cells * unsure, max(likely, cells)))


_NOTHING = _Share(0.0, 0, 0, 0, 0, rejected=False)


def _scopes(resource: str, admission: AdmissionController) -> tuple[str, ...]:
    return ResourceKey.parse(admission.gate.scope_of(ResourceKey.parse(resource))).scopes()


def _searches(resource: str, admission: AdmissionController) -> bool:
    scope = admission.gate.scopes()[admission.gate.scope_of(ResourceKey.parse(resource))]
    return scope.limits.adaptive and scope.limit < (scope.limits.maximum or inf)


def _slots(scope: Scope, shares: Sequence[_Share]) -> Range:
    """How many requests the scope carries at once: known if somebody set it or rejections showed it."""
    most = float(scope.limits.maximum or inf)
    if scope.limit == inf:
        return Range(inf, inf, inf)
    now = max(1.0, scope.limit)
    if not scope.limits.adaptive:
        return Range(now, now, now)
    if any(share.rejected for share in shares):
        return Range(max(1.0, _MEASURED * now), now, max(now, now / _MEASURED))
    reached = max(1.0, float(max(share.peak for share in shares)))
    return Range(min(reached, now), now, max(now, most))


def _sum(ranges: Iterable[Range]) -> Range:
    """Not independent, so the ends add up too."""
    parts = list(ranges)
    return Range(*(sum(getattr(part, end) for part in parts) for end in ("low", "likely", "high")))
