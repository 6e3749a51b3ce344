"""Writing the finished rows of a run to a file: in row order, whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError
from ..storage.codec import decode, encode
from ..storage.ports import CellStatus, RunStore, StoredRow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["output_path", "read_results", "write_jsonl"]


def output_path(out: str | os.PathLike[str]) -> Path:
    """``out`` as a path that can be written to; ConfigError names what is wrong with it, before anything is spent."""
    path = Path(out)
    if path.suffix != ".jsonl":
        raise ConfigError(f"out={str(path)!r}: results are written as JSON lines; give it the ending .jsonl")
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigError(f"out={str(path)!r}: {'it is a folder' if path.is_dir() else 'its folder does not exist'}")
    if not os.access(path.parent, os.W_OK):
        raise ConfigError(f"out={str(path)!r}: its folder cannot be written to")
    return path


def read_results(store: RunStore, run: str, columns: tuple[str, ...]) -> Iterator[dict[str, object]]:
    """The rows in which each of ``columns`` is done or skipped: input fields first, then columns (None: skipped)."""
    for stored in store.read_rows(run):
        row = _whole_row(stored, columns)
        if row is not None:
            yield row


def write_jsonl(path: Path, rows: Iterator[Mapping[str, object]]) -> int:
    """Write ``rows`` to ``path`` through a temporary file beside it; returns how many. Blocks: use a thread."""
    count = 0
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            for row in rows:
                file.write(encode(row))
                file.write(b"\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)
    return count


def _whole_row(stored: StoredRow, columns: tuple[str, ...]) -> dict[str, object] | None:
    cells = {cell.column: cell for cell in stored.cells}
    row: dict[str, object] = dict(decode(stored.record.data))
    for column in columns:
        cell = cells.get(column)
        if cell is None or cell.status is CellStatus.FAILED:
            return None
        row[column] = None if cell.payload is None else decode(cell.payload)
    return row


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _sync_folder(folder: Path) -> None:
    # A rename is durable only once its folder is (T50).
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
