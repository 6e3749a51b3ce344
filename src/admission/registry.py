"""Which resources there are, which scopes each passes, which names mean the same.

Decides nothing about requests. A scope is shared by all resources under it; an alias shares a whole lane (A9).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lane import Lane
from .scope import Scope
from .scope_limits import ScopeLimits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..values import ResourceKey, Rng
    from .values import Lease

__all__ = ["Registry"]


class Registry:
    """The lanes and scopes of one gate, by name."""

    __slots__ = ("_rng", "lanes", "named", "scopes")

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self.named: dict[str, Lane] = {}  # by every name, aliases too
        self.lanes: dict[str, Lane] = {}
        self.scopes: dict[str, Scope] = {}

    def knows(self, resource: ResourceKey) -> bool:
        """Whether ``resource`` is a lane or an alias of one."""
        return resource.name in self.named

    def lane(self, resource: ResourceKey) -> Lane | None:
        """The lane of ``resource``, aliases resolved."""
        return self.named.get(resource.name)

    def add(self, resource: ResourceKey, limits: Mapping[str, ScopeLimits], now: float) -> None:
        """Make ``resource`` known, with ``limits`` by scope name. Scopes that have limits already keep them."""
        name, scopes = resource.name, resource.scopes()
        for scope in scopes:
            self._add_scope(scope, limits.get(scope, ScopeLimits()), leaf=scope == scopes[-1], now=now)
        lane = self.named[name] = self.lanes[name] = Lane(name, tuple(self.scopes[scope] for scope in scopes), now)
        for passed in lane.scopes:
            passed.lanes.append(lane)

    def alias(self, resource: ResourceKey, target: Lane) -> None:
        """``resource`` is another name of ``target``."""
        self.named[resource.name] = target

    def footprint(self) -> int:
        """Entries that the queues of all lanes hold, rubbish included."""
        return sum(lane.footprint() for lane in self.lanes.values())

    def check(self, leases: list[Lease]) -> None:
        """Assert the invariants of every scope and lane, and that ``leases``, all that are out, are what they count."""
        counts = dict.fromkeys(self.scopes, 0)
        for lease in leases:
            for passage in lease.passages:
                counts[passage.scope.name] += 1
        for name, scope in self.scopes.items():
            assert scope.in_flight == counts[name], f"{name}: {scope.in_flight} in flight, {counts[name]} leases"
            scope.check()
        for lane in self.lanes.values():
            lane.check()

    def check_conserving(self, now: float) -> None:
        """Assert that no lane stands first at a scope and is refused by none that it passes (A10)."""
        for scope in self.scopes.values():
            lane = scope.first()
            if lane is None:
                continue
            head = lane.head()
            assert head is not None
            refusals = [one.refusal(head.request, now) for one in lane.scopes]
            assert any(refusals), f"{lane.name} could go and was not admitted"

    def _add_scope(self, name: str, limits: ScopeLimits, *, leaf: bool, now: float) -> None:
        found = self.scopes.get(name)
        if found is None:
            self.scopes[name] = Scope(name, limits, rng=self._rng, leaf=leaf)
        elif leaf:
            found.end_here()
            if found.limits == ScopeLimits() != limits:
                found.set_limits(limits, now)  # until now it only stood above other resources
