"""All runs below one directory: their logs, and what they amount to.

::

    <root>/headgate-1/runs/<name>-<digest>/    one directory per run: name.json, epochs/
    <root>/headgate-1/learned.json             what any run learned last about the providers

Everything of the store is under the versioned name; what else is in the directory is nobody's business.

:class:`RunLogs` is the database that the writer thread writes to: what a transaction changes is applied to the index
first, under the rules of every store, then published to the log of the run as one entry, and only then committed to
the index. The log decides.
"""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from pydantic_core import to_json

from ..errors import ResultCorrupt, SchemaMismatch, StoreError, UnknownRun
from . import generations, rules, sqlite_records
from .codec import storable
from .disk import meaning_of
from .file_entry import Commits, Ended, Opening
from .run_index import RunIndex
from .run_log import RunLog

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Generator, Mapping
    from pathlib import Path

    from .disk import Disk
    from .ports import Batch, Durability

__all__ = ["RunLogs"]

_VERSION: Final = 1
_NAMESPACE: Final = re.compile(r"headgate-([0-9]+)")
_READABLE: Final = 80  # characters of a run's name in the name of its directory


class RunLogs:
    """The runs below ``root``, which is made if its parent exists. All calls come from one thread at a time."""

    def __init__(self, disk: Disk, root: Path, durability: Durability, clock: Callable[[], float]) -> None:
        self.path = root
        self._disk = disk
        self._home = root / f"headgate-{_VERSION}"
        self._durability = durability
        self._clock = clock
        self._index: RunIndex | None = None
        self._staged: list[Batch] = []
        self._ending: Ended | None = None
        self._subject: sqlite_records.Opened | None = None
        self._behind: set[str] = set()

    # What the writer thread calls

    def connection(self) -> sqlite3.Connection:
        """Return the connection to the index."""
        return self.index.connection

    def begin(self, *, writes: bool) -> None:
        """Begin a transaction, of one run."""
        self._staged, self._ending, self._subject = [], None, None
        self.connection().execute("BEGIN")

    def commit(self) -> None:
        """Publish what was staged, then end the transaction. Raises StoreError, sqlite3.Error."""
        subject = self._subject
        if subject is None:
            self.connection().execute("COMMIT")
            return
        # Until all of it has worked, the log may hold more than the index.
        self._behind.add(subject.info.run)
        with self._translated():
            self._publish(subject)
        self.connection().execute("COMMIT")
        self._behind.discard(subject.info.run)
        for batch in self._staged:
            if batch.learned is not None:
                self._keep_learned(batch.learned)

    def wrote(self, size: int) -> None:
        """Nothing has to be tidied."""

    def close(self) -> None:
        """Forget the index; everything is in the logs."""
        if self._index is not None:
            self._index.connection.close()
            self._index = None

    # What jobs do inside a transaction

    @property
    def index(self) -> RunIndex:
        """The index, made on first use."""
        if self._index is None:
            self._index = RunIndex(self._durability)
        return self._index

    def prepare(self) -> None:
        """Make the directory ready for writing, and try what will be needed there. Raises StoreError."""
        with self._translated():
            self._check_version()
            generations.make_dirs(self._disk, self._home / "runs", below=self.path.parent)
            generations.probe(self._disk, self._home)

    def open(self, run: str, fingerprints: Mapping[str, str]) -> sqlite_records.Opened:
        """Begin the next epoch of a run. Raises FingerprintMismatch and StoreError."""
        with self._translated():
            self._check_version()
            directory = self._directory(run)
            generations.make_dirs(self._disk, directory, below=self.path.parent)
            generations.publish(self._disk, directory / "name.json", generations.seal(to_json({"run": storable(run)})))
            log = self._log(run)
            while True:
                self.index.catch_up(run, log)
                self._check_fingerprints(run, fingerprints)
                opening = Opening(fingerprints, self._clock())
                place = log.begin(opening, self.index.place(run))
                if place is not None:
                    break
            opened = self.index.apply(run, opening, place[0], None)
            assert opened is not None
            self.index.move(run, place)
            return replace(opened, learned=self._learned(opened))

    def write(self, opened: sqlite_records.Opened, batch: Batch) -> None:
        """Stage a batch. Raises what :meth:`headgate.storage.ports.RunHandle.commit` names."""
        self._look_again(opened.info.run)
        try:
            sqlite_records.write_batch(self.connection(), opened, batch)
        except StoreError:
            self._check_latest(opened)  # that comes first: what is refused here may be right by now
            raise
        self._staged.append(batch)
        self._subject = opened

    def finish(self, opened: sqlite_records.Opened, status: str) -> None:
        """Stage the end of the run. Raises FencedOut."""
        self._look_again(opened.info.run)
        ending = Ended(status, self._clock())
        sqlite_records.finish(self.connection(), opened, status, ending.at)
        self._ending, self._subject = ending, opened

    def catch_up(self, run: str) -> None:
        """Read in what others have written about ``run``. Raises UnknownRun and StoreError."""
        with self._translated():
            self._check_version()
            self.index.catch_up(run, self._log(run))

    def _look_again(self, run: str) -> None:
        if run in self._behind and self._subject is None:
            self.catch_up(run)

    def _check_latest(self, opened: sqlite_records.Opened) -> None:
        run, epoch = opened.info.run, opened.info.epoch
        with self._translated():
            newest = max((epoch, *self._log(run).epochs()))
        if newest > epoch:
            raise rules.fenced_out(run, epoch, newest)

    def _publish(self, opened: sqlite_records.Opened) -> None:
        run, entries = opened.info.run, list[Commits | Ended]()
        if self._staged:
            entries.append(Commits(tuple(self._staged)))
        if self._ending is not None:
            entries.append(self._ending)
        log = self._log(run)
        for entry in entries:
            epoch, slot = place = self.index.place(run)
            assert epoch == opened.info.epoch, f"epoch {opened.info.epoch} writes to {epoch}"
            if not log.append(place, entry):
                raise rules.fenced_out(run, epoch, max((epoch + 1, *log.epochs())))
            self.index.move(run, (epoch, slot + 1))

    def _log(self, run: str) -> RunLog:
        return RunLog(self._disk, self._directory(run))

    def _directory(self, run: str) -> Path:
        digest = blake2b(run.encode("utf-8", "backslashreplace"), digest_size=8).hexdigest()
        readable = quote(run, safe=" ", errors="replace").replace(".", "%2E")[:_READABLE]
        return self._home / "runs" / f"{readable}-{digest}"

    def _check_fingerprints(self, run: str, fingerprints: Mapping[str, str]) -> None:
        try:
            stored = sqlite_records.opened(self.connection(), run, self._durability).info.fingerprints
        except UnknownRun:
            return
        rules.check_fingerprints(run, stored, fingerprints)

    def _check_version(self) -> None:
        try:
            names = self._disk.names(self.path)
        except FileNotFoundError:
            return
        versions = [int(found[1]) for name in names if (found := _NAMESPACE.fullmatch(name))]
        if versions and _VERSION not in versions:
            raise SchemaMismatch(
                f"{self.path} holds a store of version {max(versions)}, this headgate writes {_VERSION}: use the "
                "headgate that made it, or give the store another path"
            )

    def _learned(self, opened: sqlite_records.Opened) -> bytes | None:
        """What this run learned last, else what any did; nobody depends on it."""
        own = sqlite_records.own_learned(self.connection(), opened.number)
        if own is not None:
            return own
        path = self._home / "learned.json"
        with suppress(OSError, ResultCorrupt):
            return generations.unseal(self._disk.read(path), path)
        return None

    def _keep_learned(self, learned: bytes) -> None:
        with suppress(OSError):
            generations.put(self._disk, self._home / "learned.json", generations.seal(learned))

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise meaning_of(error, self.path) from error
