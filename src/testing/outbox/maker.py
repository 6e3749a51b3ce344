"""What a suite has to know about the deliveries that it tests."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractContextManager

    from ...outbox.ports import Deliveries

__all__ = ["DeliveriesMaker"]


class DeliveriesMaker:
    """Override ``open_deliveries``, and what else differs."""

    openers: ClassVar[int] = 2
    """How many look at one place at the same time; 1 for deliveries that only their own object can reach."""
    durable: ClassVar[bool] = True
    """Whether what was acknowledged is still there when the same place is opened later."""
    backend: ClassVar[str] = "asyncio"
    """The event loop to run on, as anyio names it."""
    share: ClassVar[float] = 1.0
    """Which part of the examples of hypothesis' profile the state machine plays: less for what takes long."""

    def open_deliveries(self, place: Any) -> Deliveries:
        """Open the deliveries at ``place``; make them if they are not there."""
        # Not an abstract method: pytest collects the suite itself too, and would fail to make one of it.
        raise NotImplementedError(f"{type(self).__name__} has to say how its deliveries are opened: open_deliveries()")

    def new_place(self) -> AbstractContextManager[Any]:
        """Give a place where nothing is yet, and clean it up on leaving: an empty directory, as a path."""
        return _new_directory()


@contextmanager
def _new_directory() -> Generator[Path]:
    with TemporaryDirectory(prefix="headgate-outbox-", ignore_cleanup_errors=True) as name:
        yield Path(name)
