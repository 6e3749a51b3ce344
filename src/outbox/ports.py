"""What an outbox needs from others: somebody who sends, and a place that keeps what is to be sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from .values import Answer, Item, Reply

__all__ = ["Deliveries", "DeliveryFailed", "Kept", "Reconciled", "Sender"]


class DeliveryFailed(Exception):
    """A receiver was not reached, or did not give an answer that can be understood: nobody knows whether it has it."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An item of an earlier life. ``not_before`` is wall-clock seconds."""

    item: Item
    attempts: int
    not_before: float


class Reconciled(NamedTuple):
    """The keys that the receiver still knows, and its incarnation, if it says."""

    known: Collection[str]
    receiver: str | None = None


class Sender(Protocol):
    """Talks to receivers. One call is one attempt: it does not try again by itself."""

    async def deliver(self, item: Item, body: bytes, attempt: int) -> Reply:
        """Tell the receiver, and return what it says. Raises DeliveryFailed."""
        ...

    async def reconcile(self, destination: str, keys: Sequence[str]) -> Reconciled:
        """Ask the receiver which of ``keys`` it still knows. Raises DeliveryFailed."""
        ...


class Deliveries(Protocol):
    """Keeps what is to be delivered. Each method is durable on return, at the level of the implementation.

    All may raise StoreError; one with ``retryable`` set is tried again.
    """

    async def add(self, item: Item, body: bytes) -> bool:
        """Keep an item; False if its key is kept already, or has come to its end before (D3).

        If it raises, nothing is kept.
        """
        ...

    async def body(self, key: str) -> bytes | None:
        """Return what is to be sent; None if the item has come to its end, in another process that shares the place.

        Raises ResultCorrupt.
        """
        ...

    async def postpone(self, key: str, attempts: int, not_before: float, receiver: str | None) -> None:
        """Note an attempt that did not end the item. ``not_before`` is wall-clock seconds.

        A note may come late: it changes nothing if a later attempt was noted, or the item has come to its end.
        """
        ...

    async def end(self, ended: Sequence[tuple[str, Answer, str]]) -> None:
        """Drop the bodies of items that have come to their end, each with the answer and what was said to it."""
        ...

    async def load(self) -> list[Kept]:
        """Return all that has not come to its end, in the order in which it was added."""
        ...

    async def aclose(self) -> None:
        """Let go of everything."""
        ...
