"""How a run that was told to stop comes to its end: start nothing, wait for a while, cut the rest short."""

from __future__ import annotations

from math import inf

from ..errors import HeadgateError, only_error
from .report import RunStatus

__all__ = ["Halt", "cause_of"]


class Halt:
    """Not begun, in its grace time, or past it. ``status`` is how the run will end, None while it goes on; ``drained``
    whether rows were left for a later run on purpose.
    """

    __slots__ = ("_by", "_cut", "drained", "status")

    def __init__(self) -> None:
        self.status: RunStatus | None = None
        self.drained = False
        self._by = inf
        self._cut = False

    def begin(self, status: RunStatus, by: float) -> bool:
        """Stop; what is in flight has until ``by``. A second call can only shorten that. True for the first."""
        first = self.status is None
        if first:
            self.status = status
        self._by = min(self._by, by)
        return first

    @property
    def ends_as(self) -> RunStatus | None:
        """How the run ends by somebody's will; None if it has done all it could."""
        return self.status or (RunStatus.STOPPED if self.drained else None)

    def cuts(self, now: float) -> bool:
        """Whether the grace time is over; True once."""
        if self._cut or now < self._by:
            return False
        self._cut = True
        return True

    def next_tick(self) -> float:
        """When the grace time ends."""
        return inf if self._cut else self._by


def cause_of(error: BaseException, cancelled: type[BaseException]) -> BaseException:
    """What broke a run, as others are told: the one error inside the groups that task groups wrap around it.

    A cancellation is the business of the task that was cancelled; who waits for the run in another one gets an error.
    """
    error = only_error(error)
    if isinstance(error, cancelled):
        return HeadgateError("the engine was left before the run had ended; what was committed stays")
    return error
