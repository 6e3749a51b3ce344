"""A real PostgreSQL server for tests: made in a temporary directory, on a free port of the loopback, ended by its pid.

The server refuses to run as root, so tests that do start it as an unprivileged user.
"""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

ROLE = "headgate"
START_S = 60.0

_numbers = count(1)


def binaries() -> Path | None:
    """The folder with ``initdb`` and ``postgres``: from HEADGATE_POSTGRES_BIN, the path, or the newest installed."""
    named = os.environ.get("HEADGATE_POSTGRES_BIN")
    on_path = shutil.which("initdb")
    installed = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda found: int(found.parent.name.split(".")[0])
    )
    candidates = [Path(named)] if named else [*([Path(on_path).parent] if on_path else []), *reversed(installed)]
    return next((place for place in candidates if (place / "initdb").exists() and (place / "postgres").exists()), None)


class Server:
    """One server with one database. ``dsn`` leads to it as a superuser, over TCP."""

    def __init__(self, bin_folder: Path, *options: str) -> None:
        self._bin = bin_folder
        self._options = options
        # Short, because the path of a Unix socket has some hundred characters; not below pytest's own, which no other
        # user may enter.
        self.place = Path(tempfile.mkdtemp(prefix="hg-pg-"))
        self._user = _unprivileged()
        self._own(self.place)
        self._process: subprocess.Popen[Any] | None = None
        self.port = _free_port()
        self._log = (self.place / "server.log").open("ab")
        self._run("initdb", "-D", str(self.data), "-U", ROLE, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        self.start()
        atexit.register(self.remove)

    @property
    def data(self) -> Path:
        return self.place / "data"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def dsn(self) -> str:
        return self.address()

    def address(self, *, user: str = ROLE, database: str = "postgres", options: str = "") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}{options}"

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        give_up_at = time.monotonic() + START_S
        while True:
            self._process = self._launch()
            while self._process.poll() is None:
                if self._answers():
                    return
                assert time.monotonic() < give_up_at, self.log()
                time.sleep(0.02)
            # The processes of a killed server need a moment to notice, and keep its memory until then.
            assert time.monotonic() < give_up_at, self.log()
            time.sleep(0.1)

    def start_as_standby(self) -> None:
        """Start it, stopped before, as a server that takes no connections until ``promote``."""
        (self.data / "standby.signal").touch()
        self._own(self.data / "standby.signal")
        self._options = (*self._options, "-c", "hot_standby=off")
        self._process = self._launch()
        give_up_at = time.monotonic() + START_S
        while psycopg.pq.PGconn.ping(self.dsn.encode()) != psycopg.pq.Ping.REJECT:
            assert time.monotonic() < give_up_at, self.log()
            time.sleep(0.02)

    def promote(self) -> None:
        """Let a standby take connections."""
        self._run("pg_ctl", "promote", "-D", str(self.data), "--no-wait")

    def kill(self) -> None:
        """Kill the server itself; its children notice and go."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Shut it down, breaking the connections."""
        self._end(signal.SIGINT)

    def remove(self) -> None:
        if self._process is not None:
            self.stop()
        self._log.close()
        shutil.rmtree(self.place, ignore_errors=True)
        atexit.unregister(self.remove)

    def log(self) -> str:
        return (self.place / "server.log").read_text(errors="replace")[-4000:]

    def execute(self, statement: str, *, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement as the superuser."""
        with psycopg.connect(self.address(database=database), autocommit=True) as connection:
            found = connection.execute(statement.encode())
            return found.fetchall() if found.description else []

    @contextmanager
    def schema(self) -> Generator[str]:
        """The name of a schema in which nothing is yet, dropped at the end."""
        name = f"s{os.getpid()}_{next(_numbers)}"
        try:
            yield name
        finally:
            self.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")

    def _launch(self) -> subprocess.Popen[Any]:
        options = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.place),
            "max_connections": "100",
            "shared_buffers": "16MB",
        }
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        command = [str(self._bin / "postgres"), "-D", str(self.data), *settings, *self._options]
        return subprocess.Popen(command, **self._with_user())

    def _end(self, how: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(timeout=START_S)
        self._process = None

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.dsn, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        assert subprocess.call([str(self._bin / program), *arguments], **self._with_user()) == 0, self.log()

    def _with_user(self) -> dict[str, Any]:
        common: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": self._log,
            "stderr": self._log,
            "cwd": self.place,
        }
        if self._user is None:
            return common
        return {**common, "user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def _own(self, place: Path) -> None:
        if self._user is not None:
            os.chown(place, self._user.pw_uid, self._user.pw_gid)


def _unprivileged() -> pwd.struct_passwd | None:
    """Whom to start the server as; None for the user who runs the tests."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise AssertionError("PostgreSQL does not run as root, and there is neither a user 'postgres' nor 'nobody'")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def new_server(*options: str) -> Server:
    """Make a server. Where none is installed the test is skipped; in CI it fails, so that nobody goes without."""
    found = binaries()
    if found is None:
        reason = "no PostgreSQL server is installed (initdb was not found; HEADGATE_POSTGRES_BIN names its folder)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return Server(found, *options)


@cache
def shared_server() -> Server:
    """The server that the tests of this process share. It must not be stopped."""
    return new_server()
