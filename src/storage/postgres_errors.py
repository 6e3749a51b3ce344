"""What PostgreSQL's errors amount to: which may pass, and what somebody has to do about the others.

Decides by the SQLSTATE alone, never by words, which come in the server's language. A connection that broke has none.
"""

from __future__ import annotations

from typing import Final

from ..errors import (
    PayloadTooLarge,
    ResultCorrupt,
    SchemaMismatch,
    StoreError,
    StoreFull,
    StoreUnavailable,
    StoreUnsupported,
)

__all__ = ["READ_ONLY", "may_repeat", "meaning_of"]

READ_ONLY: Final = "25006"
"""The server takes no writes: it is a standby, or has become one."""

_REPEAT: Final = frozenset({"40001", "40P01", READ_ONLY})
"""Serialisation failure and deadlock are undone as a whole, and the same again will do; so it may on another server."""

# By the whole code, or by its class, the first two characters.
_MEANINGS: Final[dict[str, tuple[type[StoreError], str]]] = {
    "53100": (StoreFull, "free some room and resume; what was acknowledged is safe"),
    READ_ONLY: (StoreUnavailable, "the server is read-only now: a standby, or default_transaction_read_only"),
    "55P03": (StoreUnavailable, "somebody else keeps it locked; end that one, or try again"),
    "42501": (StoreUnsupported, "grant the role what the message names"),
    "3D000": (StoreUnsupported, "create the database, or name another one"),
    "28": (StoreUnsupported, "check the role, its password and pg_hba.conf"),
    "0A": (StoreUnsupported, "use PostgreSQL 12 or later"),
    "3F": (SchemaMismatch, "the store's schema has gone; restore it, or open the store anew"),
    "42": (SchemaMismatch, "the store's tables are not those that this headgate made"),
    "XX": (StoreUnavailable, "see the server's log"),
    "XX001": (ResultCorrupt, "restore the database from a copy"),
    "XX002": (ResultCorrupt, "REINDEX what the message names"),
    "54": (PayloadTooLarge, "keep the bulk in a file and its name in the cell"),
    "08": (StoreUnavailable, "the connection was lost; try again"),
    "25": (StoreUnavailable, "the connection was lost; try again"),
    "40": (StoreUnavailable, "try again"),
    "53": (StoreUnavailable, "the server is short of what the message names"),
    "57": (StoreUnavailable, "the server is shutting down, starting up, or was told to stop; try again"),
    "58": (StoreUnavailable, "check the server's disk"),
}


def meaning_of(sqlstate: str | None, said: str, where: str) -> StoreError:
    """Return the store error for what the server said; ``sqlstate`` is None if the connection itself failed."""
    if sqlstate is None:
        return StoreUnavailable(f"{where}: {said}: check that the server runs and can be reached from here")
    kind, cure = _MEANINGS.get(sqlstate) or _MEANINGS.get(sqlstate[:2]) or (StoreError, "")
    return kind(f"{where}: {said} ({sqlstate})" + (f": {cure}" if cure else ""))


def may_repeat(sqlstate: str | None) -> bool:
    """Whether the same call may be made again although the connection stands."""
    return sqlstate in _REPEAT
