"""The request that a task is dispatched with: which resource, how many tokens, on whose behalf."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..admission.values import Denied, DenyReason, Request
from ..salvage.classify import Failure
from ..salvage.kinds import FailureKind
from ..scheduler.tasks import READY

if TYPE_CHECKING:
    from ..scheduler.tasks import Task
    from .core import RunCore
    from .values import ColumnPlan

__all__ = ["FirstRequests", "flow_of"]

DISPATCH_PRIORITY = 0
"""Below the requests that running tasks make: those go first."""

_SPARE_ESTIMATES = 64


class FirstRequests:
    """Estimates tokens once per dispatch: when the task's turn comes, not before.

    Where a column names no estimate, all its tasks ask for the same, and share one request.
    """

    __slots__ = ("_core", "_flow", "_look_at", "_requests", "estimated", "estimates")

    def __init__(self, core: RunCore, flow: str) -> None:
        self._core = core
        self._flow = flow
        self.estimated = frozenset(plan.index for plan in core.plans if callable(plan.column.tokens))
        """The columns that have to be asked, to be read only."""
        self.estimates: dict[Task, int] = {}
        """Of tasks whose turn has come and that have not started. To be read only."""
        self._look_at = _SPARE_ESTIMATES  # at so many of them those are looked for that nobody wants any more
        self._requests = [_request(plan, flow, _stated(plan)) for plan in core.plans]

    def estimate(self, task: Task) -> None:
        """Ask the column how many input tokens ``task`` needs, unless it was asked for this dispatch: at the bid it
        was, at the grant it need not be. Raises what the user's estimate raises."""
        if task not in self.estimates and task.column in self.estimated:
            core, column = self._core, self._core.plans[task.column].column
            self.estimates[task] = column.estimate(core.inputs(task)[1])
            if len(self.estimates) >= self._look_at:
                self._forget_unwanted()

    def input_tokens(self, task: Task) -> int | None:
        """How many input tokens ``task``, which was estimated, needs; None where nobody says."""
        tokens = self._core.plans[task.column].column.tokens
        return self.estimates.get(task) if callable(tokens) else tokens

    def of(self, task: Task) -> Request | None:
        """The request of ``task``, which was estimated; None for local work."""
        request = self._requests[task.column]
        if request is None or not self.estimated or task.column not in self.estimated:
            return request
        return _request(self._core.plans[task.column], self._flow, self.estimates.get(task, 0))

    def denial(self, task: Task, denied: Denied) -> Failure:
        """What it means for ``task`` that its request was refused for good."""
        request = self.of(task)
        assert request is not None, "local work asks nobody"
        tokens = f"{request.input_tokens} + {request.output_tokens} tokens"
        message = f"{denied.resource}: {_DENIALS[denied.reason].format(tokens=tokens)}"
        self.forget(task)
        return Failure(FailureKind.ADMISSION_DENIED, message)

    def forget(self, task: Task) -> None:
        """``task`` has started, or will not."""
        self.estimates.pop(task, None)

    def _forget_unwanted(self) -> None:
        """A task that waits for room in the budget may be discarded, as one of many: nobody comes here to say so."""
        state = self._core.frontier.task_state
        self.estimates = {task: tokens for task, tokens in self.estimates.items() if state(task) == READY}
        self._look_at = 2 * len(self.estimates) + _SPARE_ESTIMATES


def flow_of(run: str, column: str) -> str:
    """The flow of the requests that bodies of ``column`` make; the first request of each costs the same."""
    return f"{run}/{column}"


def _stated(plan: ColumnPlan) -> int:
    """The input tokens of every task of the column, as far as they can be known without asking it for each."""
    tokens = plan.column.tokens
    return 0 if callable(tokens) else tokens or 0


def _request(plan: ColumnPlan, run: str, tokens: int) -> Request | None:
    """The first request of a task of the column, with ``tokens`` of input; None for local work."""
    if plan.resource is None:
        return None
    return Request(
        plan.resource,
        tokens,
        plan.column.max_output_tokens or 0,
        flow=run,
        priority=DISPATCH_PRIORITY,
        alike=flow_of(run, plan.name),
    )


_DENIALS = {
    DenyReason.TOO_LARGE: "a request of {tokens} can never pass its token limit; make it smaller or raise the limit",
    DenyReason.UNKNOWN_RESOURCE: "no such resource is registered",
}
