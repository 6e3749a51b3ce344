"""Files that are written once: each is complete and lasting under its name, or not there.

A file is written under a temporary name in the same directory, synced, linked to its own name, and the directory is
synced (T50). ``link`` is also the decision between writers: of several who want a name one gets it, on every machine
that shares the directory. Nothing is changed afterwards, so a reader never sees half a file; a checksum finds what
the disk itself has spoilt.

What a crash leaves behind are temporary names, which nobody reads; a sweep removes those that are old.
"""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from ..errors import ResultCorrupt, StoreUnsupported
from .disk import meaning_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from .disk import Disk

__all__ = [
    "from_pack",
    "is_temporary",
    "make_dirs",
    "probe",
    "publish",
    "put",
    "remove_temporary",
    "seal",
    "to_pack",
    "unseal",
]

_DIGEST_BYTES: Final = 16
_TRIES: Final = 3
_TEMPORARY: Final = re.compile(r"\.tmp-[0-9a-f]{16}")


def is_temporary(name: str) -> bool:
    """Whether a file of that name was being written, by this library."""
    return _TEMPORARY.fullmatch(name) is not None


def seal(data: bytes) -> bytes:
    """Return ``data`` with its checksum before it."""
    return blake2b(data, digest_size=_DIGEST_BYTES).digest() + data


def unseal(sealed: bytes, path: Path) -> bytes:
    """Return the data. Raises ResultCorrupt if the checksum says that it is not what was written."""
    data = sealed[_DIGEST_BYTES:]
    if len(sealed) < _DIGEST_BYTES or blake2b(data, digest_size=_DIGEST_BYTES).digest() != sealed[:_DIGEST_BYTES]:
        raise ResultCorrupt(f"{path} does not match its checksum: restore it from a copy")
    return data


def to_pack(parts: Sequence[bytes]) -> bytes:
    """Return several files as one; each keeps its own checksums."""
    numbers = (len(parts), *map(len, parts))
    return b"".join((seal(b"".join(number.to_bytes(8, "big") for number in numbers)), *parts))


def from_pack(data: bytes, path: Path) -> list[bytes]:
    """Return the files in a pack. Raises ResultCorrupt if it does not say where they are."""
    many = int.from_bytes(data[_DIGEST_BYTES : _DIGEST_BYTES + 8], "big")
    at = _DIGEST_BYTES + 8 * (many + 1)
    lengths = memoryview(unseal(data[:at], path))[8:]
    parts: list[bytes] = []
    for place in range(many):
        length = int.from_bytes(lengths[8 * place : 8 * place + 8], "big")
        parts.append(data[at : at + length])
        at += length
    return parts


def publish(disk: Disk, path: Path, data: bytes) -> bool:
    """Let ``path`` be a file with ``data``, lasting on return. False, and nothing changed, if the name is taken.

    Raises OSError. The file may be there all the same then; nobody was told so.
    """
    for _ in range(_TRIES - 1):
        # A sweep that takes the temporary file away from a writer that was paused for long costs a second try.
        with suppress(FileNotFoundError):
            return _publish(disk, path, data)
    return _publish(disk, path, data)


def _publish(disk: Disk, path: Path, data: bytes) -> bool:
    temporary = _write_temporary(disk, path, data)
    try:
        taken = not _link(disk, temporary, path)
    finally:
        _forget(disk, temporary)
    if not taken:
        disk.sync_dir(path.parent)
    return not taken


def remove_temporary(disk: Disk, directory: Path, older_than_s: float) -> int:
    """Remove the temporary files in ``directory`` that were begun so long ago, by the file system's own clock.

    Returns how many. A writer that is that slow writes another one.
    """
    try:
        names = [name for name in disk.names(directory) if is_temporary(name)]
    except NotADirectoryError:
        return 0  # somebody else's file
    if not names:
        return 0
    now = _write_temporary(disk, directory / "now", b"")
    try:
        old = [path for name in names if _age_s(disk, path := directory / name, now) >= older_than_s]
    finally:
        _forget(disk, now)
    for path in old:
        _forget(disk, path)
    return len(old)


def _age_s(disk: Disk, path: Path, now: Path) -> float:
    try:
        return disk.changed_at(now) - disk.changed_at(path)
    except FileNotFoundError:
        return 0.0  # its writer has just removed it


def put(disk: Disk, path: Path, data: bytes, *, lasting: bool = True) -> None:
    """Let ``path`` be a file with ``data``, whatever was there. Raises OSError.

    Its bytes last, if they have to, but not its name: that is there for good once the directory was synced.
    """
    for _ in range(_TRIES - 1):
        with suppress(FileNotFoundError):  # as in publish()
            return disk.rename(_write_temporary(disk, path, data, lasting=lasting), path)
    return disk.rename(_write_temporary(disk, path, data, lasting=lasting), path)


def make_dirs(disk: Disk, path: Path, *, below: Path, lasting: bool = True) -> None:
    """Let the directories from ``below``, which exists, down to ``path`` be there. Raises OSError."""
    chain = [path, *path.parents]
    for directory in reversed(chain[: chain.index(below)]):
        with suppress(FileExistsError):
            disk.make_dir(directory)
        if lasting:
            disk.sync_dir(directory.parent)  # also if it was there: whoever made it may not have come to this


def probe(disk: Disk, directory: Path) -> None:
    """Try in ``directory`` every operation that a store needs. Raises StoreError that names the one that is missing."""
    name = directory / f".probe-{secrets.token_hex(8)}"
    tries: tuple[tuple[str, Callable[[], None]], ...] = (
        ("make, write and sync a file", lambda: _write(disk, name.with_suffix(".a"), b"probe")),
        ("give a file a second name (a hard link)", lambda: disk.link(name.with_suffix(".a"), name.with_suffix(".b"))),
        ("rename a file", lambda: disk.rename(name.with_suffix(".b"), name.with_suffix(".c"))),
        ("sync a directory", lambda: disk.sync_dir(directory)),
    )
    try:
        for what, act in tries:
            try:
                act()
            except OSError as error:
                raise _missing(error, directory, what) from error
        try:
            disk.link(name.with_suffix(".a"), name.with_suffix(".c"))
        except FileExistsError:
            return
        raise StoreUnsupported(f"{directory}: a name can be taken twice here: put the store on another file system")
    finally:
        for suffix in (".a", ".b", ".c"):
            _forget(disk, name.with_suffix(suffix))


def _missing(error: OSError, directory: Path, what: str) -> Exception:
    meaning = meaning_of(error, directory)
    return type(meaning)(f"{meaning}; the store must be able to {what} here")


def _forget(disk: Disk, path: Path) -> None:
    with suppress(OSError):
        disk.remove(path)


def _write_temporary(disk: Disk, path: Path, data: bytes, *, lasting: bool = True) -> Path:
    temporary = path.with_name(f".tmp-{secrets.token_hex(8)}")
    try:
        _write(disk, temporary, data, lasting=lasting)
    except BaseException:
        _forget(disk, temporary)
        raise
    return temporary


def _write(disk: Disk, path: Path, data: bytes, *, lasting: bool = True) -> None:
    file = disk.create(path)
    try:
        left = memoryview(data)
        while left:
            left = left[disk.write(file, left) :]
        if lasting:
            disk.sync(file)
    finally:
        disk.close(file)


def _link(disk: Disk, temporary: Path, path: Path) -> bool:
    try:
        disk.link(temporary, path)
    except FileExistsError:
        # A server may have done it, and lost its answer: the client's second try then finds the name taken.
        return disk.same(temporary, path)
    return True
