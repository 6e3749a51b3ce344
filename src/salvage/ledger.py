"""Which column failed for which row, and why: what the report shows of the failures.

Counts by (column, kind) are exact. Entries are kept up to a bound, and every cause keeps its first hundred,
so that a flood of one cause never hides another. Only those hundred keep their tracebacks, which are large. Decides
nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from .history import MESSAGE_CHARS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .kinds import FailureKind

__all__ = ["FailureEntry", "FailureLedger"]

_MAX_ENTRIES: Final = 10_000
_ALWAYS_KEPT: Final = 100
_TRACEBACK_CHARS: Final = 8_000


@dataclass(frozen=True, slots=True)
class FailureEntry:
    """One failed cell. ``status`` and ``message`` are of its last attempt; ``traceback`` is there for bugs, the first
    hundred in a column."""

    row: int | str
    column: str
    kind: FailureKind
    attempts: int
    status: int | None
    message: str
    traceback: str | None = None


class FailureLedger:
    """Failures in the order in which they were recorded."""

    __slots__ = ("_counts", "_entries", "_max_entries")

    def __init__(self, max_entries: int = _MAX_ENTRIES) -> None:
        assert max_entries >= 0
        self._max_entries = max_entries
        self._entries: list[FailureEntry] = []
        self._counts: Counter[tuple[str, FailureKind]] = Counter()

    def record(
        self,
        row: int | str,
        column: str,
        kind: FailureKind,
        *,
        attempts: int,
        status: int | None = None,
        message: str = "",
        traceback: str | None = None,
    ) -> None:
        """Count a cell that failed for good, and keep its entry if there is room."""
        cause = (column, kind)
        self._counts[cause] += 1
        if len(self._entries) >= self._max_entries and self._counts[cause] > _ALWAYS_KEPT:
            return
        trace = traceback[-_TRACEBACK_CHARS:] if traceback is not None and self._counts[cause] <= _ALWAYS_KEPT else None
        entry = FailureEntry(row, column, kind, attempts, status, message[:MESSAGE_CHARS], trace)
        self._entries.append(entry)

    def counts(self) -> Mapping[tuple[str, FailureKind], int]:
        """Return how many cells failed, by column and kind. Exact."""
        return MappingProxyType(dict(self._counts))

    @property
    def total(self) -> int:
        """All failed cells."""
        return self._counts.total()

    @property
    def omitted(self) -> int:
        """Failed cells whose entry was not kept."""
        return self.total - len(self._entries)

    def check(self) -> None:
        """Assert the invariants."""
        assert len(self._entries) <= self._max_entries + _ALWAYS_KEPT * len(self._counts)
        assert self.omitted >= 0

    def __iter__(self) -> Iterator[FailureEntry]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
