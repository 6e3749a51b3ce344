"""The request that a task is dispatched with: which resource, how many tokens, on whose behalf."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..admission.values import Denied, DenyReason, Request
from ..salvage.classify import Failure
from ..salvage.kinds import FailureKind

if TYPE_CHECKING:
    from ..scheduler.tasks import Task
    from ..values import ResourceKey
    from .core import RunCore
    from .values import ColumnPlan

__all__ = ["FirstRequests", "flow_of"]

DISPATCH_PRIORITY = 0
"""Below the requests that running tasks make: those go first."""


class FirstRequests:
    """Estimates tokens once per dispatch: when the task's turn comes, not before."""

    __slots__ = ("_core", "_estimates", "_flow", "_requests")

    def __init__(self, core: RunCore, flow: str) -> None:
        self._core = core
        self._flow = flow
        self._estimates: dict[Task, int] = {}
        self._requests: dict[int, Request] = {}  # by column, where all tasks ask for the same

    def estimate(self, task: Task) -> None:
        """Ask the column how many input tokens ``task`` needs. Raises what the user's estimate raises."""
        core, column = self._core, self._core.plans[task.column].column
        if callable(column.tokens):
            self._estimates[task] = column.estimate(core.arguments(task, core.live_rows(task)))

    def of(self, task: Task) -> Request | None:
        """The request of ``task``, which was estimated; None for local work."""
        request = self._requests.get(task.column)
        if request is not None:
            return request
        plan = self._core.plans[task.column]
        column = plan.column
        if plan.resource is None:
            return None
        if callable(column.tokens):
            return self._request(plan, plan.resource, self._estimates.get(task, 0))
        request = self._requests[task.column] = self._request(plan, plan.resource, column.tokens or 0)
        return request

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
        self._estimates.pop(task, None)

    def _request(self, plan: ColumnPlan, resource: ResourceKey, tokens: int) -> Request:
        return Request(
            resource,
            tokens,
            plan.column.max_output_tokens or 0,
            flow=self._flow,
            priority=DISPATCH_PRIORITY,
            alike=flow_of(self._flow, plan.name),
        )


def flow_of(run: str, column: str) -> str:
    """The flow of the requests that bodies of ``column`` make; the first request of each costs the same."""
    return f"{run}/{column}"


_DENIALS = {
    DenyReason.TOO_LARGE: "a request of {tokens} can never pass its token limit; make it smaller or raise the limit",
    DenyReason.UNKNOWN_RESOURCE: "no such resource is registered",
}
