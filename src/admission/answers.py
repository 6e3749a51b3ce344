"""Where the gate's answers go: to a task that waits for one, or to a scheduler that bids for many."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import anyio

from ..wakeup import Wakeup
from .values import Expire

if TYPE_CHECKING:
    from .values import Effect, Grant, Refuse

__all__ = ["Bidder", "Waiting"]


class Bidder:
    """Where a scheduler's granted bids arrive. ``wakeup`` is set unless the scheduler is ``attending`` anyway."""

    __slots__ = ("answers", "attending", "wakeup")

    def __init__(self) -> None:
        self.answers: deque[Grant | Refuse] = deque()
        self.attending = False
        self.wakeup = Wakeup()

    def deliver(self, answer: Effect) -> None:
        """Take in one answer."""
        assert not isinstance(answer, Expire), "a bid has no deadline"
        self.answers.append(answer)
        if not self.attending:
            self.wakeup.set()


class Waiting:
    """One task that waits in ``acquire``, and what it was given."""

    __slots__ = ("answer", "event")

    def __init__(self) -> None:
        self.event = anyio.Event()
        self.answer: Effect | None = None

    def deliver(self, answer: Effect) -> None:
        """Wake the task."""
        self.answer = answer
        self.event.set()
