"""The harness sees what it is for: each promise is broken on purpose, and it says which.

And it is easy to use on a pipeline of one's own.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Literal

import anyio
import pytest

import headgate
from headgate.admission import AdmissionController, Lease
from headgate.engine.core import RunCore
from headgate.engine.intake import Intake
from headgate.engine.open_rows import OpenRows
from headgate.engine.steps import Steps
from headgate.salvage.salvage import Salvage
from headgate.testing import (
    Cancel,
    Capacity,
    ColumnShape,
    DeadlockError,
    Faults,
    Latency,
    Leave,
    LivelockError,
    ModelSpec,
    PromiseBroken,
    ProviderSpec,
    Scenario,
    SimulationReport,
    Stop,
    Surroundings,
    VirtualProvider,
    check_pipeline,
    check_scenario,
    clock,
)
from headgate.values import Outcome
from tests.simulation.simulated import count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headgate.scheduler.tasks import Task

SPEC = ProviderSpec(models={"small": ModelSpec(concurrency=4, latency=Latency(mean_s=1, sigma=0.5))}, seed=3)


def tickets(provider: VirtualProvider) -> headgate.Pipeline:
    pipeline = headgate.Pipeline("tickets")

    @pipeline.column(model="acme/small")
    async def question(row: int) -> str:
        return (await provider.chat("small", f"Ask about {row}.")).text

    @pipeline.column(model="acme/small")
    async def answer(question: str) -> str:
        return (await provider.chat("small", question)).text

    return pipeline


def nothing(*_: object) -> None:
    """In the place of what should have been done."""


def check(build: Callable[[VirtualProvider], headgate.Pipeline] = tickets, **more: object) -> SimulationReport:
    return check_pipeline(build, 40, SPEC, **more)  # type: ignore[arg-type]


def broken(promise: str, build: Callable[[VirtualProvider], headgate.Pipeline] = tickets, **more: object) -> None:
    with pytest.raises(PromiseBroken) as caught:
        check(build, **more)
    assert caught.value.promise == promise


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_pipeline_of_ones_own(backend: Literal["asyncio", "trio"]) -> None:
    around = Surroundings(interruptions=(Stop(at_s=3), Cancel(at_s=4), Leave(at_s=5)), commit_s=0.2, reader_s=0.1)
    found = count(check(surroundings=around, backend=backend, limits={"acme/small": {"concurrency": 4}}), 2)
    assert (found.final.done, found.lives, len(found.reports)) == (40, 4, 3)
    assert [report.status for report in found.reports] == ["stopped", "stopped", "completed"]
    assert found.provider.models["small"].answered >= 80
    assert found.starts >= 80
    assert found.checks > 100
    assert f"{found.lives} lives" in str(found)


def test_rows_may_come_from_a_function_and_slowly() -> None:
    def rows() -> list[dict[str, int]]:
        return [{"row": row} for row in range(12)]

    found = count(check_pipeline(tickets, rows, SPEC, surroundings=Surroundings(arrival_s=2.0)), 2)
    assert found.final.done == 12
    assert found.seconds > 24


def test_what_is_ill_for_ever_gets_well_in_the_second_phase() -> None:
    spec = ProviderSpec(models={"small": ModelSpec(reject=429)})
    found = count(check_pipeline(tickets, 10, spec, patience=100), 2)
    assert [report.status for report in found.reports] == ["held", "completed"]
    healthy = Surroundings(healthy=Capacity(latency=Latency(mean_s=7), reject=None))
    slow = count(check_pipeline(tickets, 10, spec, patience=100, surroundings=healthy), 2)
    assert slow.seconds > found.seconds + 7


def test_a_scenario_is_code_that_makes_it_again() -> None:
    scenario = Scenario(
        columns=(ColumnShape("a", calls=("m",)), ColumnShape("b", ("a",), when=("a", 2), blocking=True)),
        rows=9,
        provider=ProviderSpec(models={"m": ModelSpec(concurrency=2, faults=Faults(reset=0.1))}, seed=5),
        limits={"acme/m": {"concurrency": "1-2-4"}},
        options={"group_size": 4},
        surroundings=Surroundings(interruptions=(Stop(at_s=1.0),)),
        seed=8,
    )
    again: object = eval(repr(scenario))
    assert isinstance(again, Scenario)
    assert again == scenario
    assert count(check_scenario(again), 2).decisions == count(check_scenario(scenario), 2).decisions


def test_a1_requests_behind_the_gates_back_are_seen() -> None:
    """A1: a body that asks twice at once under one lease."""

    def build(provider: VirtualProvider) -> headgate.Pipeline:
        pipeline = headgate.Pipeline("twice")

        @pipeline.column(model="acme/small")
        async def twice(row: int) -> int:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(provider.chat, "small", f"one {row}")
                tasks.start_soon(provider.chat, "small", f"two {row}")
            return row

        return pipeline

    broken("A1", build=build, limits={"acme/small": {"concurrency": 2}})


def test_a1_a_limit_that_is_passed_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A1: the gate forgets a lease that is out."""
    release = AdmissionController.release

    def twice(self: AdmissionController, lease: Lease, *args: object, **more: object) -> object:
        scope = self.gate.scopes()["acme/small"]
        scope.in_flight -= scope.in_flight > 1
        return release(self, lease, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(AdmissionController, "release", twice)
    with pytest.raises(AssertionError, match="in flight"):
        check()


def test_s2_work_that_is_done_again_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """S2: a resumed run does not look at what the store has."""
    monkeypatch.setattr(Intake, "_restored", nothing)
    broken("S2", surroundings=Surroundings(interruptions=(Stop(at_s=3),)))


def test_s3_other_arguments_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """S3: a body is given what belongs to another row."""
    inputs = RunCore.inputs

    def of_another(self: RunCore, task: Task) -> tuple[Sequence[int], dict[str, object]]:
        rows, given = inputs(self, task)
        return rows, {name: f"{value}!" if name == "question" else value for name, value in given.items()}

    monkeypatch.setattr(RunCore, "inputs", of_another)
    broken("S3")


def test_s4_an_idle_slot_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """S4: ready tasks are not placed until something else happens; or nothing ever does, which is a deadlock."""
    step = Steps.step
    steps = 0

    def lazy(self: Steps, now: float, alone: bool) -> None:
        nonlocal steps
        steps += 1
        if steps % 3:
            step(self, now, alone)

    def unwoken(_: Steps) -> None:
        """The loop sleeps on."""

    monkeypatch.setattr(Steps, "step", lazy)
    monkeypatch.setattr(Steps, "_wake_if_due", unwoken)
    with pytest.raises((PromiseBroken, DeadlockError)) as caught:
        check()
    assert getattr(caught.value, "promise", "S4") == "S4"


def test_s6_too_many_open_rows_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """S6: rows come in, however many are open."""

    def much(_: object) -> int:
        return 1_000

    monkeypatch.setattr(Intake, "room", much)
    broken("S6", max_open_rows=32, group_size=1)


def test_s7_a_lease_that_stays_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """S7: a lease is not given back when its task is cancelled."""
    release = AdmissionController.release

    def forgetful(self: AdmissionController, lease: Lease, outcome: Outcome, **more: object) -> object:
        return None if outcome is Outcome.CANCELLED else release(self, lease, outcome, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(AdmissionController, "release", forgetful)
    broken("S7", surroundings=Surroundings(interruptions=(Cancel(at_s=3),)))


def test_s8_chance_from_outside_is_seen() -> None:
    """S8: a body decides by a generator that nobody seeded."""

    def build(provider: VirtualProvider) -> headgate.Pipeline:
        pipeline = headgate.Pipeline("dice")

        @pipeline.column
        async def dice(row: int) -> float:
            await anyio.sleep(random.SystemRandom().random())
            return 0.0

        return pipeline

    broken("S8", build=build)


def test_v1_a_row_that_fails_from_pressure_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """V1: a 429 is taken for the row's own fault."""

    def harsh(self: Salvage[object], task: object, entry: object, attempt: object) -> object:
        return self._fail(task, entry, headgate.FailureKind.RATE_LIMITED)  # type: ignore[arg-type]  # pyright: ignore

    monkeypatch.setattr(Salvage, "_hold", harsh)
    broken("V1", limits={"acme/small": {"concurrency": 8}})


def test_v5_a_run_that_makes_no_progress_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """V5: held tasks never come back, in whichever life."""
    monkeypatch.setattr(RunCore, "tick", nothing)
    monkeypatch.setattr(clock, "TURNS_MAX", 20_000)  # the sooner it is given up, the sooner this is over
    with pytest.raises((PromiseBroken, LivelockError)) as caught:
        check(limits={"acme/small": {"concurrency": 8}})
    assert getattr(caught.value, "promise", "V5") == "V5"


def test_d1_a_row_that_is_visible_too_early_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """D1: rows are handed out before their commit."""

    def at_once(self: OpenRows, index: int) -> None:
        self._hand_out((self.rows[index],))  # pyright: ignore[reportPrivateUsage]

    monkeypatch.setattr(OpenRows, "finish", at_once)
    broken("D1", surroundings=Surroundings(commit_s=0.5, reader_s=0.0))
