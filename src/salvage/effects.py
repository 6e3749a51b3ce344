"""What the engine still has to do to lanes: the latest of each sort per lane, so there are few."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .decisions import Block, Effect, LaneGivenUp, LaneParked, Reopened

if TYPE_CHECKING:
    from .kinds import FailureKind

__all__ = ["PendingEffects"]


class PendingEffects:
    """Collects between two drains. A block and the reopening of the same lane replace each other."""

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending: dict[tuple[type[Effect], str], Effect] = {}

    def block(self, lane: str, until: float) -> None:
        """An outage began or goes on, at least until ``until`` (machine seconds)."""
        self._pending.pop((Reopened, lane), None)
        self._pending[Block, lane] = Block(lane, until)

    def reopened(self, lane: str) -> None:
        """An outage is over."""
        self._pending.pop((Block, lane), None)
        self._pending[Reopened, lane] = Reopened(lane)

    def parked(self, lane: str, kind: FailureKind, message: str) -> None:
        """The lane needs a person."""
        self._pending[LaneParked, lane] = LaneParked(lane, kind, message)

    def unparked(self, lane: str) -> None:
        """The person came before the message was delivered."""
        self._pending.pop((LaneParked, lane), None)

    def given_up(self, lane: str) -> None:
        """Patience with the lane is over."""
        self._pending[LaneGivenUp, lane] = LaneGivenUp(lane)

    def drain(self) -> list[Effect]:
        """Return all and forget them."""
        effects = list(self._pending.values())
        self._pending.clear()
        return effects
