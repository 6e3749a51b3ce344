"""One run of a store to a file, with all that is not finished in another one beside it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio.to_thread

from ..errors import ConfigError
from ..reports import as_json, as_markdown, read_report
from ..storage.codec import encode
from ..storage.ports import RUNNING
from .files import Replacement, sync_folder
from .html import write_html
from .jsonl import write_jsonl
from .parquet import load_pyarrow, write_parquet
from .rows import read_results, unfinished, whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..storage.ports import RunStore

__all__ = ["Export", "RunResults", "aexport_run", "export_run", "output_path"]

_WRITERS: Final = {".jsonl": write_jsonl, ".parquet": write_parquet}


@dataclass(frozen=True, slots=True)
class Export:
    """What was written: ``rows`` whole rows to ``path``, ``unfinished`` others to ``unfinished_path``.

    ``unfinished_path`` is None if every row was whole; then there is no such file, an older one is removed.
    """

    path: Path
    rows: int
    unfinished: int
    unfinished_path: Path | None


def output_path(out: str | os.PathLike[str]) -> Path:
    """``out`` as a path that can be written to; ConfigError names what is wrong with it, before anything is spent."""
    path = Path(out)
    if path.suffix not in _WRITERS:
        raise ConfigError(
            f"out={str(path)!r}: results are written as JSON lines or as Parquet; give it the ending .jsonl or .parquet"
        )
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigError(f"out={str(path)!r}: {'it is a folder' if path.is_dir() else 'its folder does not exist'}")
    if not os.access(path.parent, os.W_OK):
        raise ConfigError(f"out={str(path)!r}: its folder cannot be written to")
    if path.suffix == ".parquet":
        load_pyarrow()
    return path


def export_run(
    store: RunStore, run: str, out: str | os.PathLike[str], *, columns: Sequence[str] | None = None
) -> Export:
    """Write the whole rows of ``run`` to ``out`` (.jsonl or .parquet), in the order of the rows.

    A row is whole if each of ``columns`` (default: all that the run has) is done or skipped: input fields first,
    then columns, None where skipped. All others go to ``<name>.unfinished.jsonl`` beside it, with their status
    (``failed``, ``held``, or ``pending`` while the run goes on) and the reason for each cell. Each file is replaced
    as a whole or not at all; memory holds some rows at a time. Blocks: see :func:`aexport_run`. Raises ConfigError
    for ``out`` or a column that the run does not have, UnknownRun, ResultCorrupt, ResultExpired, and OSError if the
    disk does not play along.
    """
    path = output_path(out)
    known = tuple(store.read_info(run).fingerprints)
    wanted = known if columns is None else tuple(columns)
    if strange := [name for name in wanted if name not in known]:
        raise ConfigError(f"run {run!r} has no column {strange[0]!r}; it has {', '.join(known) or 'none'}")
    side = path.with_name(f"{path.stem}.unfinished.jsonl")
    rest = _Rest(side)
    try:
        rows = _WRITERS[path.suffix](path, rest.sifted(store, run, wanted))
        rest.publish()
    finally:
        rest.discard()
    return Export(path, rows, rest.count, side if rest.count else None)


async def aexport_run(
    store: RunStore, run: str, out: str | os.PathLike[str], *, columns: Sequence[str] | None = None
) -> Export:
    """:func:`export_run` in a worker thread. Once begun it goes on to its end, also if the caller is cancelled."""
    return await anyio.to_thread.run_sync(partial(export_run, store, run, out, columns=columns))


@dataclass(frozen=True, slots=True)
class RunResults:
    """The results of one run, wherever its store keeps them."""

    store: RunStore
    run: str
    columns: tuple[str, ...]

    def read(self) -> Iterator[dict[str, object]]:
        """The whole rows: see :func:`read_results`. Blocks."""
        return read_results(self.store, self.run, self.columns)

    def export(self, out: str | os.PathLike[str]) -> Export:
        """Write them to a file: see :func:`export_run`. Blocks."""
        return export_run(self.store, self.run, out, columns=self.columns)

    def write_html(self, out: str | os.PathLike[str]) -> None:
        """Write a page about the run: see :func:`write_html`. Blocks."""
        write_html(read_report(self.store, self.run), out)

    def to_markdown(self) -> str:
        """What became of the run, as Markdown. Blocks."""
        return as_markdown(read_report(self.store, self.run))

    def to_json(self) -> str:
        """What became of the run, as JSON. Blocks."""
        return as_json(read_report(self.store, self.run))


class _Rest:
    """The rows that are not whole, on their way into the file beside."""

    def __init__(self, path: Path) -> None:
        self.count = 0
        self._path = path
        self._replacement: Replacement | None = None

    def sifted(self, store: RunStore, run: str, columns: tuple[str, ...]) -> Iterator[dict[str, object]]:
        """The whole rows; the others are written on the way."""
        ended = store.read_info(run).status != RUNNING
        for stored in store.read_rows(run):
            row = whole(stored, columns)
            if row is not None:
                yield row
                continue
            if self._replacement is None:
                self._replacement = Replacement(self._path)
            self._replacement.file.write(encode(unfinished(stored, columns, ended=ended)) + b"\n")
            self.count += 1

    def publish(self) -> None:
        """Let the file take its place; without such rows, remove an older one that no longer tells the truth."""
        if self._replacement is not None:
            self._replacement.publish()
        elif self._path.exists():
            self._path.unlink()
            sync_folder(self._path.parent)

    def discard(self) -> None:
        """Leave no temporary file."""
        if self._replacement is not None:
            self._replacement.discard()
