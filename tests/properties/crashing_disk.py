"""A disk in memory that loses power: what was not synced is kept, dropped, torn or done in another order.

What a file system may do, and no more than that: the bytes of a file last after ``sync``, a name after ``sync_dir`` of
its directory, and each independently of all others. A rename happens or does not, as a whole.
"""

from __future__ import annotations

import errno
import inspect
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

ROOT = Path("/disk")
DEPTH = len(ROOT.parts)


class PowerLoss(BaseException):
    """The machine is gone in the middle of an operation."""


@dataclass(eq=False)
class File:
    """A file: what a reader sees, and what is known to be on the disk."""

    data: bytes = b""
    synced: bytes = b""
    changed_at: float = 0.0


@dataclass(eq=False)
class Directory:
    """A directory: the names that a reader sees, and the changes to them that may not be on the disk yet."""

    names: dict[str, File | Directory] = field(default_factory=dict[str, "File | Directory"])
    synced: dict[str, File | Directory] = field(default_factory=dict[str, "File | Directory"])
    pending: list[Change] = field(default_factory=list["Change"])


Site = tuple[str, int]
"""A place in the program: the name of the file, and the line."""

Change = list[tuple[Directory, str, "File | Directory | None"]]
"""Names given and taken in one operation, which happens as a whole."""


class CrashingDisk:
    """A disk that loses power at its ``dies_at``-th operation (0: never). Syncs asked for at the place ``forgotten`` in
    the program do nothing, as if they were not there.
    """

    def __init__(self) -> None:
        self.root = Directory()
        self.operations = 0
        self.dies_at = 0
        self.forgotten: Site | None = None
        self._open: dict[int, File] = {}

    # The operations

    def make_dir(self, path: Path) -> None:
        self._operate()
        parent = self._parent(path)
        if path.name in parent.names:
            raise FileExistsError(errno.EEXIST, "exists", str(path))
        self._change([(parent, path.name, Directory())])

    def create(self, path: Path) -> int:
        self._operate()
        parent = self._parent(path)
        if path.name in parent.names:
            raise FileExistsError(errno.EEXIST, "exists", str(path))
        file = File()
        self._change([(parent, path.name, file)])
        number = len(self._open)
        self._open[number] = file
        return number

    def write(self, file: int, data: bytes | memoryview) -> int:
        self._operate()
        taken = bytes(data[: max(1, len(data) // 2)])  # short writes are usual on some file systems
        self._open[file].data += taken
        return len(taken)

    def sync(self, file: int) -> None:
        self._operate()
        if not self._forgets():
            self._open[file].synced = self._open[file].data

    def close(self, file: int) -> None:
        self._operate()

    def sync_dir(self, path: Path) -> None:
        self._operate()
        if self._forgets():
            return
        directory = self._directory(path)
        for change in list(directory.pending):
            _persist(change)
            for changed, _, _ in change:
                if change in changed.pending:
                    changed.pending.remove(change)

    def link(self, path: Path, name: Path) -> None:
        self._operate()
        parent = self._parent(name)
        if name.name in parent.names:
            raise FileExistsError(errno.EEXIST, "exists", str(name))
        self._change([(parent, name.name, self._file(path))])

    def rename(self, path: Path, name: Path) -> None:
        self._operate()
        moved = self._parent(path).names[path.name]
        self._change([(self._parent(path), path.name, None), (self._parent(name), name.name, moved)])

    def remove(self, path: Path) -> None:
        self._operate()
        self._file(path)
        self._change([(self._parent(path), path.name, None)])

    def remove_dir(self, path: Path) -> None:
        self._operate()
        self._directory(path)
        self._change([(self._parent(path), path.name, None)])

    def read(self, path: Path) -> bytes:
        self._operate()
        return self._file(path).data

    def names(self, path: Path) -> list[str]:
        self._operate()
        return list(self._directory(path).names)

    def size(self, path: Path) -> int:
        found: list[File] = []

        def visit(directory: Directory) -> None:
            found.extend(thing for thing in directory.names.values() if isinstance(thing, File))

        with suppress(FileNotFoundError):
            _walk(self._directory(path), visit)
        return sum(len(file.data) for file in found)

    def changed_at(self, path: Path) -> float:
        self._operate()
        return self._file(path).changed_at

    def same(self, path: Path, name: Path) -> bool:
        self._operate()
        return self._file(path) is self._file(name)

    # The loss of power

    def restart(self, random: Random) -> None:
        """What a machine finds that comes up again."""
        self.dies_at = 0
        self._open.clear()
        changes: list[Change] = []
        _walk(self.root, lambda directory: changes.extend(c for c in directory.pending if c not in changes))
        random.shuffle(changes)
        for change in changes:
            if random.random() < 0.5:
                _persist(change)
        self._settle(self.root, random)

    def _settle(self, directory: Directory, random: Random) -> None:
        directory.pending.clear()
        directory.names = dict(directory.synced)
        for thing in directory.names.values():
            if isinstance(thing, Directory):
                self._settle(thing, random)
            else:
                thing.data = thing.synced = _torn(thing, random)

    # Paths

    def _forgets(self) -> bool:
        if self.forgotten is None:
            return False
        frame = inspect.currentframe()
        for _ in range(2):  # whoever called sync or sync_dir
            assert frame is not None
            frame = frame.f_back
        assert frame is not None
        return self.forgotten == (Path(frame.f_code.co_filename).name, frame.f_lineno)

    def _operate(self) -> None:
        self.operations += 1
        if self.operations == self.dies_at:
            raise PowerLoss

    def _change(self, change: Change) -> None:
        for directory, name, thing in change:
            if thing is None:
                del directory.names[name]
            else:
                directory.names[name] = thing
            if change not in directory.pending:
                directory.pending.append(change)

    def _thing(self, path: Path) -> File | Directory:
        thing: File | Directory | None = self.root
        for part in path.parts[DEPTH:]:
            thing = thing.names.get(part) if isinstance(thing, Directory) else None
            if thing is None:
                raise FileNotFoundError(errno.ENOENT, "not there", str(path))
        assert thing is not None
        return thing

    def _directory(self, path: Path) -> Directory:
        thing = self._thing(path)
        if not isinstance(thing, Directory):
            raise NotADirectoryError(errno.ENOTDIR, "no directory", str(path))
        return thing

    def _parent(self, path: Path) -> Directory:
        return self._directory(path.parent)

    def _file(self, path: Path) -> File:
        thing = self._thing(path)
        if not isinstance(thing, File):
            raise IsADirectoryError(errno.EISDIR, "a directory", str(path))
        return thing


def _persist(change: Change) -> None:
    for directory, name, thing in change:
        if thing is None:
            directory.synced.pop(name, None)
        else:
            directory.synced[name] = thing


def _torn(file: File, random: Random) -> bytes:
    """What became of bytes that were not synced: all there, none, or some of them, or garbage where they belong."""
    rest = len(file.data) - len(file.synced)
    if not rest:
        return file.data
    match random.randrange(4):
        case 0:
            return file.synced
        case 1:
            return file.data
        case 2:
            return file.data[: len(file.synced) + random.randrange(rest)]
        case _:
            return file.synced + bytes(rest)


def _walk(directory: Directory, visit: Callable[[Directory], object]) -> None:
    visit(directory)
    for thing in directory.names.values():
        if isinstance(thing, Directory):
            _walk(thing, visit)
