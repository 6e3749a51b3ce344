"""Replacing a file as a whole: who reads it sees the old one or the new one, after a power loss too."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

__all__ = ["Replacement", "replacing", "sync_folder"]

_NAME_CHARS = 50  # of the file in the name of the one that takes its place, so that it is never too long


class Replacement:
    """A temporary file beside ``path`` that takes its place when :meth:`publish` is called, or leaves no trace."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._temporary = path.with_name(f".{path.name[:_NAME_CHARS]}.{secrets.token_hex(8)}.part")
        # The rights are those of any new file: the system takes off what the umask forbids.
        self.file: IO[bytes] = self._temporary.open("xb")

    def publish(self) -> None:
        """Make the file durable, then let it take the place of ``path``."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        self._temporary.replace(self.path)
        # A rename is durable only once its folder is (T50).
        sync_folder(self.path.parent)

    def discard(self) -> None:
        """Remove the temporary file, if it is still there."""
        with suppress(OSError):  # a full disk may refuse what was still buffered
            self.file.close()
        self._temporary.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Generator[IO[bytes], None, None]:
    """A file to write; it becomes ``path`` when the block ends well."""
    replacement = Replacement(path)
    try:
        yield replacement.file
        replacement.publish()
    finally:
        replacement.discard()


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
