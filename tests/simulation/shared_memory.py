"""A store in memory that hands out row groups, for tests in virtual time: what PostgreSQL does, in a few lines.

All who join write through one handle; what keeps them apart are the tokens of their claims, as there. Fencing by
changed columns is not in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from headgate.errors import ClaimLost
from headgate.storage import CellStatus, Claim, MemoryStore, Progress

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from headgate.storage import Batch, RunInfo, StoredRow
    from headgate.storage.memory import MemoryRun

__all__ = ["SharedMemory", "SharedMemoryRun"]


@dataclass
class Group:
    """A row group. ``ends_at`` is when its claim runs out, None if nobody has it."""

    rows: int
    open: bool = True
    token: int = 0
    ends_at: float | None = None

    def free(self, now: float) -> bool:
        return self.open and (self.ends_at is None or self.ends_at <= now)


@dataclass
class Board:
    """What all who share a run see of it."""

    store: MemoryStore
    handle: MemoryRun
    size: int
    joined: int = 0
    groups: list[Group] = field(default_factory=list[Group])


class SharedMemory(MemoryStore):
    """A :class:`~headgate.storage.SharingStore` in this process."""

    def __init__(self) -> None:
        super().__init__()
        self.boards: dict[str, Board] = {}

    async def join_run(
        self,
        run: str,
        fingerprints: Mapping[str, str],
        *,
        group_rows: int,
        renewed: Collection[str] = (),
        kept: Collection[str] = (),
    ) -> SharedMemoryRun:
        await checkpoint()
        if run not in self.boards:
            self.boards[run] = Board(self, await self.open_run(run, fingerprints), group_rows)
        return SharedMemoryRun(self.boards[run])


class SharedMemoryRun:
    """One engine's part in it."""

    def __init__(self, board: Board) -> None:
        board.joined += 1
        self.board = board
        self.info: RunInfo = replace(board.store.read_info(board.handle.info.run), epoch=board.joined)
        self.learned = board.handle.learned
        self._tokens: dict[int, int] = {}
        self._rows: int | None = None

    async def commit(self, batch: Batch) -> None:
        touched = {record.row for records in (batch.rows, batch.cells, batch.held, batch.spent) for record in records}
        touched.update(row for pairs in (batch.reopened, batch.unheld) for row, _ in pairs)
        numbers = {row // self.board.size for row in touched}
        if any(self._tokens.get(number) != self.board.groups[number].token for number in numbers):
            raise ClaimLost(f"row groups {sorted(numbers)}")
        await self.board.handle.commit(replace(batch, learned=None))

    async def load(self, first: int, last: int) -> list[StoredRow]:
        return await self.board.handle.load(first, last)

    async def find(self, row_ids: Sequence[str]) -> dict[str, int]:
        return await self.board.handle.find(row_ids)

    async def finish(self, status: str) -> None:
        await checkpoint()
        if any(group.open for group in self.board.groups):
            return
        rows = self.board.store.read_rows(self.info.run)
        failed = any(cell.status == CellStatus.FAILED for row in rows for cell in row.cells)
        await self.board.handle.finish("completed_with_failures" if failed and status == "completed" else status)

    async def aclose(self) -> None:
        pass

    async def extend(self, rows: int) -> None:
        await checkpoint()
        size = self.board.size
        self._rows = rows
        for number in range(-(-rows // size)):
            among = min(size, rows - number * size)
            if number == len(self.board.groups):
                self.board.groups.append(Group(among))
            elif self.board.groups[number].rows < among:
                self.board.groups[number].rows, self.board.groups[number].open = among, True

    async def claim(self, most: int, lease_s: float) -> list[Claim]:
        await checkpoint()
        now = anyio.current_time()
        taken: list[Claim] = []
        for number, group in enumerate(self._known):
            if len(taken) < most and group.free(now):
                group.token += 1
                group.ends_at = now + lease_s
                first = number * self.board.size
                taken.append(Claim(number, first, first + group.rows, group.token))
        self._tokens.update((claim.group, claim.token) for claim in taken)
        return taken

    async def renew(self, claims: Sequence[Claim], lease_s: float) -> list[Claim]:
        await checkpoint()
        for claim in (held := [claim for claim in claims if self._holds(claim)]):
            self.board.groups[claim.group].ends_at = anyio.current_time() + lease_s
        return [claim for claim in claims if claim not in held]

    async def complete(self, claims: Sequence[Claim]) -> None:
        await checkpoint()
        if lost := [claim.group for claim in claims if not self._holds(claim)]:
            raise ClaimLost(f"row groups {lost}")
        for claim in claims:
            group = self.board.groups[claim.group]
            group.open, group.ends_at = group.rows > claim.last - claim.first, None

    async def give_back(self, claims: Sequence[Claim]) -> None:
        await checkpoint()
        for claim in filter(self._holds, claims):
            group = self.board.groups[claim.group]
            group.token, group.ends_at = group.token + 1, None

    async def progress(self) -> Progress:
        await checkpoint()
        now = anyio.current_time()
        still = [group for group in self._known if group.open]
        free = [0.0 if group.ends_at is None else max(0.0, group.ends_at - now) for group in still]
        claimed = sum(not group.free(now) for group in still)
        return Progress(len(self._known), len(self._known) - len(still), claimed, min(free, default=None))

    @property
    def _known(self) -> list[Group]:
        return self.board.groups if self._rows is None else self.board.groups[: -(-self._rows // self.board.size)]

    def _holds(self, claim: Claim) -> bool:
        return self.board.groups[claim.group].token == claim.token
