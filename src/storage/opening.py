"""What a user means by ``store=``: nothing, an address, a path, or a store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import ConfigError, StoreUnsupported
from .memory import MemoryStore
from .postgres import PostgresStore
from .sqlite import SqliteStore

if TYPE_CHECKING:
    from .ports import RunStore

__all__ = ["open_store"]

_POSTGRES: Final = ("postgresql://", "postgres://")


def open_store(spec: str | os.PathLike[str] | RunStore | None) -> RunStore:
    """Return the store that ``spec`` means: in memory for None, a SQLite file for a path, a store itself.

    ``postgresql://user@host/database`` is a :class:`~headgate.storage.PostgresStore`. Nothing is created yet.
    Raises ConfigError for a path that cannot be a file, StoreUnsupported where reading or writing is not allowed,
    SchemaMismatch for a file that is something else.
    """
    if spec is None:
        return MemoryStore()
    if not isinstance(spec, (str, os.PathLike)):
        return spec
    text = os.fspath(spec)
    if text.startswith(_POSTGRES):
        return PostgresStore(text)
    if "://" in text:
        # Only what stands before it: an address may hold a password.
        kind = text.partition("://")[0]
        raise ConfigError(f"store '{kind}://...': a store is a file path, a {_POSTGRES[0]} address, or a store object")
    if not text.strip() or text == ":memory:":
        raise ConfigError(f"store {text!r} is not a file path; leave it out for a store in memory")
    path = Path(text).expanduser()
    _check_place(path)
    return SqliteStore(path)


def _check_place(path: Path) -> None:
    if path.is_dir():
        raise ConfigError(
            f"store {str(path)!r} is a directory: name a file in it, e.g. {str(path / 'answers.db')!r}, or give "
            f"FileStore({str(path)!r}), which is for several processes or hosts"
        )
    if not path.parent.is_dir():
        raise ConfigError(f"store {str(path)!r}: the directory {str(path.parent)!r} does not exist; make it first")
    if path.exists() and not path.is_file():
        raise ConfigError(f"store {str(path)!r} is not a regular file")
    # The directory too: SQLite keeps its log beside the file.
    for place in (path.parent, path):
        if place.exists() and not os.access(place, os.R_OK | os.W_OK):
            raise StoreUnsupported(f"store {str(path)!r}: no permission to read and write {str(place)!r}")
