"""How much may still be written to a store that is bounded, without measuring it at each commit.

Others write too, and measuring takes long: a directory is walked, a server asked. So an eighth of the room that was
found is taken on trust, and then it is measured again; and before anything is refused, because somebody may have made
room. Up to eight writers so keep the bound among them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Room"]

_TRUSTED: Final = 8
"""The part of the room that was found which is used before it is measured again."""


class Room:
    """What is left of ``max_bytes``, as far as is known here."""

    __slots__ = ("_max_bytes", "_trusted")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._trusted = 0

    def take(self, size: int, measure: Callable[[], int]) -> bool:
        """Whether ``size`` more bytes fit; they are then taken for written. ``measure`` says how many there are."""
        if size > self._trusted:
            left = self._max_bytes - measure()
            if size > left:
                self._trusted = 0
                return False
            self._trusted = max(left // _TRUSTED, size)
        self._trusted -= size
        return True
