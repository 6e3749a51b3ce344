"""Where control sockets are: files that only their user may open, in a directory that only their user may enter.

A socket outlives the process that made it, if that was killed. Nobody answers at it any more, so it is replaced: under
a lock on the directory, so that of two processes one gets the place and the other one is told who has it.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

__all__ = ["answers", "bound", "check_ours", "control_directory", "private_directory", "sockets_in"]

PATH_MOST: Final = 100
"""Bytes of a socket's path that every system takes."""

_GONE: Final = frozenset({errno.ECONNREFUSED, errno.ENOENT})


def control_directory() -> Path:
    """Where sockets are that nobody gave a place: below ``XDG_RUNTIME_DIR``, or the directory for temporary files."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime and Path(runtime).is_dir():
        return Path(runtime) / "headgate"
    return Path(tempfile.gettempdir()) / f"headgate-{os.getuid()}"


def private_directory(path: Path) -> Path:
    """``path``, made if it is not there. Raises ConfigError if others could enter it."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise ConfigError(f"control: {path}: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"control: {path} is no directory of its own: name another one")
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigError(
            f"control: others may enter {path}: name a directory for the socket that is yours alone (chmod 700), or "
            "one that is not there yet"
        )
    return path


def bound(path: Path | None) -> tuple[socket.socket, Path]:
    """A socket that listens at ``path``, or at a place of its own in the usual directory, for its user alone.

    Raises ConfigError if somebody answers there, or something else is in its place.
    """
    directory = private_directory((path or control_directory() / "any").absolute().parent)
    with _locked(directory):
        place = _free_place(directory) if path is None else path.absolute()
        if len(os.fsencode(place)) > PATH_MOST:
            raise ConfigError(f"control: {place} is too long for a socket: at most {PATH_MOST} bytes")
        _clear(place)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.setblocking(False)
            listener.bind(os.fspath(place))
            place.chmod(0o600)
            listener.listen(16)
        except OSError as error:
            listener.close()
            raise ConfigError(f"control: {place}: {error.strerror}") from error
    return listener, place


def sockets_in(directory: Path) -> Iterator[Path]:
    """The sockets at which somebody answers, in the order of their names."""
    try:
        found = sorted(directory.iterdir())
    except OSError:
        return
    for path in found:
        with suppress(OSError):  # the engine of one has just ended: it hides no other
            if stat.S_ISSOCK(path.lstat().st_mode) and answers(path):
                yield path


def answers(path: Path) -> bool:
    """Whether somebody listens there. One who is too busy to be reached does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.setblocking(False)
        return caller.connect_ex(os.fspath(path)) not in _GONE


def check_ours(path: Path) -> None:
    """Raise ConfigError unless there is a socket there that is its user's own."""
    try:
        found = path.lstat()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigError(f"{path} is no socket")
    if found.st_uid not in (os.getuid(), 0):
        raise ConfigError(f"{path} belongs to somebody else")


def _clear(place: Path) -> None:
    try:
        found = place.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigError(f"control: {place} is there and is no socket: name another place")
    if answers(place):
        raise ConfigError(f"control: an engine that is running answers at {place}: name another place")
    place.unlink()


def _free_place(directory: Path) -> Path:
    """A name of this process; what killed ones left is cleared away on the occasion."""
    for left in list(directory.glob("*.sock")):
        with suppress(OSError):
            if stat.S_ISSOCK(left.lstat().st_mode) and not answers(left):
                left.unlink()
    number = 1
    while (place := directory / f"{os.getpid()}-{number}.sock").exists():
        number += 1
    return place


@contextmanager
def _locked(directory: Path) -> Generator[None]:
    import fcntl  # not on Windows, which has no such sockets

    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # for as long as it takes to bind a socket
        yield
    finally:
        os.close(handle)
