"""The operations on files that the file store is made of, one method each, so that a test can stand in for a disk.

Only what every POSIX file system gives, also a shared one: a name is taken exactly once (``link``), a rename replaces
as a whole, bytes and names last once they were synced, each on their own.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Protocol

from ..errors import StoreError, StoreFull, StoreUnavailable, StoreUnsupported

__all__ = ["Disk", "LocalDisk", "meaning_of"]


class Disk(Protocol):
    """What a store asks of a file system. Every method raises OSError as the system call does."""

    def make_dir(self, path: Path) -> None:
        """Make one directory. Raises FileExistsError."""
        ...

    def create(self, path: Path) -> int:
        """Make a new, empty file and return its descriptor. Raises FileExistsError."""
        ...

    def write(self, file: int, data: bytes | memoryview) -> int:
        """Write to the end and return how many bytes of ``data`` were taken."""
        ...

    def sync(self, file: int) -> None:
        """Let the bytes of a file outlast a loss of power."""
        ...

    def close(self, file: int) -> None:
        """Give the descriptor back. On a network this may be where a full disk is told of."""
        ...

    def sync_dir(self, path: Path) -> None:
        """Let the names in a directory, made and removed, outlast a loss of power."""
        ...

    def link(self, path: Path, name: Path) -> None:
        """Give the file a second name. Raises FileExistsError if the name is taken: of several callers one gets it."""
        ...

    def rename(self, path: Path, name: Path) -> None:
        """Move a file or directory to another name; a file that is there is replaced."""
        ...

    def remove(self, path: Path) -> None:
        """Take a file's name away."""
        ...

    def remove_dir(self, path: Path) -> None:
        """Remove an empty directory."""
        ...

    def read(self, path: Path) -> bytes:
        """Return the whole file. Raises FileNotFoundError."""
        ...

    def names(self, path: Path) -> list[str]:
        """Return the names in a directory, in no order. Raises FileNotFoundError."""
        ...

    def size(self, path: Path) -> int:
        """Return the bytes of all files below a directory, 0 if it is not there. What comes and goes may be counted."""
        ...

    def changed_at(self, path: Path) -> float:
        """When the file or directory was changed last, in seconds by the clock of the file system."""
        ...

    def same(self, path: Path, name: Path) -> bool:
        """Whether both names are of one file."""
        ...


class LocalDisk:
    """A :class:`Disk` that is the operating system's: every method is one system call, or two."""

    def make_dir(self, path: Path) -> None:
        """See :meth:`Disk.make_dir`."""
        path.mkdir()

    def create(self, path: Path) -> int:
        """See :meth:`Disk.create`."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def write(self, file: int, data: bytes | memoryview) -> int:
        """See :meth:`Disk.write`."""
        return os.write(file, data)

    def sync(self, file: int) -> None:
        """See :meth:`Disk.sync`."""
        os.fsync(file)

    def close(self, file: int) -> None:
        """See :meth:`Disk.close`."""
        os.close(file)

    def sync_dir(self, path: Path) -> None:
        """See :meth:`Disk.sync_dir`."""
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def link(self, path: Path, name: Path) -> None:
        """See :meth:`Disk.link`."""
        name.hardlink_to(path)

    def rename(self, path: Path, name: Path) -> None:
        """See :meth:`Disk.rename`."""
        path.replace(name)

    def remove(self, path: Path) -> None:
        """See :meth:`Disk.remove`."""
        path.unlink()

    def remove_dir(self, path: Path) -> None:
        """See :meth:`Disk.remove_dir`."""
        path.rmdir()

    def read(self, path: Path) -> bytes:
        """See :meth:`Disk.read`."""
        return path.read_bytes()

    def names(self, path: Path) -> list[str]:
        """See :meth:`Disk.names`."""
        return [entry.name for entry in path.iterdir()]

    def size(self, path: Path) -> int:
        """See :meth:`Disk.size`."""
        return sum(_size(Path(folder, name)) for folder, _, names in os.walk(path) for name in names)

    def changed_at(self, path: Path) -> float:
        """See :meth:`Disk.changed_at`."""
        return path.stat().st_mtime

    def same(self, path: Path, name: Path) -> bool:
        """See :meth:`Disk.same`."""
        return path.samefile(name)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0


def meaning_of(error: OSError, path: Path) -> StoreError:
    """Return the store error that an error of the file system amounts to."""
    name = errno.errorcode.get(error.errno or 0, type(error).__name__)
    said = f"{error.filename or path}: {error.strerror or error} ({name})"
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return StoreFull(f"{said}: free some room and resume; what was acknowledged is safe")
        case errno.EROFS | errno.EACCES | errno.EPERM:
            return StoreUnsupported(f"{said}: the directory must be writable for this user")
        case errno.EOPNOTSUPP | errno.ENOSYS | errno.EINVAL | errno.EMLINK | errno.EXDEV:
            return StoreUnsupported(f"{said}: put the store on a file system that has all of POSIX")
        case _:
            return StoreUnavailable(f"{said}: check the disk, its mount and the permissions")
