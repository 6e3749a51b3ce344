"""What a user means by ``store=``, and by a store on the command line: nothing, an address, a path, or a store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import ConfigError, StoreUnsupported
from .files import FileStore
from .memory import MemoryStore
from .postgres import PostgresStore
from .run_logs import is_store_directory
from .sqlite import SqliteStore

if TYPE_CHECKING:
    from .ports import RunStore

__all__ = ["find_store", "open_store", "without_secrets"]

_POSTGRES: Final = ("postgresql://", "postgres://")
_SLASHES: Final = tuple(one for one in (os.sep, os.altsep) if one)


def open_store(spec: str | os.PathLike[str] | RunStore | None) -> RunStore:
    """Return the store that ``spec`` means: in memory for None, a SQLite file for a path, a store itself.

    A path that ends with a slash, and a directory that holds such a store already, is a
    :class:`~headgate.storage.FileStore`; ``postgresql://user@host/database`` is a
    :class:`~headgate.storage.PostgresStore`. Nothing is created yet. Raises ConfigError for a path that cannot be a
    store, StoreUnsupported where reading or writing is not allowed, SchemaMismatch for a file that is something else.
    """
    if spec is None:
        return MemoryStore()
    if not isinstance(spec, (str, os.PathLike)):
        return spec
    text = os.fspath(spec)
    if text.startswith(_POSTGRES):
        return PostgresStore(text)
    path = _path(text)
    if text.endswith(_SLASHES) or is_store_directory(path):
        if path.exists() and not path.is_dir():
            raise ConfigError(f"store {text!r} is a file: leave out the slash at its end")
        _check_parent(path)
        return FileStore(path)
    _check_place(path)
    return SqliteStore(path)


def find_store(spec: str | os.PathLike[str]) -> RunStore:
    """Return the store that is at ``spec``, as :func:`open_store` reads it, to be read or swept; a new one is not made.

    Raises ConfigError if there is none. A database is not asked yet.
    """
    text = os.fspath(spec)
    if text.startswith(_POSTGRES):
        return PostgresStore(text)
    path = _path(text)
    if not path.exists():
        raise ConfigError(f"store {text!r}: there is no such file or directory")
    if not path.is_dir():
        return SqliteStore(path)
    if not is_store_directory(path):
        raise ConfigError(
            f"store {text!r} is a directory without a store in it: name the store's file, e.g. answers.db"
        )
    return FileStore(path)


def without_secrets(spec: str | os.PathLike[str]) -> str:
    """Return ``spec`` as it may be shown: a path as it is, of an address only what kind of address it is."""
    text = os.fspath(spec)
    return f"{text.partition('://')[0]}://..." if "://" in text else text


def _path(text: str) -> Path:
    if "://" in text:
        raise ConfigError(
            f"store '{without_secrets(text)}': a store is a file path, a {_POSTGRES[0]} address, or a store object"
        )
    if not text.strip() or text == ":memory:":
        raise ConfigError(f"store {text!r} is not a file path; leave it out for a store in memory")
    return Path(text).expanduser()


def _check_parent(path: Path) -> None:
    if not path.parent.is_dir():
        raise ConfigError(f"store {str(path)!r}: the directory {str(path.parent)!r} does not exist; make it first")


def _check_place(path: Path) -> None:
    if path.is_dir():
        raise ConfigError(
            f"store {str(path)!r} is a directory: name a file in it, e.g. {str(path / 'answers.db')!r}, or write "
            f"'{path}/' for a FileStore, which is for several processes or hosts"
        )
    _check_parent(path)
    if path.exists() and not path.is_file():
        raise ConfigError(f"store {str(path)!r} is not a regular file")
    # The directory too: SQLite keeps its log beside the file.
    for place in (path.parent, path):
        if place.exists() and not os.access(place, os.R_OK | os.W_OK):
            raise StoreUnsupported(f"store {str(path)!r}: no permission to read and write {str(place)!r}")
