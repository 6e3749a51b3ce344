"""The claims that an engine holds: renewed early, let go of in time."""

from __future__ import annotations

from math import inf

from headgate.storage.claims import HeldClaims
from headgate.storage.sharing import Claim

A, B = Claim(0, 0, 8, token=1), Claim(1, 8, 16, token=1)


def test_nothing_held_is_never_due() -> None:
    held = HeldClaims(60.0)
    assert held.next_tick() == inf
    assert held.due(1e9) == held.lapsed(1e9) == []


def test_a_claim_is_due_after_a_quarter_of_its_lease_and_again_after_the_next() -> None:
    held = HeldClaims(60.0)
    held.granted([A], 100.0)
    held.granted([B], 110.0)
    assert held.next_tick() == 115.0
    assert held.due(114.9) == []
    assert held.due(115.0) == [A]
    assert held.due(115.0) == []
    assert held.next_tick() == 125.0
    assert held.due(130.0) == [A, B]
    held.check()


def test_t49_two_renewals_in_a_row_may_fail() -> None:
    """T49: one lost heartbeat ended the lease."""
    held = HeldClaims(60.0)
    held.granted([A], 0.0)
    for _ in range(2):
        assert held.due(held.next_tick()) == [A]
    assert held.next_tick() == 45.0
    assert held.due(45.0) == [A]
    assert held.lapsed(45.0) == []


def test_a_claim_lapses_by_the_time_of_asking_not_of_the_answer() -> None:
    held = HeldClaims(60.0)
    held.granted([A], 0.0)
    assert held.lapsed(59.9) == []
    assert held.lapsed(60.0) == [A]
    held.granted([A], 50.0)
    assert held.lapsed(60.0) == []
    assert held.next_tick() == 65.0


def test_a_claim_of_before_does_not_drop_a_later_one() -> None:
    held = HeldClaims(60.0)
    again = A._replace(token=2)
    held.granted([again], 0.0)
    held.dropped([A])
    assert again in held
    assert A not in held
    held.dropped([again])
    assert len(held) == 0
