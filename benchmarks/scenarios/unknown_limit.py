"""A provider whose limits nobody knows, over real HTTP: OpenAI's client, a server in a process of its own.

Each case is measured for headgate and for two programs as people write them by hand. All are told the same: 256
requests at once are the most, and nothing else; a 429 does not say which limit it is about. What can be counted at the
server is counted there.

Sizes: OpenAI's client takes some 4 ms of CPU per request. 32 slots and answers of a second make 32 requests/s, a bucket
of 50/s makes 50, so that neither end X
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import anyio

from headgate.testing.provider import (
    Change,
    Faults,
    Latency,
    ModelSpec,
    OutputTokens,
    ProviderProcess,
    ProviderSpec,
    RetryAfter,
)
from headgate.testing.provider.answers import content_of

from ..contenders import CONTENDERS, with_slots
from ..measure import Case, Effort, Sample, Scenario, at_least, at_most, measured
from ..oracle import oracle_s, seconds_at_concurrency, seconds_at_rate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from headgate.testing.provider import ModelStats, Slice

    from ..contenders import Contender, Told
    from ..measure import Plan
    from ..result import CaseResult, Goal, ScenarioResult

__all__ = ["SCENARIO", "to_95_s"]

US = "headgate"
TOLD = "openai, told"
WARM = ProviderSpec(models={"m": ModelSpec(latency=Latency(mean_s=0.01))})
WARM_ROWS = 8
FAST_PER_S = 200
COLUMNS = (
    *("rows done", "rows failed", "rows lost", "requests", "429s", "wall", "bound", "wall over bound"),
    *("wall over oracle", "time to 95 %", "CPU per request", "CPU per row", "client CPU"),
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One case: so many rows, served like this. ``smooth_s`` is how long a mean must be at the limit to count.

    ``over`` (wall over that of an oracle; None where the client is the bound) and ``refused`` (429s per 100 rows) are
    what headgate is to reach, its ramp included: doubling every second from four slots to 32 costs two seconds, 3 % of
    a minute.
    """

    name: str
    rows: int
    model: ModelSpec
    over: float | None
    refused: float
    smooth_s: float


def settings(effort: Effort) -> tuple[Setting, ...]:
    """In full a minute of work each: 2,000 rows of a second in 32 slots, or at 50/s; otherwise a second or less.

    The bucket of 200/s, the one case too fast for that, is there in full only.
    """
    slots, rows = effort.pick(4, 8, 32), effort.pick(12, 40, 2_000)
    rate, burst = effort.pick(50, 50, 50), effort.pick(10, 20, 50)
    mean_s, smooth_s = effort.pick(2, 10, 100) / 100, effort.pick(1, 2, 50) / 10
    halved_s, restored_s = effort.pick(1, 4, 200) / 10, effort.pick(2, 8, 400) / 10
    plain = ModelSpec(
        concurrency=slots,
        latency=Latency(mean_s=mean_s, sigma=0.5),
        output_tokens=OutputTokens(mean=20),
        vague=True,
    )
    bucket = ModelSpec(
        requests_per_minute=60 * rate,
        request_burst=burst,
        latency=Latency(mean_s=mean_s / 2, sigma=0.5),
        output_tokens=OutputTokens(mean=20),
        retry_after=RetryAfter.SECONDS,
        vague=True,
    )
    script = (Change(at_s=halved_s, concurrency=slots // 2), Change(at_s=restored_s, concurrency=slots))
    faults = Faults(error_500=0.02, reset=0.01, slow=0.01, slow_factor=10.0, malformed=0.005)
    changing, faulty = plain.model_copy(update={"script": script}), plain.model_copy(update={"faults": faults})
    fast = bucket.model_copy(update={"requests_per_minute": 60 * FAST_PER_S, "request_burst": FAST_PER_S})
    return (
        Setting(f"{slots} slots", rows, plain, 1.05, 1.0, smooth_s),
        Setting(f"{rate} requests/s", rows, bucket, 1.05, 1.0, smooth_s),
        *([Setting(f"{FAST_PER_S} requests/s", rows, fast, None, 1.0, smooth_s)] if effort is Effort.FULL else []),
        Setting(f"{slots} slots, half of them away for a while", rows, changing, 1.08, 1.0, smooth_s),
        Setting(f"{slots} slots, faults", rows, faulty, 1.05, 1.0, smooth_s),
    )


def cases(plan: Plan) -> Iterator[Case]:
    """In full every setting for every client, and the first for one that is told the limit: what HTTP costs.

    With less effort the others show in the first setting only how they work: their backoff alone takes seconds.
    """
    runs = None if plan.effort is Effort.FULL else 1
    with ProviderProcess(WARM) as provider:
        _warm_up(provider)
        for number, setting in enumerate(settings(plan.effort)):
            clients = CONTENDERS if number == 0 or plan.effort is Effort.FULL else {US: CONTENDERS[US]}
            if number == 0 and plan.effort is Effort.FULL:
                clients = {**clients, TOLD: partial(_told, setting)}
            for name, client in clients.items():
                if not plan.clients or any(part in name for part in plan.clients):
                    measure = partial(_measure, provider, setting, name, client, plan.seed)
                    yield Case(f"{setting.name} / {name}", measure, runs)


async def _told(setting: Setting, base_url: str, prompts: Sequence[str], seed: int) -> Told:
    assert setting.model.concurrency is not None
    return await with_slots(setting.model.concurrency, base_url, prompts)


def _measure(
    provider: ProviderProcess, setting: Setting, name: str, contender: Contender, seed: int
) -> Iterable[Sample]:
    prompts = _prompts(setting.rows)
    spec = ProviderSpec(models={"m": setting.model}, seed=seed)
    provider.replace(spec)
    with measured() as ours:
        told = anyio.run(contender, provider.base_url, prompts, seed)
    stats, slices = provider.stats().models["m"], provider.timeline("m")
    goals = _goals(setting) if name == US else {}
    bound_s = _bound_s(setting.model, stats)
    best_s = oracle_s([content_of([{"role": "user", "content": prompt}]) for prompt in prompts], "m", spec)
    refused = stats.statuses.get("429", 0)
    values = [
        ("rows done", "", told.done),
        ("rows failed", "", told.failed),
        ("rows lost", "", setting.rows - told.done - told.failed),
        ("requests", "", stats.requests),
        ("429s", "", refused),
        ("429s per 100 rows", "%", 100 * refused / setting.rows),
        ("wall", "s", told.seconds),
        ("bound", "s", bound_s),
        ("wall over bound", "x", told.seconds / bound_s),
        ("wall over oracle", "x", told.seconds / best_s),
        *_times_to_95(setting, slices, told.seconds),
        ("CPU per request", "ms", ours.cpu_s / stats.requests * 1e3),
        ("CPU per row", "ms", ours.cpu_s / setting.rows * 1e3),
        ("client CPU", "of a core", ours.cpu_s / ours.wall_s),
    ]
    return [Sample(label, unit, value, goals.get(label)) for label, unit, value in values]


def _goals(setting: Setting) -> dict[str, Goal]:
    goals = {
        "rows done": at_least(setting.rows),
        "rows failed": at_most(0),
        "rows lost": at_most(0),
        "429s per 100 rows": at_most(setting.refused),
    }
    return goals if setting.over is None else {**goals, "wall over oracle": at_most(setting.over)}


def _bound_s(model: ModelSpec, stats: ModelStats) -> float:
    """Work over capacity: the seconds that requests spent in slots, failed ones too, or the requests let through."""
    if model.concurrency is None:
        return seconds_at_rate(stats.accepted, model)
    return seconds_at_concurrency(stats.busy_s, model)


def _times_to_95(setting: Setting, slices: Sequence[Slice], never_s: float) -> list[tuple[str, str, float]]:
    """From the start and from each change. (A rate has none: its burst hides the beginning.)"""
    if setting.model.concurrency is None:
        return []
    times = [("time to 95 %", "s", to_95_s(slices, 0.0, setting.smooth_s, never_s))]
    for change in setting.model.script:
        label = f"time to 95 % of {change.concurrency}"
        times.append((label, "s", to_95_s(slices, change.at_s, setting.smooth_s, never_s)))
    return times


def to_95_s(slices: Sequence[Slice], since_s: float, smooth_s: float, never_s: float) -> float:
    """Seconds from ``since_s`` until, for ``smooth_s`` from then on, 95 % of the slots are in use (``never_s``: never).

    While more are in use than the limit allows, as after a cut, the limit has not been found either.
    """
    for place, first in enumerate(slices):
        window = [one for one in slices[place:] if one.at_s < first.at_s + smooth_s]
        if first.at_s < since_s or sum(one.seconds for one in window) < smooth_s * (1 - 1e-9):
            continue
        share = sum(one.busy_s for one in window) / sum(one.capacity_s or 0.0 for one in window)
        if 0.95 <= share <= 1.05:
            return first.at_s - since_s
    return never_s


def _prompts(rows: int) -> list[str]:
    return [f"question number {row} of them all" for row in range(rows)]


def _warm_up(provider: ProviderProcess) -> None:
    """What a process does once, imports and first calls, is nobody's cost per request."""
    for contender in CONTENDERS.values():
        anyio.run(contender, provider.base_url, _prompts(WARM_ROWS), 0)


def table(result: ScenarioResult) -> Iterator[str]:
    """One line a client. What headgate was to reach and missed is bold; the goals themselves are in the JSON."""
    units = {metric.name: metric.unit for case in result.cases for metric in case.metrics}
    heads = (f"{name}, {units[name]}" if units.get(name) else name for name in COLUMNS)
    yield f"| case / client | {' | '.join(heads)} |"
    yield f"|---|{'---:|' * len(COLUMNS)}"
    for case in result.cases:
        yield f"| {case.name} | {' | '.join(_cell(case, name) for name in COLUMNS)} |"


def _cell(case: CaseResult, name: str) -> str:
    """The medians of a metric and of its variants by step."""
    found = [metric for metric in case.metrics if metric.name == name or metric.name.startswith(f"{name} of")]
    return ", ".join(f"**{one.median:.4g}**" if one.met is False else f"{one.median:.4g}" for one in found)


SCENARIO = Scenario(
    "unknown-limit",
    "A provider that nobody was told anything about, over real HTTP: all rows, few 429s, near the bound?",
    cases,
    table,
)
