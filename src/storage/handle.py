"""What the handles of all durable stores have in common: what was found at the opening, and that they can be closed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from . import rules

if TYPE_CHECKING:
    from .ports import RunInfo

__all__ = ["Handle", "OpenedRun"]


class OpenedRun(Protocol):
    """One opening of one run, as a store's records give it."""

    @property
    def info(self) -> RunInfo:
        """The run as it was opened."""
        ...

    @property
    def learned(self) -> bytes | None:
        """What was learned until then."""
        ...


class Handle:
    """Who was ``opened``, until it is closed."""

    def __init__(self, opened: OpenedRun) -> None:
        self._found = opened
        self._closed = False

    @property
    def info(self) -> RunInfo:
        """The run as it was when this handle opened it."""
        return self._found.info

    @property
    def learned(self) -> bytes | None:
        """See :meth:`headgate.storage.ports.RunHandle.learned`."""
        return self._found.learned

    async def aclose(self) -> None:
        """Give the handle up."""
        self._closed = True

    def check_open(self) -> None:
        """Raise StoreError after ``aclose``."""
        if self._closed:
            raise rules.closed(f"this handle of run {self.info.run!r}")
