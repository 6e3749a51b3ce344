"""A connection to a PostgreSQL server that comes back: opening it, bounds on waiting, what to do when it breaks.

The one place that touches the driver, psycopg 3 (extra ``postgres``), which is imported on first use. It is used
without an event loop, from one thread at a time, so that it makes no difference which loop the caller runs on.
"""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ..errors import ConfigError, StoreError, StoreUnavailable, StoreUnsupported
from .postgres_errors import READ_ONLY, may_repeat, meaning_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from psycopg import Connection, Error

    from .ports import Durability

__all__ = ["Link", "where"]

T = TypeVar("T")

_CONNECT_S: Final = 10
"""Seconds for one attempt at connecting, unless the address says otherwise."""
_ANSWER_S: Final = 120.0
"""How long the server may take for one statement before the connection is given up as lost."""
_LOCK_MS: Final = 30_000
"""How long a statement may wait for somebody else's lock."""
_FIRST_PAUSE_S: Final = 0.02
_LONGEST_PAUSE_S: Final = 0.5
_OLDEST_SERVER: Final = 120_000

# A peer that has vanished without a word is noticed after some 25 s, not after hours.
_UNLESS_SAID: Final[dict[str, int | str]] = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
    "connect_timeout": _CONNECT_S,
    "application_name": "headgate",
}
# A database or role may have other defaults; the functions rely on these.
_SETTINGS: Final = """SELECT set_config('search_path', quote_ident(%s), false),
    set_config('synchronous_commit', %s, false), set_config('lock_timeout', %s, false),
    set_config('default_transaction_isolation', 'read committed', false),
    set_config('statement_timeout', '0', false), set_config('jit', 'off', false),
    set_config('idle_in_transaction_session_timeout', %s, false)"""


class _Lost(Exception):
    """The call may be made again: it was undone, or the connection is gone and nobody knows. Else it is ``meaning``."""

    def __init__(self, meaning: StoreError) -> None:
        super().__init__(str(meaning))
        self.meaning = meaning


class Link:
    """One connection, opened on first use and again when it was lost. One thread at a time may use it.

    ``schema`` is where the tables are, ``durability`` what a commit shall survive. A lost connection, and a server that
    is starting, are tried for ``patience_s`` seconds before the call is StoreUnavailable; a first address at which
    nobody answers is not. ``prepare`` is called with each new connection.
    """

    def __init__(
        self,
        dsn: str,
        *,
        schema: str,
        durability: Durability,
        patience_s: float,
        prepare: Callable[[Connection], None],
    ) -> None:
        self._dsn = dsn
        self._schema = schema
        self._synchronous = "off" if durability.value == "process" else "on"
        self._patience_s = patience_s
        self._prepare = prepare
        self.where = where(dsn)
        """The address for messages, without the password."""
        self._connection: Connection | None = None
        self._stood = False
        self._starting = False
        """Whether the server said at the last attempt that it takes no connections yet."""

    def do(self, act: Callable[[Connection], T]) -> T:
        """Do ``act``, which may be repeated, and return its result.

        If the connection breaks meanwhile ``act`` is done again on a new one: it must change nothing if it was done
        before. Raises StoreError, and what ``act`` raises.
        """
        give_up_at = time.monotonic() + self._patience_s
        pause = _FIRST_PAUSE_S
        while True:
            try:
                return self._attempt(act)
            except _Lost as lost:
                left = give_up_at - time.monotonic()
                hopeful = lost.meaning.retryable and (self._stood or self._starting)
                if not hopeful or left <= 0:
                    raise lost.meaning from lost.__cause__
                time.sleep(min(pause, left))
                pause = min(2 * pause, _LONGEST_PAUSE_S)

    def close(self) -> None:
        """Close the connection. The next call opens one again."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _attempt(self, act: Callable[[Connection], T]) -> T:
        """Do ``act`` once. Raises _Lost, from the store error that it amounts to, if it may be done again."""
        psycopg = _driver()
        try:
            if self._connection is None:
                self._connection = self._open()
            return act(self._connection)
        except psycopg.Error as error:
            raise self._judged(error) from error
        except StoreUnavailable as error:  # of connecting
            raise _Lost(error) from error.__cause__

    def _judged(self, error: Error) -> Exception:
        """Return what ``error`` is to be raised as, and let go of a connection that is no use any more."""
        found = meaning_of(error.sqlstate, _said(error), self.where)
        standing = self._standing(error)
        if standing and not may_repeat(error.sqlstate):
            return found
        if not standing or error.sqlstate == READ_ONLY:  # after a switch-over the address leads to another server
            self.close()
        return _Lost(found)

    def _standing(self, error: Error) -> bool:
        """Whether the connection is as good as before ``error``."""
        connection = self._connection
        if connection is None or connection.broken:
            return False
        # The driver's own timeout leaves the statement running: nothing more can be said on that connection.
        return bool(connection.info.transaction_status == _driver().pq.TransactionStatus.IDLE)

    def _open(self) -> Connection:
        connection = self._connected()
        self._stood = True
        try:
            self._check(connection)
            lock = f"{_LOCK_MS}ms"  # of making the tables, too, which takes a transaction of several statements
            connection.execute(_SETTINGS, (self._schema, self._synchronous, lock, lock))
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check(self, connection: Connection) -> None:
        if connection.info.server_version < _OLDEST_SERVER:
            raise StoreUnsupported(f"{self.where}: PostgreSQL 12 or later is needed")
        if connection.info.parameter_status("server_encoding") != "UTF8":
            raise StoreUnsupported(f"{self.where}: the database must have the encoding UTF8: create another one")

    def _connected(self, *, again: bool = False) -> Connection:
        psycopg = _driver()
        from psycopg.conninfo import conninfo_to_dict, make_conninfo

        try:
            given = conninfo_to_dict(self._dsn)
            unsaid = {name: value for name, value in _UNLESS_SAID.items() if name not in given}
            return _patient_connection().connect(make_conninfo(self._dsn, **unsaid), autocommit=True)
        except psycopg.ProgrammingError as error:
            # Without the address, which the driver quotes: it may hold a password.
            said = _said(error).replace(self._dsn, "...")
            raise ConfigError(f"{self.where}: not an address that PostgreSQL understands: {said}") from None
        except psycopg.OperationalError as error:
            found = meaning_of(error.sqlstate, _said(error), self.where)
            if not self._stood:
                # The error of a connection that never stood has no SQLSTATE: the server is asked how it is.
                ping = self._ping()
                if ping == psycopg.pq.Ping.OK:
                    if not again:  # it may have been starting until just now
                        return self._connected(again=True)
                    found = StoreUnsupported(
                        f"{self.where}: {_said(error)}: the server runs and turned this client away; check the "
                        "database, the role, its password and pg_hba.conf"
                    )
                self._starting = bool(ping == psycopg.pq.Ping.REJECT)
            raise found from error

    def _ping(self) -> int:
        """Ask a server whether it takes connections at all: OK, REJECT (starting or stopping) or neither."""
        from psycopg import conninfo, pq

        address = conninfo.make_conninfo(self._dsn, connect_timeout=_CONNECT_S)
        return pq.PGconn.ping(address.encode())


def where(dsn: str) -> str:
    """Return an address for messages: never with the password."""
    try:
        from psycopg.conninfo import conninfo_to_dict

        known = conninfo_to_dict(dsn)
    except Exception:  # what cannot be read is not shown either: it may hold a password
        return "PostgreSQL"
    user = f"{known['user']}@" if known.get("user") else ""
    port = f":{known['port']}" if known.get("port") else ""
    return f"postgresql://{user}{known.get('host') or ''}{port}/{known.get('dbname') or ''}"


def _said(error: Error) -> str:
    """Return the message of the server, on one line."""
    return " ".join((error.diag.message_primary or str(error)).split())


def _driver() -> ModuleType:
    """Import the driver. Raises StoreUnsupported that says what to install."""
    try:
        import psycopg
    except ImportError as error:
        raise StoreUnsupported(f"a PostgresStore needs psycopg: pip install 'headgate[postgres]' ({error})") from error
    return psycopg


@cache
def _patient_connection() -> type[Connection]:
    """The driver's connection, with a bound on each wait for the server."""
    import psycopg

    class PatientConnection(psycopg.Connection[tuple[Any, ...]]):
        def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
            return super().wait(gen, interval=interval, timeout=_ANSWER_S if timeout is None else timeout)

    return PatientConnection
