"""How well a client that is told little or nothing finds a provider's limits, and keeps to them for half an hour.

Virtual time throughout, so the numbers depend on the code and the seeds alone. Utilisation is the work that the
provider did (slot seconds, requests or tokens, whichever is limited) over what it did, in the same simulator with the
same seed, for an oracle that knows the limit: see ``benchmarks/admission/oracle.py``. Goals are held against the mean
of the seeds.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from ..admission.cases import CASES, Goals, case_named
from ..admission.play import HEADGATE, KINDS, play
from ..admission.processes import Piece, spread
from ..admission.table import table
from ..measure import Case, Sample, Scenario, at_least, at_most
from ..result import Judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ..admission.cases import AdmissionCase
    from ..admission.figures import Figures
    from ..measure import Plan
    from ..result import Goal

__all__ = ["SCENARIO"]


def cases(plan: Plan) -> Iterator[Case]:
    """Every case with every client, each seed one run."""
    seconds = 60.0 * (plan.minutes or plan.effort.pick(1, 20, 120) / 4)
    chosen = [
        (case.name, kind)
        for case in CASES
        for kind in KINDS
        if plan.wants(f"{case.name} / {kind}") and (not plan.clients or any(part in kind for part in plan.clients))
    ]
    seeds = range(plan.seed, plan.seed + plan.runs)
    work = [Piece(_run, (name, kind, seed, seconds)) for name, kind in chosen for seed in seeds]
    with ExitStack() as stack:
        results = iter(spread(work, plan.jobs, stack))
        for name, kind in chosen:
            yield Case(f"{name} / {kind}", partial(_samples, results, case_named(name), kind in OURS), runs=plan.runs)


OURS = (HEADGATE,)
NO_GOALS = Goals()


def _run(name: str, kind: str, seed: int, seconds: float) -> Figures:
    return play(kind, case_named(name), seed=seed, seconds=seconds).figures


def _samples(results: Iterator[Callable[[], Figures]], case: AdmissionCase, judged: bool) -> Iterable[Sample]:
    found, reach = next(results)(), case.goals if judged else NO_GOALS

    def sample(name: str, unit: str, value: float, goal: Goal | None) -> Sample:
        return Sample(name, unit, value, goal, Judge.MEAN)

    def least(bound: float | None) -> Goal | None:
        return None if bound is None else at_least(bound)

    def most(bound: float | None, scale: float = 1.0) -> Goal | None:
        return None if bound is None else at_most(bound * scale)

    if case.rows:
        yield sample("makespan", "x", found.makespan, most(reach.makespan))
    else:
        yield sample("utilisation", "x", found.utilisation, least(reach.utilisation))
        yield sample("429s after 120 s", "%", found.late * 100, most(reach.late, 100))
    yield sample("429s", "%", found.refused * 100, None)
    for step, to_95_s in enumerate(found.to_95_s):
        yield sample(f"to 95 %{f' after change {step}' if step else ''}", "s", to_95_s, most(reach.to_95_s))
    if case.shared:
        yield sample("Jain", "x", found.jain, least(reach.jain))
    yield sample("rejected", "requests", found.wasted, None)


SCENARIO = Scenario(
    "admission",
    "Unlimited demand against limits that nobody told, in virtual time, relative to an oracle that knows them.",
    cases,
    table,
)
