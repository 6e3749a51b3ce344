"""Several engines on one run in a PostgreSQL database: handing out row groups, and the handle of one engine.

Each request is one statement, as in :mod:`headgate.storage.postgres_functions`, and looks first whether the engine's
opening stands. Whoever looks for a free group passes over those that another engine is just taking (SKIP LOCKED), and
time is the server's alone. A group that is being committed to is locked, so that nobody takes it meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, LiteralString

from . import postgres_records, rules
from .postgres_run import PostgresRun
from .sharing import Claim, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from psycopg import Connection

    from .ports import Batch
    from .postgres_records import Opened
    from .postgres_writer import PostgresWriter

__all__ = ["PostgresSharedRun"]

# Whether the engine may still write is asked with a lock, so that nobody fences it out before the statement is done.
_EXTEND: Final = """WITH old AS (
    SELECT id, group_rows, known_rows FROM run WHERE id = %(run)s AND known_rows < %(rows)s
    AND EXISTS (SELECT FROM opening WHERE run = %(run)s AND epoch = %(epoch)s AND NOT fenced FOR SHARE) FOR UPDATE
), grown AS (
    UPDATE run SET known_rows = %(rows)s, status = 'running', finished_at = NULL FROM old WHERE run.id = old.id
)
INSERT INTO row_group (run, number, rows)
    SELECT id, number, least(group_rows, %(rows)s - number * group_rows)
    FROM old, generate_series(known_rows / group_rows, (%(rows)s - 1) / group_rows) AS number
    ON CONFLICT (run, number) DO UPDATE SET rows = excluded.rows, open = true WHERE row_group.rows < excluded.rows"""
_CLAIM: Final = """WITH free AS (
    SELECT number FROM row_group
    WHERE run = %(run)s AND number < %(known)s AND open AND (ends_at IS NULL OR ends_at <= clock_timestamp())
    AND EXISTS (SELECT FROM opening WHERE run = %(run)s AND epoch = %(epoch)s AND NOT fenced FOR SHARE)
    ORDER BY number LIMIT %(most)s FOR UPDATE SKIP LOCKED
)
UPDATE row_group SET holder = %(epoch)s, token = token + 1, ends_at = clock_timestamp() + make_interval(secs => %(s)s)
    FROM free WHERE run = %(run)s AND row_group.number = free.number
    RETURNING row_group.number, row_group.rows, token"""
_RENEW: Final = """UPDATE row_group SET ends_at = clock_timestamp() + make_interval(secs => %(s)s)
    FROM unnest(%(numbers)s::bigint[], %(tokens)s::bigint[]) AS g (number, token)
    WHERE run = %(run)s AND row_group.number = g.number AND row_group.token = g.token
    AND EXISTS (SELECT FROM opening WHERE run = %(run)s AND epoch = %(epoch)s AND NOT fenced FOR SHARE)
    RETURNING g.number"""
# Repeated, it finds the same token, for only a claim makes another one.
_COMPLETE: Final = """UPDATE row_group SET open = row_group.rows > g.rows, holder = NULL, ends_at = NULL
    FROM unnest(%(numbers)s::bigint[], %(tokens)s::bigint[], %(rows)s::integer[]) AS g (number, token, rows)
    WHERE run = %(run)s AND row_group.number = g.number AND row_group.token = g.token
    AND EXISTS (SELECT FROM opening WHERE run = %(run)s AND epoch = %(epoch)s AND NOT fenced FOR SHARE)
    RETURNING g.number"""
_GIVE_BACK: Final = """UPDATE row_group SET holder = NULL, ends_at = NULL, token = row_group.token + 1
    FROM unnest(%(numbers)s::bigint[], %(tokens)s::bigint[]) AS g (number, token)
    WHERE run = %(run)s AND row_group.number = g.number AND row_group.token = g.token"""
_PROGRESS: Final = """SELECT count(*), count(*) FILTER (WHERE NOT open),
    count(*) FILTER (WHERE open AND ends_at > clock_timestamp()),
    extract(epoch FROM min(greatest(coalesce(ends_at, now()), now())) FILTER (WHERE open) - now())::double precision
    FROM row_group WHERE run = %(run)s AND number < %(known)s"""

_EVERY: Final = 2**62


class PostgresSharedRun(PostgresRun):
    """A :class:`~headgate.storage.sharing.SharedRun` in a PostgreSQL database."""

    def __init__(self, writer: PostgresWriter, opened: Opened, max_payload: int, clock: Callable[[], float]) -> None:
        super().__init__(writer, opened, max_payload, clock)
        self._tokens: dict[int, int] = {}  # of the groups that are held, as far as is known here
        self._rows: int | None = None  # those that its engine has; None if it has not said

    async def commit(self, batch: Batch) -> None:
        """See :meth:`headgate.storage.sharing.SharedRun`."""
        self.check_open()
        await self._writer.commit(self._opened, batch, self._max_payload, self._touched(batch))

    async def extend(self, rows: int) -> None:
        """See :meth:`headgate.storage.sharing.SharedRun.extend`."""
        self._rows = max(rows, self._rows or 0)
        await self._ask(_EXTEND, rows=rows)

    async def claim(self, most: int, lease_s: float) -> list[Claim]:
        """See :meth:`headgate.storage.sharing.SharedRun.claim`."""
        size = self._opened.group_rows
        found = await self._ask(_CLAIM, most=most, s=lease_s, known=self._known)
        claims = [Claim(number, number * size, number * size + rows, token) for number, rows, token in sorted(found)]
        self._tokens.update((claim.group, claim.token) for claim in claims)
        return claims

    async def renew(self, claims: Sequence[Claim], lease_s: float) -> list[Claim]:
        """See :meth:`headgate.storage.sharing.SharedRun.renew`."""
        found = await self._ask(_RENEW, s=lease_s, **_columns(claims))
        return self._forget_lost(claims, found)

    async def complete(self, claims: Sequence[Claim]) -> None:
        """See :meth:`headgate.storage.sharing.SharedRun.complete`."""
        rows = [claim.last - claim.first for claim in claims]
        found = await self._ask(_COMPLETE, rows=rows, **_columns(claims))
        lost = self._forget_lost(claims, found)
        self._forget(claims)
        if lost:
            raise rules.claim_lost(self.info.run, [claim.group for claim in lost])

    async def give_back(self, claims: Sequence[Claim]) -> None:
        """See :meth:`headgate.storage.sharing.SharedRun.give_back`."""
        self._forget(claims)
        await self._ask(_GIVE_BACK, **_columns(claims))

    async def progress(self) -> Progress:
        """See :meth:`headgate.storage.sharing.SharedRun.progress`."""
        return Progress(*(await self._ask(_PROGRESS, known=self._known))[0])

    @property
    def _known(self) -> int:
        """How many groups its engine has rows of."""
        return _EVERY if self._rows is None else -(-self._rows // self._opened.group_rows)

    async def _ask(self, query: LiteralString, **given: object) -> list[tuple[Any, ...]]:
        """Return what ``query`` finds. Raises FencedOut, which is why it may find nothing."""
        self.check_open()
        opened = self._opened
        parameters = {"run": opened.number, "epoch": opened.info.epoch, **given}

        def ask(connection: Connection[Any]) -> list[tuple[Any, ...]]:
            cursor = connection.execute(query, parameters)
            found = cursor.fetchall() if cursor.description else []
            if not found and (fenced := postgres_records.why_fenced(connection, opened)):
                raise fenced
            return found

        return await self._writer.call(lambda link, _: link.do(ask))

    def _touched(self, batch: Batch) -> frozenset[tuple[int, int]]:
        """Return the groups that a batch is about, with their tokens. Raises ClaimLost for one that is not held."""
        size = self._opened.group_rows
        positions = {record.row // size for records in (batch.rows, batch.cells, batch.held) for record in records}
        positions.update(row // size for pairs in (batch.reopened, batch.unheld) for row, _ in pairs)
        positions.update(spent.row // size for spent in batch.spent)
        if missing := sorted(positions - self._tokens.keys()):
            raise rules.claim_lost(self.info.run, missing)
        return frozenset((group, self._tokens[group]) for group in positions)

    def _forget_lost(self, claims: Sequence[Claim], kept: Iterable[tuple[Any, ...]]) -> list[Claim]:
        groups = {number for (number,) in kept}
        lost = [claim for claim in claims if claim.group not in groups]
        self._forget(lost)
        return lost

    def _forget(self, claims: Iterable[Claim]) -> None:
        for claim in claims:
            if self._tokens.get(claim.group) == claim.token:
                del self._tokens[claim.group]


def _columns(claims: Sequence[Claim]) -> dict[str, object]:
    return {"numbers": [claim.group for claim in claims], "tokens": [claim.token for claim in claims]}
