"""A disk on which a directory may hold so many bytes and no more: what would pass that fails as on a disk that is full.

So whatever holds for a full disk holds for this bound. Removing, renaming and linking are never refused, and so is
nothing that makes room, if it is done on the disk itself.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from .room import Room

if TYPE_CHECKING:
    from pathlib import Path

    from .disk import Disk

__all__ = ["BoundedDisk"]


class BoundedDisk:
    """A :class:`~headgate.storage.disk.Disk` that is ``disk``, but for new bytes below ``root``. For one thread."""

    def __init__(self, disk: Disk, root: Path, max_bytes: int) -> None:
        self._disk = disk
        self._root = root
        self._max_bytes = max_bytes
        self._room = Room(max_bytes)
        self.make_dir = disk.make_dir
        self.create = disk.create
        self.sync = disk.sync
        self.close = disk.close
        self.sync_dir = disk.sync_dir
        self.link = disk.link
        self.rename = disk.rename
        self.remove = disk.remove
        self.remove_dir = disk.remove_dir
        self.read = disk.read
        self.names = disk.names
        self.size = disk.size
        self.changed_at = disk.changed_at
        self.same = disk.same

    def write(self, file: int, data: bytes | memoryview) -> int:
        """See :meth:`headgate.storage.disk.Disk.write`. Raises OSError for what there is no room for."""
        if not self._room.take(len(data), lambda: self._disk.size(self._root)):
            raise OSError(
                errno.EDQUOT, f"max_bytes is {self._max_bytes:,} and {len(data):,} more do not fit", self._root
            )
        return self._disk.write(file, data)
