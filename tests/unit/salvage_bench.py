"""The salvage machine, one call at a time."""

from __future__ import annotations

import random

from headgate.salvage.classify import Failure
from headgate.salvage.decisions import Block, Decision, Hold
from headgate.salvage.kinds import FailureKind
from headgate.salvage.policy import SalvagePolicy
from headgate.salvage.salvage import Salvage

K = FailureKind
LANE = "openai/gpt-x"
POLICY_CAP_S = SalvagePolicy().cap_s


def machine(policy: SalvagePolicy | None = None) -> Salvage[str]:
    return Salvage(policy, rng=random.Random(3))


def fail(salvage: Salvage[str], task: str, kind: FailureKind, now: float, **more: float) -> Decision:
    return salvage.failed(task, LANE, Failure(kind, f"{kind} at {now:g}", 500), now, **more)


def release_all(salvage: Salvage[str], now: float) -> list[str]:
    return salvage.due(now, fresh_work=False)


def work(salvage: Salvage[str], now: float, count: int = 1) -> None:
    """Other tasks succeed on the lane."""
    for i in range(count):
        salvage.succeeded(f"other {now} {i}", LANE, now)


def trip(salvage: Salvage[str], now: float, count: int = 8) -> Block:
    for i in range(count):
        assert isinstance(fail(salvage, f"t{i}", K.PROVIDER_ERROR, now), Hold)
    (block,) = salvage.drain_effects()
    assert isinstance(block, Block)
    return block
