"""Carrying out what a run's core decided about tasks and lanes, and saying aloud what somebody should act on."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, assert_never

import anyio

from ..log import logger
from ..salvage.decisions import Block, LaneGivenUp, LaneParked, Reopened
from .effects import Abandoned, Cancel, ColumnHalted, CoreEffect

if TYPE_CHECKING:
    from ..admission.controller import AdmissionController
    from ..scheduler.tasks import Task
    from .core import RunCore
    from .dispatch import Dispatch
    from .first_request import FirstRequests
    from .flight import Flight
    from .intake import Intake
    from .telling import RunTeller

__all__ = ["Performer"]


class Performer:
    """Performs effects; ``notices`` keeps what was said aloud, for the report."""

    __slots__ = (
        "_controller",
        "_core",
        "_dispatch",
        "_flight",
        "_intake",
        "_patience_s",
        "_requests",
        "_run",
        "_shut",
        "_teller",
        "notices",
    )

    def __init__(
        self,
        run: str,
        core: RunCore,
        dispatch: Dispatch,
        flight: Flight,
        requests: FirstRequests,
        intake: Intake,
        controller: AdmissionController,
        *,
        patience_s: float,
        teller: RunTeller | None = None,
    ) -> None:
        self._teller = teller
        self._core = core
        self._dispatch = dispatch
        self._flight = flight
        self._requests = requests
        self._intake = intake
        self._controller = controller
        self._patience_s = patience_s
        self._run = run
        self._shut: set[str] = set()
        self.notices: list[str] = []

    def perform(self, effects: list[CoreEffect]) -> None:
        """Carry out ``effects`` in order."""
        for effect in effects:
            if self._teller is not None:
                self._teller.performed(effect)
            match effect:
                case Cancel(task=task):
                    self._cancel(task)
                case Block(lane=lane, until=until):
                    self._block(lane, until)
                case Reopened(lane=lane):
                    self._block(lane, -inf)
                case LaneParked(lane=lane, kind=kind, message=message):
                    self._say("resource parked", f"{lane} is parked ({kind.value}), its tasks are held: {message}")
                    self._block(lane, inf)
                    self._abandon(lane)
                case Abandoned(lane=lane, reason=reason):
                    self._say(
                        "resource given up",
                        f"{lane} did not work for {self._patience_s:g} s: its tasks are held; last failure: {reason}",
                    )
                    self._abandon(lane)
                case LaneGivenUp():
                    pass  # of salvage's own tasks; the core looks at the whole lane
                case ColumnHalted(column=column, reason=reason):
                    self._say("column stopped", f"column {column} was stopped: {reason}")
                case _:
                    assert_never(effect)

    def leave(self) -> None:
        """The run ends. What it closed for good another run may try: the key may have been repaired by then."""
        for scope in self._shut:
            self._controller.unblock(scope)
        self._shut.clear()

    def _cancel(self, task: Task) -> None:
        if self._flight.cancel(task):
            return
        self._dispatch.withdraw(task)
        self._requests.forget(task)
        self._core.cancelled(task, anyio.current_time())

    def _abandon(self, lane: str) -> None:
        """The task whose bid stands was not among the ready ones."""
        task = self._dispatch.withdraw_lane(lane)
        if task is not None:
            self._requests.forget(task)
            self._core.give_up(task)

    def _block(self, lane: str, until: float) -> None:
        """Close ``lane`` until ``until``; -inf opens it."""
        scope = self._intake.scope_of(lane)
        if scope is None:
            self._dispatch.block_local(lane, until)
        elif until == -inf:
            self._controller.unblock(scope)
        else:
            self._controller.block(scope, until)
            if until == inf:
                self._shut.add(scope)

    def _say(self, event: str, notice: str) -> None:
        self.notices.append(notice)
        logger(run=self._run).error(event, notice=notice)
