"""Deliveries kept in memory: for tests, and where a lost process may lose its completions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .ports import Kept

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .values import Answer, Item

__all__ = ["MemoryDeliveries"]


class MemoryDeliveries:
    """A :class:`~headgate.outbox.ports.Deliveries` that survives an outbox, but not the process.

    ``ended`` tells how each item ended, and what was said.
    """

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Kept, bytes]] = {}
        self.ended: dict[str, tuple[Answer, str]] = {}

    async def add(self, item: Item, body: bytes) -> bool:
        """See :meth:`headgate.outbox.ports.Deliveries.add`."""
        if item.key in self._kept or item.key in self.ended:
            return False
        self._kept[item.key] = Kept(item, 0, 0.0), body
        return True

    async def body(self, key: str) -> bytes | None:
        """See :meth:`headgate.outbox.ports.Deliveries.body`."""
        return self._kept[key][1] if key in self._kept else None

    async def postpone(self, key: str, attempts: int, not_before: float, receiver: str | None) -> None:
        """See :meth:`headgate.outbox.ports.Deliveries.postpone`."""
        kept, body = self._kept.get(key, (None, b""))
        if kept is not None and attempts > kept.attempts:
            self._kept[key] = Kept(replace(kept.item, receiver=receiver), attempts, not_before), body

    async def end(self, ended: Sequence[tuple[str, Answer, str]]) -> None:
        """See :meth:`headgate.outbox.ports.Deliveries.end`."""
        for key, answer, message in ended:
            self._kept.pop(key, None)
            self.ended.setdefault(key, (answer, message))

    async def load(self) -> list[Kept]:
        """See :meth:`headgate.outbox.ports.Deliveries.load`."""
        return [kept for kept, _ in self._kept.values()]

    async def runs(self) -> frozenset[str]:
        """Return the runs whose results receivers of items will come for; see ``spare`` of a store's ``sweep``."""
        return frozenset(kept.item.run for kept, _ in self._kept.values() if kept.item.run is not None)

    async def aclose(self) -> None:
        """Nothing to let go of."""
