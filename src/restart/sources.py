"""Sources in this process: the rules, and whatever function the user has."""

from __future__ import annotations

from inspect import isawaitable, iscoroutinefunction
from typing import TYPE_CHECKING

from anyio import to_thread

from .rules import Rules, judge_by_rules

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .values import Answer, Cycle

__all__ = ["CallableSource", "RulesSource"]


class RulesSource:
    """The verdict of :func:`~headgate.restart.rules.judge_by_rules`, at once."""

    elsewhere = False

    def __init__(self, rules: Rules | None = None, *, name: str = "rules") -> None:
        self.name = name
        self._rules = rules or Rules()

    async def trigger(self, cycle: Cycle) -> None:
        """Need nothing."""

    async def read(self, cycle: Cycle) -> Answer:
        """See :meth:`headgate.restart.ports.RestartSource.read`."""
        return judge_by_rules(cycle, self._rules)


class CallableSource:
    """The verdict of ``function(cycle)``, which may be async; else it runs in a thread.

    It is called in the replica that leads, once for each cycle unless leaders die, and its None means "not yet": it is
    called again. A thread that hangs is left alone, and ends with the process.
    """

    elsewhere = False

    def __init__(
        self, function: Callable[[Cycle], Answer | Awaitable[Answer | None] | None], *, name: str | None = None
    ) -> None:
        self.name: str = name or str(getattr(function, "__name__", type(function).__name__))
        self._function = function

    async def trigger(self, cycle: Cycle) -> None:
        """Need nothing: reading it is what calls the function."""

    async def read(self, cycle: Cycle) -> Answer | None:
        """See :meth:`headgate.restart.ports.RestartSource.read`."""
        if iscoroutinefunction(self._function) or iscoroutinefunction(type(self._function).__call__):
            found = self._function(cycle)
        else:
            found = await to_thread.run_sync(self._function, cycle, abandon_on_cancel=True)
        return await found if isawaitable(found) else found
