"""What can be controlled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Controlled"]


class Controlled(Protocol):
    """An engine, as a command sees it. What cannot be done raises a HeadgateError that says why."""

    def pause(self, scope: str) -> None:
        """Let nothing out in ``scope`` until it is resumed."""
        ...

    def resume(self, scope: str) -> None:
        """End a pause."""
        ...

    def change_limits(self, scope: str, changes: Mapping[str, object]) -> None:
        """Change some limits of ``scope``; None takes one away."""
        ...

    def drain(self, run: str | None = None) -> tuple[str, ...]:
        """Take no more rows in, finish the open ones, and end. Returns the runs that do."""
        ...

    def stop(self, run: str | None = None, *, grace: float | None = None) -> tuple[str, ...]:
        """Start nothing more, and end; what is in flight gets ``grace`` seconds. Returns the runs that do."""
        ...

    def look(self) -> dict[str, object]:
        """Everything that goes on now, as plain data."""
        ...
