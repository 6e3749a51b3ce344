"""What deciding needs of others: a register that all replicas see, and somebody who gives verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .values import Answer, Cycle

__all__ = ["DecisionStore", "InvalidAnswer", "RestartSource", "SourceUnreachable"]


class SourceUnreachable(Exception):
    """A source was not reached, or did not answer as one. It may be asked again."""


class InvalidAnswer(Exception):
    """A source gave an answer that makes no sense. Asking again would not help."""


class DecisionStore(Protocol):
    """Named registers that are changed by compare-and-set. All stores of headgate have them.

    They are linearizable over all processes that use the store, and durable on return at the level of the store.
    """

    async def read_register(self, name: str) -> tuple[int, bytes]:
        """Return the version and the content; version 0 and nothing if it was never written. Raises StoreError."""
        ...

    async def write_register(self, name: str, data: bytes, *, after: int) -> bool:
        """Make ``data`` the content with version ``after + 1``, if the version is ``after``. False if it is not.

        Raises StoreError; then it may have been written, or not. A call whose caller is cancelled may be done later.
        """
        ...


class RestartSource(Protocol):
    """Somebody who says whether a run is to go on: an analysis service, a function, rules."""

    @property
    def name(self) -> str:
        """By which it is known in records; each source of a coordinator has another one."""
        ...

    @property
    def elsewhere(self) -> bool:
        """Whether the analysis is made elsewhere, once for each ``cycle.id`` however often it is triggered.

        Every replica triggers such a source; any other one is used by the replica that leads alone.
        """
        ...

    async def trigger(self, cycle: Cycle) -> None:
        """Have the analysis of ``cycle`` begun, without waiting for it. Idempotent for each ``cycle.id``.

        What it raises is logged, and otherwise passed over.
        """
        ...

    async def read(self, cycle: Cycle) -> Answer | None:
        """Return the verdict on ``cycle``, or None if there is none yet; it may wait for it instead.

        Raises SourceUnreachable or InvalidAnswer. It is cancelled when nobody wants to know any more.
        """
        ...
