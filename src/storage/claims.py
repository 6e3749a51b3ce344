"""Which row groups an engine holds, when to renew its claims, and when to let go of them by itself.

A claim is renewed when a quarter of its lease is over, so that two renewals in a row may fail before it runs out (T49).
Time counts from before the store was asked: the engine lets go earlier than the store does, never later.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .sharing import Claim

__all__ = ["HeldClaims"]

RENEWALS: Final = 4
"""A claim is renewed after this part of its lease."""


@dataclass(slots=True)
class _Held:
    claim: Claim
    renew_at: float
    ends_at: float


class HeldClaims:
    """The claims of one engine, each for ``lease_s`` seconds."""

    __slots__ = ("_held", "_lease_s")

    def __init__(self, lease_s: float) -> None:
        assert lease_s > 0
        self._lease_s = lease_s
        self._held: dict[int, _Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, claim: Claim) -> bool:
        held = self._held.get(claim.group)
        return held is not None and held.claim.token == claim.token

    def granted(self, claims: Iterable[Claim], asked_at: float) -> None:
        """The store gave, or renewed, these when it was asked at ``asked_at``."""
        for claim in claims:
            self._held[claim.group] = _Held(claim, asked_at + self._lease_s / RENEWALS, asked_at + self._lease_s)

    def dropped(self, claims: Iterable[Claim]) -> None:
        """These are held no more, whoever said so."""
        for claim in claims:
            if claim in self:
                del self._held[claim.group]

    def due(self, now: float) -> list[Claim]:
        """Return what is to be renewed now. What it answers is due again a quarter of the lease later."""
        due = [held for held in self._held.values() if held.renew_at <= now]
        for held in due:
            held.renew_at = now + self._lease_s / RENEWALS
        return [held.claim for held in due]

    def lapsed(self, now: float) -> list[Claim]:
        """Return what may be somebody else's by now: no work on it is worth its price."""
        return [held.claim for held in self._held.values() if held.ends_at <= now]

    def next_lapse(self) -> float:
        """When a claim lapses next, unless it is renewed; infinity if nothing is held."""
        return min((held.ends_at for held in self._held.values()), default=inf)

    def next_tick(self) -> float:
        """When something falls due or lapses next; infinity if nothing is held."""
        return min((min(held.renew_at, held.ends_at) for held in self._held.values()), default=inf)

    def check(self) -> None:
        """State the invariants."""
        for group, held in self._held.items():
            assert held.claim.group == group
            assert held.claim.first < held.claim.last
            assert held.ends_at - self._lease_s <= held.renew_at
