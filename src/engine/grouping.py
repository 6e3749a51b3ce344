"""Which row group a row belongs to: consecutive rows, a fixed number of them, the last group may be short."""

from __future__ import annotations

__all__ = ["Grouping"]


class Grouping:
    """Hands out group numbers to rows in the order in which they come. ``number`` is -1 before the first.

    ``owed`` is how many rows the current group still lacks. All to be read only.
    """

    __slots__ = ("number", "owed", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.number = -1
        self.owed = 0

    def place(self) -> int:
        """The group of the next row."""
        if not self.owed:
            self.number += 1
            self.owed = self.size
        self.owed -= 1
        return self.number

    def close(self) -> None:
        """The current group gets no more rows."""
        self.owed = 0
