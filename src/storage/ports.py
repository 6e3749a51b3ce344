"""What a run store promises, and the values that cross its border.

A store keeps runs. A run is named and durable; each process that opens it gets a higher epoch, and from then
on the older ones cannot write (fencing). A run holds input rows by position, at most one terminal outcome per
cell (row, column), the held-back cells with their not-before times, the tokens that failed attempts used, and what
was learned about the providers on the way.

Everything that changes a run goes through one :class:`Batch`, which is committed as a whole or not at all. A
store decides nothing about the cells: it keeps the first terminal outcome and refuses a different one.

Bytes are JSON throughout (:mod:`headgate.storage.codec`), times are wall-clock seconds, because they are read
by another process in another life.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

from ..values import Usage

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

__all__ = [
    "NOT_RENEWED",
    "RUNNING",
    "TERMINAL",
    "Batch",
    "CellRecord",
    "CellStatus",
    "Durability",
    "HeldRecord",
    "RowRecord",
    "RunHandle",
    "RunInfo",
    "RunStore",
    "SpentRecord",
    "StoredRow",
    "Swept",
]

T = TypeVar("T")

_NO_TOKENS: Final = Usage()

RUNNING: Final = "running"
"""The status of a run from its opening until somebody finishes it; after a crash it stays."""

TERMINAL: Final = frozenset({"completed", "completed_with_failures"})
"""The statuses of runs in which nothing is left to be done: what a sweep drops unless it is told otherwise."""


NOT_RENEWED: Final[Mapping[str, str]] = MappingProxyType({})
"""No column is read as if it were renewed."""


class Durability(StrEnum):
    """What an acknowledged commit survives, each level including the one before."""

    NONE = "none"
    """Nothing: it is gone with the process."""
    PROCESS = "process"
    """The death of the process, but not of the machine."""
    HOST = "host"
    """A crash or power loss of the machine."""
    REPLICATED = "replicated"
    """The loss of the machine."""


class CellStatus(StrEnum):
    """The terminal outcomes of a cell."""

    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"


# To be read only, but not frozen: there is one of each for every cell and row, and ten fields of a frozen dataclass
# take 2 us to set. Named tuples are as quick to make, but each look at a field of theirs takes as long as a call.


@dataclass(slots=True)
class RowRecord:
    """One input row: its position from 0, its id, a digest that is the same in every process, its JSON."""

    row: int
    row_id: str
    digest: bytes
    data: bytes


@dataclass(slots=True)
class CellRecord:
    """The terminal outcome of one cell.

    ``payload`` is the value as JSON, and None exactly if the cell is not done: the value None is ``b"null"``,
    an empty text is ``b'""'``. ``usage`` counts the tokens that no :class:`SpentRecord` of the same cell has
    counted.
    """

    row: int
    column: str
    status: CellStatus
    payload: bytes | None
    reason: str = ""
    message: str = ""
    attempts: int = 0
    http_status: int | None = None
    usage: Usage = _NO_TOKENS
    finished_at: float = 0.0


class HeldRecord(NamedTuple):  # a held task of a large group has one for each of its rows
    """A held-back cell. Not before ``not_before`` is it tried again; ``history`` is the holder's own JSON."""

    row: int
    column: str
    reason: str
    not_before: float
    attempts: int
    history: bytes


@dataclass(frozen=True, slots=True)
class SpentRecord:
    """What a failed attempt cost. ``attempt`` tells the attempts of one cell within one epoch apart."""

    row: int
    column: str
    attempt: int
    reason: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class Batch:
    """What one commit changes, all of it or nothing.

    It is applied in the order of the fields, but that ``reopened`` comes after ``rows``; both ``reopened`` and
    ``unheld`` are (row, column) pairs. A cell that failed or was skipped in an earlier epoch is reopened: it has no
    outcome any more, what it cost stays on record; no other is touched, so that repeating a batch changes nothing. A
    terminal cell is no longer held, and holding a cell that is already terminal changes nothing. ``learned`` is the
    writer's own JSON about the providers' limits; what was committed last replaces what was before, and None leaves it.
    """

    rows: tuple[RowRecord, ...] = ()
    cells: tuple[CellRecord, ...] = ()
    unheld: tuple[tuple[int, str], ...] = ()
    held: tuple[HeldRecord, ...] = ()
    spent: tuple[SpentRecord, ...] = ()
    learned: bytes | None = None
    reopened: tuple[tuple[int, str], ...] = ()

    @property
    def records(self) -> int:
        """How many records it holds; what was learned is none."""
        parts = (self.rows, self.reopened, self.cells, self.unheld, self.held, self.spent)
        return sum(map(len, parts))

    def parts(self, most: int) -> Iterator[Batch]:
        """The same in the same order, in parts of up to ``most`` records: for whoever takes several turns over it."""
        if self.records <= most:
            yield self
            return
        for rows in _slices(self.rows, most):
            yield Batch(rows=rows)
        for reopened in _slices(self.reopened, most):
            yield Batch(reopened=reopened)
        for cells in _slices(self.cells, most):
            yield Batch(cells=cells)
        for unheld in _slices(self.unheld, most):
            yield Batch(unheld=unheld)
        for held in _slices(self.held, most):
            yield Batch(held=held)
        for spent in _slices(self.spent, most):
            yield Batch(spent=spent)
        if self.learned is not None:
            yield Batch(learned=self.learned)


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A committed row with all that is committed about it, ``cells`` and ``held`` in the order of columns."""

    record: RowRecord
    cells: tuple[CellRecord, ...]
    held: tuple[HeldRecord, ...]


@dataclass(frozen=True, slots=True)
class RunInfo:
    """A look at a run. ``rows`` counts the committed rows, ``fingerprints`` are by column name.

    ``aside`` has, by column name, the fingerprints under which renewed columns have something put aside, in no order.
    """

    run: str
    epoch: int
    fingerprints: Mapping[str, str]
    status: str
    rows: int
    created_at: float
    finished_at: float | None
    durability: Durability
    aside: Mapping[str, Collection[str]] = field(default_factory=dict[str, "Collection[str]"])

    def __post_init__(self) -> None:
        object.__setattr__(self, "fingerprints", MappingProxyType(dict(self.fingerprints)))


class Swept(NamedTuple):
    """What a sweep removed: the names of runs, and how many files that nothing refers to."""

    runs: tuple[str, ...] = ()
    leftovers: int = 0


class RunHandle(Protocol):
    """One opening of one run, good for one epoch."""

    @property
    def info(self) -> RunInfo:
        """The run as it was when this handle opened it."""
        ...

    @property
    def learned(self) -> bytes | None:
        """What was learned last when this handle was opened: by this run, else by any run of the store.

        None if nothing was, or if it cannot be read any more: nobody depends on it.
        """
        ...

    async def commit(self, batch: Batch) -> None:
        """Make a batch durable at the store's level; return only then.

        Committing the same batch again changes nothing, so a caller who was cancelled, or told
        StoreUnavailable, may repeat it. A commit whose caller is cancelled is not cancelled with it.

        Raises FencedOut if a newer epoch exists, ConflictingResult if a cell has another terminal outcome
        already, FingerprintMismatch if a row is not the stored one or its id is at another position,
        PayloadTooLarge, StoreFull, StoreUnavailable, and StoreError for a cell whose row or column the run
        does not have.
        """
        ...

    async def load(self, first: int, last: int) -> list[StoredRow]:
        """Return the committed rows with ``first <= row < last``, in order. Raises ResultCorrupt, ResultExpired."""
        ...

    async def find(self, row_ids: Sequence[str]) -> dict[str, int]:
        """Return the positions of those ids that the run knows. Raises ResultExpired."""
        ...

    async def finish(self, status: str) -> None:
        """Record how the run ended, durably. Raises FencedOut."""
        ...

    async def aclose(self) -> None:
        """Give the handle up. The run stays; further calls raise StoreError."""
        ...


class RunStore(Protocol):
    """A place that keeps runs."""

    @property
    def durability(self) -> Durability:
        """What an acknowledged commit survives here."""
        ...

    async def probe(self) -> None:
        """Try what the store will need.

        Raises StoreUnsupported, SchemaMismatch or StoreUnavailable, which name what is missing and the cure.
        """
        ...

    async def open_run(
        self,
        run: str,
        fingerprints: Mapping[str, str],
        *,
        renewed: Collection[str] = (),
        kept: Collection[str] = (),
    ) -> RunHandle:
        """Create the run, or reopen it with the next epoch; older handles are fenced out from then on.

        Columns that the run does not have yet are added, those it has and ``fingerprints`` lacks stay. Of those that
        have changed, the ``renewed`` begin anew: what they have is put aside, held cells are let go, tokens stay on
        record; if the run had the column with this fingerprint before, what was put aside then is there again. The
        ``kept`` go on with what they have, under their new fingerprint. Raises FingerprintMismatch that names those
        which have changed and are neither; then nothing is opened or fenced.
        """
        ...

    def read_rows(self, run: str, *, batch: int = 500, renewed: Mapping[str, str] = NOT_RENEWED) -> Iterator[StoredRow]:
        """Yield the committed rows in order, in any process, without opening the run. It blocks: use a
        thread.

        ``batch`` rows at most are in memory. The columns in ``renewed`` are read as if they had been renewed with the
        fingerprint that stands beside them: see :meth:`open_run`. Raises UnknownRun, ResultExpired, ResultCorrupt.
        """
        ...

    def read_runs(self) -> tuple[str, ...]:
        """Return the names of the runs that can be read, sorted. It blocks. A store that nobody has used has none."""
        ...

    def read_info(self, run: str) -> RunInfo:
        """Return the run as it is now. It blocks. Raises UnknownRun, ResultExpired."""
        ...

    def read_spent(self, run: str) -> Mapping[str, Usage]:
        """Return the tokens on record per column, of all attempts together. Raises as :meth:`read_info`."""
        ...

    def read_learned(self, run: str) -> bytes | None:
        """Return what the run itself learned last; None if nothing, or if it cannot be read any more.

        Raises as :meth:`read_info`.
        """
        ...

    def count_outcomes(self, run: str) -> int:
        """Return how many outcomes are on record, those that renewed columns put aside included. It blocks.

        Who looks again sees by it whether the run has gained anything, in any process; it is cheap next to a read of
        the rows. Raises as :meth:`read_info`.
        """
        ...

    async def sweep(self, *, keep_s: float, statuses: Collection[str] = TERMINAL, spare: Collection[str] = ()) -> Swept:
        """Drop the runs that ended with one of ``statuses`` ``keep_s`` seconds ago or earlier, and what crashes left.

        A run that is RUNNING is never dropped, nor one of ``spare``, on whose results somebody still relies, nor
        anything that a run refers to. Of a dropped run the name, the epoch and what it learned are kept: to read it is
        ResultExpired, its handles are fenced out, and opening it begins it anew with a higher epoch. No other call ever
        sweeps; several may at the same time, in any process. Raises StoreError, and ConfigError for a ``keep_s`` that
        is less than the time for which results are relied on, where this object was told that (``retention_s``); others
        that sweep the same place are not bound by it.
        """
        ...

    async def aclose(self) -> None:
        """Finish what was handed in, then let go of everything. Repeating it does no harm."""
        ...


def _slices(records: tuple[T, ...], most: int) -> Iterator[tuple[T, ...]]:
    for start in range(0, len(records), most):
        yield records[start : start + most]
