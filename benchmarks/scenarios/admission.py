"""How well a client that is told little or nothing finds a provider's limits, and keeps to them for half an hour.

Virtual time throughout, so the numbers depend on the code and the seeds alone. Utilisation is the work that the
provider did (slot seconds, requests or tokens, whichever is limited) over what it did, in the same simulator with the
same seed, for an oracle that knows the limit: see ``benchmarks/admission/oracle.py``. Goals are held against the mean
of the seeds. headgate is measured twice: its gate in the simulator with every seed, and its controller, which takes
longer to play, with two fifths of them; the baselines get three fifths.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

from ..admission.cases import CASES, Goals, case_named
from ..admission.play import HEADGATE, KINDS, SHELL, play
from ..admission.processes import Piece, spread
from ..admission.table import FAIRNESS, FAIRNESS_BY_MINUTE, LATE, MAKESPAN, REACH, REFUSED, UTILISATION, WASTED, table
from ..measure import Case, Sample, Scenario, at_least, at_most
from ..result import Judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from ..admission.cases import AdmissionCase
    from ..admission.figures import Figures
    from ..measure import Plan
    from ..result import Goal, ScenarioResult

__all__ = ["SCENARIO"]

OURS: Final = (HEADGATE, SHELL)
SEEDS: Final = {HEADGATE: 1.0, SHELL: 0.4}
SEEDS_OF_OTHERS: Final = 0.6
"""The share of the seeds that a client gets: what is judged and cheap gets all."""


def cases(plan: Plan) -> Iterator[Case]:
    """Every case with every client, each seed one run."""
    seconds = _seconds(plan)
    chosen = [
        (case, kind)
        for case in CASES
        for kind in (*KINDS, SHELL)
        if plan.wants(f"{case.name} / {kind}") and (not plan.clients or any(part in kind for part in plan.clients))
    ]
    work = [
        Piece(_run, (case.name, kind, seed, seconds))
        for case, kind in chosen
        for seed in range(plan.seed, plan.seed + _runs(plan, kind))
    ]
    with ExitStack() as stack:
        results = iter(spread(work, plan.jobs, stack))
        for case, kind in chosen:
            measure = partial(_samples, results, case, kind in OURS)
            yield Case(f"{case.name} / {kind}", measure, runs=_runs(plan, kind))


def draw(plan: Plan, _: ScenarioResult) -> dict[str, Path]:
    """Play the first seed of each case once more with every client, and draw what happens."""
    names = [case.name for case in CASES if plan.wants(case.name)]
    work = [Piece(_draw_one, (name, plan.pictures, plan.seed, _seconds(plan))) for name in names]
    with ExitStack() as stack:
        return {name: drawn() for name, drawn in zip(names, spread(work, plan.jobs, stack), strict=True)}


def _seconds(plan: Plan) -> float:
    return 60.0 * (plan.minutes or plan.effort.pick(1, 12, 120) / 4)


def _draw_one(name: str, folder: Path, seed: int, seconds: float) -> Path:
    from ..admission import pictures  # matplotlib takes a second to import, and only this needs it

    return pictures.draw(case_named(name), folder, seed=seed, seconds=seconds)


def _runs(plan: Plan, kind: str) -> int:
    return max(1, round(plan.runs * SEEDS.get(kind, SEEDS_OF_OTHERS)))


def _run(name: str, kind: str, seed: int, seconds: float) -> Figures:
    return play(kind, case_named(name), seed=seed, seconds=seconds).figures


def _samples(results: Iterator[Callable[[], Figures]], case: AdmissionCase, judged: bool) -> Iterable[Sample]:
    found, goals = next(results)(), case.goals if judged else Goals()

    def sample(name: str, unit: str, value: float, goal: Goal | None = None) -> Sample:
        return Sample(name, unit, value, goal, Judge.MEAN)

    if case.rows is not None:
        yield sample(MAKESPAN, "x", found.makespan, _most(goals.makespan))
    else:
        yield sample(UTILISATION, "x", found.utilisation, _least(goals.utilisation))
        yield sample(LATE, "%", found.late * 100, _most(goals.late, 100))
    yield sample(REFUSED, "%", found.refused * 100)
    for step, to_95_s in enumerate(found.to_95_s):
        yield sample(f"{REACH}{f' after change {step}' if step else ''}", "s", to_95_s, _most(goals.to_95_s))
    if case.shared:
        yield sample(FAIRNESS, "x", found.jain, _least(goals.jain))
    if case.clients > 1:
        yield sample(FAIRNESS_BY_MINUTE, "x", found.jain_by_minute)
    yield sample(WASTED, "requests", found.wasted)


def _least(bound: float | None) -> Goal | None:
    return None if bound is None else at_least(bound)


def _most(bound: float | None, scale: float = 1.0) -> Goal | None:
    return None if bound is None else at_most(bound * scale)


SCENARIO = Scenario(
    "admission",
    "Unlimited demand against limits that nobody told, in virtual time, relative to an oracle that knows them.",
    cases,
    table,
    draw,
)
