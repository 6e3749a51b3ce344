"""What one replica has to tell of restarts: each thing once, as soon as it is known here.

A supervisor tells more, because it knows when the next life begins. This is for whoever has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..events import RestartAsked, RestartDecided, RestartRefused

if TYPE_CHECKING:
    from ..events import Event
    from .core import CoordinatorCore

__all__ = ["RestartNews"]


class RestartNews:
    """What was told already, by the number of the cycle that it was about."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._asked = self._decided = self._refused = 0

    def since(self, core: CoordinatorCore, at: float) -> list[Event]:
        """What is new, and is not again. ``at`` is in wall-clock seconds."""
        news: list[Event] = []
        cycle, failure, closing = core.cycle or 0, core.failure, core.closing
        if failure is not None and cycle > self._asked:
            self._asked = cycle
            news.append(RestartAsked(at, self._run, cycle, failure.cause.kind, failure.cause.message))
        if failure is not None and cycle > self._decided and (decision := core.decision) is not None:
            self._decided = cycle
            news.append(RestartDecided(at, self._run, cycle, decision.action.value, decision.basis.value, None))
        concerned = core.cycle is not None or core.refusal is not None  # not who is just about to reopen the run
        if closing is not None and concerned and closing.cycle > self._refused:
            self._refused = closing.cycle
            news.append(RestartRefused(at, self._run, closing.cycle, closing.action.value, closing.basis.value))
        return news
