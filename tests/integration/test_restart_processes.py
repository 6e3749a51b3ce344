"""Replicas as real processes on a real store: eight fail at once, and who leads is killed at each step (R1, R2)."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from headgate.restart import Verdict
from headgate.testing.analysis import AnalysisProcess, AnalysisSpec
from tests.integration.postgres_server import shared_server
from tests.integration.warm_children import WarmChild
from tests.integration.warm_servers import WarmAnalysis

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import TracebackType

CHILD = Path(__file__).with_name("restart_child.py")
STEPS = ["trigger<", "trigger>", "claim<", "claim>", "read<", "read>", "decide<", "decide>"]
OF_THE_STORE = {"claim<", "claim>", "decide<", "decide>"}
KINDS = ["sqlite", "files", "postgres"]


class Replica:
    """A child process, for the length of a block."""

    def __init__(self, store: str, service: AnalysisProcess, name: str, kill_at: str = "never") -> None:
        command = [sys.executable, str(CHILD), store, service.url, name, kill_at]
        self.process = WarmChild(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def hears(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def says(self) -> list[str]:
        assert self.process.stdout is not None
        return self.process.stdout.readline().split()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate()


class Crowd:
    """Seven replicas that live through everything, on one store."""

    def __init__(self, kind: str, store: str, service: AnalysisProcess, replicas: list[Replica]) -> None:
        self.kind = kind  # part of each run's name: all kinds ask one service
        self.store = store
        self.service = service
        self.replicas = replicas

    def fail_with(self, other: Replica, run: str, *, dies: bool) -> set[tuple[str, ...]]:
        """All enter ``run``; ``other`` fails first, and dies of it; then everybody. Returns what the seven are told."""
        for replica in (other, *self.replicas):
            replica.hears(run)
        for replica in (other, *self.replicas):
            assert replica.says() == ["entered", "1"]
        other.hears("fail")
        if dies:
            assert other.process.wait(60) == -9
        for replica in self.replicas:
            replica.hears("fail")
        return {tuple(replica.says()) for replica in self.replicas}


@pytest.fixture(scope="module")
def service() -> Generator[AnalysisProcess]:
    with WarmAnalysis(AnalysisSpec(verdict=Verdict.STOP, seconds=0.3)) as running:
        yield running


@pytest.fixture(scope="module", params=KINDS)
def crowd(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, service: AnalysisProcess
) -> Generator[Crowd]:
    with ExitStack() as stack:
        if request.param == "postgres":
            server = shared_server()
            store = f"postgres:{server.dsn}|{stack.enter_context(server.schema())}"
        else:
            store = f"{request.param}:{tmp_path_factory.mktemp('restart') / 'store'}"
        replicas = [stack.enter_context(Replica(store, service, f"r{n}")) for n in range(7)]
        yield Crowd(request.param, store, service, replicas)


def test_eight_processes_one_analysis_one_decision(crowd: Crowd) -> None:
    """R1, R2."""
    run = f"calm on {crowd.kind}"
    with Replica(crowd.store, crowd.service, "eighth") as eighth:
        told = crowd.fail_with(eighth, run, dies=False)
        assert tuple(eighth.says()) in told
    assert [one[:4] for one in told] == [("told", "1", "told_to_stop", "answers")]
    assert sum(cycle.startswith(f"{run}-") for cycle in crowd.service.account().triggers) == 1


@pytest.mark.parametrize(
    ("crowd", "step"),
    [(kind, step) for kind in KINDS for step in STEPS if kind != "files" or step in OF_THE_STORE],
    indirect=["crowd"],
    scope="module",
)
def test_a_replica_killed_at_any_step_changes_nothing(crowd: Crowd, step: str) -> None:
    """R1, R2: kill -9 before and after each call of the store and the service, from the trigger to the decision.

    On each kind of store at its own calls; at those of the service on two.
    """
    run = f"{crowd.kind}, killed at {step}"
    with Replica(crowd.store, crowd.service, "victim", step) as victim:
        told = crowd.fail_with(victim, run, dies=True)
    assert [one[:4] for one in told] == [("told", "1", "told_to_stop", "answers")]
    assert sum(cycle.startswith(f"{run}-") for cycle in crowd.service.account().triggers) == 1
    with Replica(crowd.store, crowd.service, "late") as late:
        late.hears(run)
        assert late.says() == ["entered", "1", "told_to_stop"]
