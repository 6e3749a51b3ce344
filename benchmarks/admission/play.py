"""Playing one case with one kind of client and one seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from .baselines import Fixed, Gradient, PlainAimd, ScalableMimd, SlowStartAimd
from .clients import GateClient, untold
from .figures import Figures, figures
from .oracle import Oracle
from .peers import Peer
from .shell import demand_for, play_shell
from .simulation import Demand, Simulation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .baselines import Law
    from .cases import AdmissionCase
    from .simulation import Client, Record

    Make = Callable[[AdmissionCase, Demand, int], Client]

__all__ = ["HEADGATE", "KINDS", "SHELL", "Played", "play", "play_oracle"]

HEADGATE: Final = "headgate"
SHELL: Final = "shell"
WARM_S: Final = 120.0


class Played(NamedTuple):
    """What one run gave: numbers, and the clients' and the oracle's records."""

    figures: Figures
    records: list[Record]
    oracle: Record


def _gate(case: AdmissionCase, demand: Demand, seed: int) -> Client:
    return GateClient(demand, seed=seed, limits=untold(case.cap), weights=case.weights)


def _peer(law: Callable[[int], Law], cap: int) -> Make:
    def make(case: AdmissionCase, demand: Demand, seed: int) -> Client:
        return Peer(law(case.cap or cap), demand, seed=seed, flows=len(case.weights))

    return make


KINDS: Final[Mapping[str, Make]] = {
    HEADGATE: _gate,
    "fixed semaphore": _peer(Fixed, 64),
    "AIMD": _peer(PlainAimd, 64),
    "slow start AIMD": _peer(SlowStartAimd, 100),
    "gradient": _peer(Gradient, 200),
    "MIMD": _peer(ScalableMimd, 256),
}
"""Every kind of client, by name, with the cap that it has where the case gives none: its own default."""


def play(kind: str, case: AdmissionCase, *, seed: int, seconds: float, trace_s: float | None = None) -> Played:
    """Run ``case`` (as written for half an hour) for ``seconds`` and compare it with the oracle.

    ``trace_s`` asks for a look at limits and requests in flight that often; the shell has none.
    """
    case = case.lasting(seconds)
    warm_s = min(WARM_S, seconds / 3)
    if kind == SHELL:
        records = play_shell(case, seed=seed, seconds=seconds, warm_s=warm_s)
        oracle = play_oracle(case, demand_for(case, seed, 0), seed=seed, seconds=seconds)
        return Played(figures(case, records, oracle, seconds), records, oracle)
    oracle = play_oracle(case, _demand(case, seed, 0), seed=seed, seconds=seconds)
    make = KINDS[kind]
    demands = [_demand(case, seed, number) for number in range(case.clients)]
    clients = [make(case, demand, seed * 100 + number) for number, demand in enumerate(demands)]
    simulation = Simulation(
        case.rule, clients, seconds=seconds, phase_s=case.phase_s(seed), warm_s=warm_s, trace_s=trace_s
    )
    simulation.run()
    return Played(figures(case, simulation.records, oracle, seconds), simulation.records, oracle)


def play_oracle(case: AdmissionCase, demand: Demand, *, seed: int, seconds: float) -> Record:
    """The same for one client that knows everything; where there are several clients it is offered the first's jobs."""
    phase_s = case.phase_s(seed)
    oracle = Oracle(case.rule, demand, phase_s=phase_s, flows=len(case.weights))
    simulation = Simulation(case.rule, [oracle], seconds=seconds, phase_s=phase_s)
    simulation.run()
    record = simulation.records[0]
    assert record.refused == 0
    return record


def _demand(case: AdmissionCase, seed: int, number: int) -> Demand:
    tokens = case.rule.tokens_per_minute is not None
    return Demand(seed * 100 + number, tokens=tokens, rows=case.rows)
