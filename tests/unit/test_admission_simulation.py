"""The simulator of the admission benchmark: its provider keeps the rules of ``headgate.testing``'s, its oracle reaches
the bound, its clients are offered the same work."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from benchmarks.admission.cases import CASES, AdmissionCase, Work, case_named
from benchmarks.admission.figures import figures, jain, work_by_second
from benchmarks.admission.play import HEADGATE, SHELL, play, play_oracle
from benchmarks.admission.provider import Provider, Refused, Rule
from benchmarks.admission.shell import demand_for, spec_of
from benchmarks.admission.simulation import LEG_S, MEAN_S, Demand, new_record
from headgate.admission.headers import parse_feedback
from headgate.testing.provider import Accepted, ProviderModel, ProviderRequest, Rejected
from headgate.values import Feedback, LimitKind

SECONDS = 240.0


def said(decision: Accepted | Rejected) -> Feedback:
    status = decision.status if isinstance(decision, Rejected) else 200
    return parse_feedback(decision.headers, wall_now=0.0, status=status)


@pytest.mark.parametrize("case", [case for case in CASES if not case.rule.labelled], ids=lambda case: case.name)
def test_the_provider_keeps_the_rules_of_the_provider_for_tests(case: AdmissionCase) -> None:
    """Arrivals at random, at once and in pauses: the same are refused, for the same limit, with the same words."""
    case = case.lasting(SECONDS)
    phase_s = case.phase_s(3)
    fast = Provider(case.rule, phase_s=phase_s, mean_s=MEAN_S)
    slow = ProviderModel(spec_of(case.rule, phase_s))
    rng = random.Random(case.name)
    busy: list[tuple[float, int]] = []
    now, refused = 0.0, 0
    slow.begin(ProviderRequest("m", "first", 2), now)  # its clock starts with its first request
    slow.end(1, now)
    fast.arrive(3.0, 0.0, now)
    for number in range(4000):
        now += rng.choice((0.0, 0.01, 0.02, 0.03)) if number % 400 < 380 else 1.0
        for end, request in [entry for entry in sorted(busy) if entry[0] <= now]:
            slow.end(request, end)
            busy.remove((end, request))
        tokens = rng.randint(2, 20_000)
        duration_s = rng.uniform(0.5, 8.0)
        theirs = slow.begin(ProviderRequest("m", str(number), tokens, 1), now)
        ours = fast.arrive(tokens + 1.0, duration_s, now)
        assert isinstance(theirs, Rejected) == isinstance(ours, Refused)
        if isinstance(theirs, Accepted):
            busy.append((now + duration_s, theirs.request_id))
        else:
            assert isinstance(ours, Refused)
            assert ours.limit == theirs.limit
            refused += 1
        assert (fast.feedback(ours) or Feedback()) == said(theirs)
    assert 100 <= refused <= 3900, "both sides of the rule were met"


def test_a_labelled_rejection_names_its_limit_and_nothing_else() -> None:
    provider = Provider(Rule(slots=((0.0, 1),), labelled=True), phase_s=0.0, mean_s=MEAN_S)
    assert provider.feedback(provider.arrive(0.0, 5.0, 0.0)) is None
    assert provider.feedback(provider.arrive(0.0, 5.0, 1.0)) == Feedback(kind=LimitKind.CONCURRENCY)
    assert provider.arrive(0.0, 5.0, 5.0) is None


BOUNDS = {
    "concurrency 32": 32 * SECONDS,
    "concurrency 200": 200 * SECONDS,
    "steps 64-32-64": (64 + 32 + 64) / 3 * SECONDS,
    "600 a minute, silent": 10 + 10 * (SECONDS - LEG_S),
    "fixed window 40": 40 * (SECONDS / 60 + 1),
    "32 and 240 a minute": 240 + 4 * SECONDS,
    "600k tokens, silent": 600_000 + 10_000 * SECONDS,
}


@pytest.mark.parametrize("name", BOUNDS)
def test_the_oracle_reaches_the_bound_and_is_never_refused(name: str) -> None:
    """But for the network: two legs of 40 ms on each use of a slot, which takes 5 s in the mean."""
    case = case_named(name).lasting(SECONDS)
    record = play_oracle(case, demand_for(case, 1, 0), seed=1, seconds=SECONDS)
    work = sum(work_by_second(case.work, record))
    assert record.refused == 0
    assert 2 * LEG_S / MEAN_S >= 1 - work / BOUNDS[name] >= -0.002


def test_busy_time_is_what_it_would_be_second_by_second() -> None:
    record = new_record(10)
    spans = [(0.25, 3.5), (1.0, 2.0), (2.25, 2.75), (4.0, 30.0)]
    for begin, end in spans:
        record.serve(begin, end)
    expected = [sum(max(0.0, min(end, s + 1) - max(begin, s)) for begin, end in spans) for s in range(10)]
    assert record.busy_by_second() == pytest.approx(expected)


def test_jobs_are_the_same_whatever_was_refused_before() -> None:
    plain, refused = Demand(3, tokens=True), Demand(3, tokens=True)
    first = refused.take()
    assert first is not None
    refused.back(first)
    taken = [job for job in (refused.take() for _ in range(20)) if job is not None]
    again = [job for job in (plain.take() for _ in range(20)) if job is not None]
    assert [(job.duration_s, job.tokens, job.estimate) for job in taken] == [
        (job.duration_s, job.tokens, job.estimate) for job in again
    ]
    assert all(0.5 * job.tokens - 1 <= job.estimate <= 1.5 * job.tokens + 1 for job in taken)


def test_a_demand_of_rows_ends() -> None:
    demand = Demand(1, rows=2)
    assert demand.take() is not None
    assert demand.take() is not None
    assert demand.take() is None


def test_a_seed_repeats_exactly_and_another_does_not() -> None:
    case = case_named("32 and 240 a minute")
    first, again, other = (play(HEADGATE, case, seed=seed, seconds=60.0).figures for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_all_rows_are_answered_and_each_flow_has_its_share() -> None:
    rows = play(HEADGATE, replace(case_named("1,000 rows"), rows=1000), seed=1, seconds=300.0)
    assert rows.records[0].answered == rows.oracle.answered > 100
    assert rows.records[0].in_flight == 0
    shares = [1.0, 2.0, 3.0]
    assert jain(shares) == pytest.approx(36 / 42)
    assert jain([2.0, 2.0]) == 1.0
    assert jain([1.0, 0.0]) == 0.5


@pytest.mark.parametrize(
    "name", ["concurrency 32", "600 a minute, headers", "600k tokens, headers", "two clients on 64"]
)
def test_the_controller_does_as_the_gate_does(name: str) -> None:
    """Two ways to drive the same laws against two provider machines: what they come to differs by chance only."""
    case = case_named(name)
    gate, shell = (play(kind, case, seed=1, seconds=120.0).figures for kind in (HEADGATE, SHELL))
    assert shell.utilisation == pytest.approx(gate.utilisation, abs=0.03)
    assert shell.refused == pytest.approx(gate.refused, abs=0.02)


def test_the_controller_finishes_all_rows() -> None:
    played = play(SHELL, case_named("1,000 rows"), seed=1, seconds=180.0)
    assert played.records[0].answered == played.oracle.answered > 100
    assert played.figures.makespan < 1.5


def test_the_shell_is_offered_the_jobs_that_the_provider_will_draw() -> None:
    """Its oracle serves the same durations: the provider's busy time is that of the demand."""
    case = case_named("concurrency 32")
    demand = demand_for(case, 5, 0)
    jobs = [job for job in (demand.take() for _ in range(3)) if job is not None]
    model = ProviderModel(spec_of(case.rule, 0.0, seed=5))
    for job in jobs:
        accepted = model.begin(ProviderRequest("m", f"job {job.number}"), 0.0)
        assert isinstance(accepted, Accepted)
        assert accepted.latency_s == job.duration_s


def test_shares_that_swing_are_fair_in_the_end_but_not_by_the_minute() -> None:
    case = replace(case_named("two clients on 64"), work=Work.REQUESTS)
    swinging, oracle = [new_record(241), new_record(241)], new_record(241)
    for second in range(240):
        swinging[second // 60 % 2].accepted[second] = 3
        swinging[1 - second // 60 % 2].accepted[second] = 1
        oracle.accepted[second] = 4
    found = figures(case, swinging, oracle, 240.0)
    assert found.jain == pytest.approx(1.0)
    assert found.jain_by_minute == pytest.approx(16 / 20)
    assert found.utilisation == 1.0
