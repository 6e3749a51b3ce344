"""Registers in a directory: each version is a file that is written once, and the highest one is the content.

A version is taken by the operation that takes a slot of a log, ``link``: of several who want the next version one gets
it. Older versions are removed but for the last few, so that a name may become free again, and somebody who was paused
between looking and linking might get it. No name is free before ``KEPT`` later ones have been taken; whoever has linked
therefore looks once more, and if so many have been, he does not know whether his was ever the content, and says that.
"""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from ..errors import StoreUnavailable
from ..values import writable
from . import generations, rules
from .disk import meaning_of

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from .disk import Disk

__all__ = ["KEPT", "FileRegisters"]

KEPT: Final = 16
_READABLE: Final = 80  # characters of a register's name in the name of its directory
_VERSION: Final = re.compile(r"[0-9]{16}")
_LOOKS: Final = 100
_TEMPORARY_S: Final = 3600.0


class FileRegisters:
    """The registers below ``home``, which is made below ``below``. It blocks: use a thread."""

    def __init__(self, disk: Disk, home: Path, *, below: Path) -> None:
        self._disk = disk
        self._home = home
        self._below = below

    def read(self, name: str) -> tuple[int, bytes]:
        """Return the version and the content; 0 and nothing if it was never written. Raises StoreError."""
        directory = self._directory(name)
        with self._translated():
            for _ in range(_LOOKS):
                newest = self._newest(directory)
                if not newest:
                    return 0, b""
                path = _file(directory, newest)
                with suppress(FileNotFoundError):  # so many were written meanwhile
                    return newest, generations.unseal(self._disk.read(path), path)
        raise StoreUnavailable(f"register {name!r} is being written faster than it can be read: try again")

    def write(self, name: str, data: bytes, after: int) -> bool:
        """Make ``data`` the content if the version is ``after``. Raises StoreError: it may be done all the same."""
        rules.check_register(name, data, after)
        directory = self._directory(name)
        version = after + 1
        with self._translated():
            if self._newest(directory) != after:
                return False
            if not after:
                generations.make_dirs(self._disk, directory, below=self._below)
            if not generations.publish(self._disk, _file(directory, version), generations.seal(data)):
                return False
            newest = self._newest(directory)
            if newest - version >= KEPT:
                raise StoreUnavailable(f"register {name!r}: version {version} was overtaken while it was written")
            self._clear(directory, newest)
        return True

    def _newest(self, directory: Path) -> int:
        return max(self._versions(directory), default=0)

    def _versions(self, directory: Path) -> list[int]:
        try:
            return [int(name) for name in self._disk.names(directory) if _VERSION.fullmatch(name)]
        except FileNotFoundError:
            return []

    def _clear(self, directory: Path, newest: int) -> None:
        """Remove what nobody reads. Whatever goes wrong is tried again with the next version."""
        with suppress(OSError):
            for version in self._versions(directory):
                if version <= newest - KEPT:
                    self._disk.remove(_file(directory, version))
            if not newest % KEPT:
                generations.remove_temporary(self._disk, directory, _TEMPORARY_S)

    def _directory(self, name: str) -> Path:
        name = writable(name)
        digest = blake2b(name.encode(), digest_size=8).hexdigest()
        readable = quote(name, safe=" ").replace(".", "%2E")[:_READABLE]
        return self._home / f"{readable}-{digest}"

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise meaning_of(error, self._home) from error


def _file(directory: Path, version: int) -> Path:
    return directory / f"{version:016d}"
