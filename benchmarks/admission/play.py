"""Playing one case with one kind of client and one seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from .clients import GateClient, untold
from .figures import Figures, figures
from .oracle import Oracle
from .simulation import Demand, Simulation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .cases import AdmissionCase
    from .simulation import Client, Record

__all__ = ["HEADGATE", "KINDS", "Played", "play", "play_oracle"]

HEADGATE: Final = "headgate"
WARM_S: Final = 120.0


class Played(NamedTuple):
    """What one run gave: numbers, and the clients' and the oracle's records."""

    figures: Figures
    records: list[Record]
    oracle: Record


def _gate(case: AdmissionCase, demand: Demand, seed: int) -> Client:
    return GateClient(demand, seed=seed, limits=untold(case.cap), weights=case.weights)


KINDS: Final[Mapping[str, Callable[[AdmissionCase, Demand, int], Client]]] = {HEADGATE: _gate}
"""Every kind of client, by name."""


def play(kind: str, case: AdmissionCase, *, seed: int, seconds: float, trace_s: float | None = None) -> Played:
    """Run ``case`` (as written for half an hour) for ``seconds`` and compare it with the oracle."""
    case = case.lasting(seconds)
    oracle = play_oracle(case, seed=seed, seconds=seconds)
    make = KINDS[kind]
    demands = [_demand(case, seed, number) for number in range(case.clients)]
    clients = [make(case, demand, seed * 100 + number) for number, demand in enumerate(demands)]
    simulation = Simulation(
        case.rule,
        clients,
        demands,
        seconds=seconds,
        phase_s=case.phase_s(seed),
        warm_s=min(WARM_S, seconds / 3),
        trace_s=trace_s,
    )
    simulation.run()
    return Played(figures(case, simulation.records, oracle, seconds), simulation.records, oracle)


def play_oracle(case: AdmissionCase, *, seed: int, seconds: float) -> Record:
    """The same for one client that knows everything; with several clients it has the demand of all."""
    demand = _demand(case, seed, 0)
    oracle = Oracle(case.rule, demand, phase_s=case.phase_s(seed), flows=len(case.weights))
    simulation = Simulation(case.rule, [oracle], [demand], seconds=seconds, phase_s=case.phase_s(seed))
    simulation.run()
    record = simulation.records[0]
    assert record.refused == 0
    return record


def _demand(case: AdmissionCase, seed: int, number: int) -> Demand:
    tokens = case.rule.tokens_per_minute is not None
    return Demand(seed * 100 + number, tokens=tokens, rows=case.rows)
