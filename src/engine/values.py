"""Values of a run: what a column is to the engine, what an open row holds, what a finished row is to its user."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from ..scheduler import row_group
from ..values import Done

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..salvage.classify import Failure
    from ..storage.ports import RowRecord
    from ..values import CellOutcome, Failed, ResourceKey, Skipped
    from .pipeline import Column

__all__ = ["CellResult", "ColumnPlan", "FinishedRow", "OpenRow", "RowStatus"]

RowStatus = Literal["done", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class ColumnPlan:
    """One column with everything that is looked up once: its lane, where its arguments come from.

    ``arguments`` and ``when_arguments`` pair each parameter with the index of the column that provides it, or -1 for
    an input field. ``lane`` is a resource name, or ``local:<column>`` for local work.
    """

    index: int
    name: str
    lane: str
    resource: ResourceKey | None
    group: bool
    arguments: tuple[tuple[str, int], ...]
    when_arguments: tuple[tuple[str, int], ...]
    optional: frozenset[str]
    column: Column


class CellResult(NamedTuple):
    """What a task yields for one row: a value and its stored form, or the failure of this row's part."""

    row: int
    value: object = None
    payload: bytes = b""
    failure: Failure | None = None


class OpenRow(row_group.OpenRow):
    """A row in memory, from when it is accepted until it is taken: its ``record`` for the store, its input ``fields``,
    and what became of its cells. ``values`` is by column index and holds the done cells, ``problems`` by name the
    others that are over; ``bytes`` is the size of both the row and its values as they are stored, ``outstanding`` how
    many records of it are not committed yet. The frontier keeps its own account in the same object.
    """

    __slots__ = ("bytes", "failed", "fields", "finished", "outstanding", "problems", "record", "restored", "values")

    def __init__(self, record: RowRecord, fields: Mapping[str, object]) -> None:
        self.position = record.row
        self.record = record
        self.fields = fields
        self.values: dict[int, object] = {}
        self.problems: dict[str, Failed | Skipped] = {}
        self.bytes = len(record.data)
        self.outstanding = 0
        self.finished = False
        self.failed = False
        self.restored = False

    def status(self) -> RowStatus:
        """Its outcome, once it is finished."""
        if self.failed:
            return "failed"
        return "done" if self.values else "skipped"


@dataclass(frozen=True, slots=True)
class FinishedRow:
    """A row in which every cell has its outcome, committed.

    ``fields`` is the input, ``values`` the done cells by column, ``problems`` says of every other one why it failed or
    was skipped. ``status`` is ``failed`` when a cell failed,
    ``skipped`` when none was needed, else ``done``. ``restored`` says that an earlier run had finished it.
    """

    index: int
    id: str
    status: RowStatus
    fields: Mapping[str, object]
    values: Mapping[str, object]
    problems: Mapping[str, Failed | Skipped] = field(default_factory=dict[str, "Failed | Skipped"])
    restored: bool = False

    @property
    def ok(self) -> bool:
        """Whether no cell failed."""
        return self.status != "failed"

    @property
    def cells(self) -> dict[str, CellOutcome]:
        """The outcome of every cell by column."""
        return {**{name: Done(value) for name, value in self.values.items()}, **self.problems}

    def as_dict(self) -> dict[str, object]:
        """Input fields and column values in one dict."""
        return {**self.fields, **self.values}
