"""The concurrency law and the cooldown against a simulated provider: how close to an oracle, at what price.

Short versions of the design's cases; `python -m tests.simulation.law_simulator` runs them for 30 virtual
minutes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.simulation.law_simulator import Attempt, Client, Simulation, adaptive, measure

if TYPE_CHECKING:
    from headgate.admission.concurrency import Verdict


@pytest.mark.parametrize("seed", [1, 2])
def test_concurrency_32_untold(seed: int) -> None:
    figures = measure([(0, 32)], [adaptive(seed)], seed=seed, until=400.0, check=True)
    assert figures.utilisation >= 0.99
    assert figures.late_rejected_share <= 0.005
    assert figures.to_95_s[0] <= 5.0
    assert figures.rejections <= 25


def test_concurrency_200_cap_256() -> None:
    figures = measure([(0, 200)], [adaptive(1, maximum=256)], seed=1, until=300.0)
    assert figures.utilisation >= 0.98
    assert figures.late_rejected_share <= 0.005
    assert figures.to_95_s[0] <= 12.0


@pytest.mark.parametrize("seed", [1, 2])
def test_64_then_32_then_64(seed: int) -> None:
    figures = measure([(0, 64), (180, 32), (360, 64)], [adaptive(seed)], seed=seed, until=540.0, check=True)
    assert figures.utilisation >= 0.96
    assert figures.late_rejected_share <= 0.012
    assert figures.to_95_s[0] <= 8.0
    assert figures.to_95_s[1] <= 8.0
    assert figures.to_95_s[2] <= 40.0


def test_two_clients_share() -> None:
    figures = measure([(0, 64)], [adaptive(10), adaptive(11)], seed=1, until=900.0)
    assert figures.utilisation >= 0.95
    assert figures.late_rejected_share <= 0.015
    assert max(figures.shares) <= 1.8 * min(figures.shares)


def test_after_an_outage_it_comes_back() -> None:
    """Nothing is accepted for a minute: canaries, at most one in flight, and soon after it is all as
    before."""
    client = adaptive(3)
    before, during = 0, 0

    def count(now: float, client: Client, verdict: Verdict, attempt: Attempt) -> None:
        nonlocal before, during
        before += now < 130.0
        during += 130.0 <= now < 180.0

    run = Simulation([(0, 32), (120, 0), (180, 32)], [client], seed=3, log=count, check=True)
    run.run(300.0)
    assert before <= 120
    assert during <= 12, "the provider was hammered while it was down"
    recovered = sum(client.work_by_s[215:300]) / 85
    assert recovered >= 0.95 * 31.5
    assert client.law.limit <= 34


def test_after_an_idle_hour_it_neither_bursts_nor_stalls() -> None:
    client = adaptive(4)
    run = Simulation([(0, 32)], [client], seed=4, lull=(60.0, 3660.0))
    run.run(3659.0)
    assert client.law.limit <= 33
    sends, rejections = client.sends, client.rejections
    run.run(3720.0)
    assert client.sends - sends > 300
    assert client.rejections - rejections <= 6


def test_t03_with_retry_after_the_law_still_finds_the_limit() -> None:
    """Every 429 says "retry after 2 s", and the limit must be learned all the same."""
    client = adaptive(5, start=50.0)
    run = Simulation([(0, 15)], [client], seed=5, retry_after_s=2.0, warm_s=30.0, check=True)
    run.run(400.0)
    assert 13 <= client.law.limit <= 17
    assert client.late_rejections <= 0.01 * client.late_sends
    assert client.work >= 0.93 * 14.75 * 400


def test_the_same_seed_gives_the_same_run() -> None:
    """S8."""
    first, again, other = (_trail(seed) for seed in (6, 6, 7))
    assert first
    assert first == again
    assert first != other


def _trail(seed: int) -> list[tuple[float, Verdict]]:
    trail: list[tuple[float, Verdict]] = []

    def note(now: float, client: Client, verdict: Verdict, attempt: Attempt) -> None:
        trail.append((now, verdict))

    Simulation([(0, 16)], [adaptive(seed)], seed=seed, log=note).run(120.0)
    return trail
