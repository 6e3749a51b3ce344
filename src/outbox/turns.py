"""Whose turn it is: of those that have something to do, who has least in flight, and of these who waits longest.

So a slow destination does not get all slots, and none waits for ever beside others that always have something.
"""

from __future__ import annotations

from collections import OrderedDict

__all__ = ["Turns"]


class Turns:
    """Names in line, each with its load. All operations take the same time however many there are."""

    __slots__ = ("_lines", "_loads")

    def __init__(self) -> None:
        self._loads: dict[str, int] = {}
        # A plain dict that is emptied from its front looks for its first key among all that are gone.
        self._lines: dict[int, OrderedDict[str, None]] = {}

    def stand(self, name: str, load: int | None) -> None:
        """``name`` stands in line with this load: at the end, unless it does already. None: it stands there no more."""
        before = self._loads.get(name)
        if before == load:
            return
        if before is not None:
            line = self._lines[before]
            del line[name]
            if not line:
                del self._lines[before]
        if load is None:
            del self._loads[name]
        else:
            self._loads[name] = load
            self._lines.setdefault(load, OrderedDict())[name] = None

    def first(self) -> str | None:
        """Whose turn it is; None if nobody stands in line."""
        return next(iter(self._lines[min(self._lines)])) if self._lines else None
