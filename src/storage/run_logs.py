"""All runs below one directory: their logs, and what they amount to.

::

    <root>/headgate-1/runs/<name>-<digest>/    one directory per run: name.json, segments/
    <root>/headgate-1/payloads/                large payloads, by the name of the run's directory
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

from pydantic_core import from_json, to_json

from ..errors import ResultCorrupt, ResultExpired, SchemaMismatch, StoreError, UnknownRun
from ..values import writable
from . import generations, rules, sqlite_reads, sqlite_records, sqlite_sweep
from .disk import meaning_of
from .file_entry import Commits, Continued, Dropped, Ended, Opening
from .file_registers import FileRegisters
from .payload_files import PayloadFiles
from .run_index import RunIndex
from .run_log import RunLog

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Generator, Mapping
    from pathlib import Path

    from .disk import Disk
    from .ports import Batch, Durability
    from .run_log import Place

__all__ = ["PACK_AFTER", "RunLogs", "is_store_directory"]

_VERSION: Final = 1
_NAMESPACE: Final = re.compile(r"headgate-([0-9]+)")
_READABLE: Final = 80  # characters of a run's name in the name of its directory
_SEGMENT_BYTES: Final = 16 * 1024 * 1024

PACK_AFTER: Final = 512
"""Commits after which a log goes on in another segment, and the one before is packed into one file."""


def is_store_directory(path: Path) -> bool:
    """Whether there is a directory with a store in it, of whatever version. Raises StoreError."""
    try:
        return any(_NAMESPACE.fullmatch(one.name) for one in path.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise meaning_of(error, path) from error


class RunLogs:
    """The runs below ``root``, which is made if its parent exists. All calls come from one thread at a time."""

    def __init__(
        self,
        disk: Disk,
        root: Path,
        durability: Durability,
        clock: Callable[[], float],
        *,
        pack_after: int = PACK_AFTER,
    ) -> None:
        self.path = root
        self._disk = disk
        self._home = root / f"headgate-{_VERSION}"
        self.payloads = PayloadFiles(disk, self._home / "payloads", below=root.parent)
        self.registers = FileRegisters(disk, self._home / "registers", below=root.parent)
        self.durability = durability
        self._clock = clock
        self._pack_after = pack_after
        self._bytes: dict[str, int] = {}  # written to the segment of a run, about
        self._index: RunIndex | None = None
        self._staged: list[Batch] = []
        self._ending: Ended | None = None
        self._subject: sqlite_records.Opened | None = None
        self._behind: set[str] = set()
        self._sealed: str | None = None  # the run that was written to, if it has begun a new segment

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
        with self.translated():
            self._publish(subject)
        self.connection().execute("COMMIT")
        self._behind.discard(subject.info.run)
        for batch in self._staged:
            if batch.learned is not None:
                self._keep_learned(batch.learned)

    def wrote(self, size: int) -> None:
        """Count what was written, and pack the log of the run if a segment of it has been sealed."""
        subject, self._subject = self._subject, None
        if subject is None:
            return
        run = subject.info.run
        self._bytes[run] = self._bytes.get(run, 0) + size
        if self._sealed == run:
            self._sealed, self._bytes[run] = None, 0
            with suppress(OSError, ResultCorrupt):  # a sweep will do it
                self.log(run).pack()

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
            self._index = RunIndex(self.durability)
        return self._index

    def prepare(self) -> None:
        """Make the directory ready for writing, and try what will be needed there. Raises StoreError."""
        with self.translated():
            self._check_version()
            generations.make_dirs(self._disk, self._home / "runs", below=self.path.parent)
            generations.probe(self._disk, self._home)

    def open(
        self, run: str, fingerprints: Mapping[str, str], *, renewed: Collection[str] = (), kept: Collection[str] = ()
    ) -> sqlite_records.Opened:
        """Begin a higher epoch of a run. Raises FingerprintMismatch and StoreError."""
        unchanged = {name: mark for name, mark in fingerprints.items() if name not in renewed and name not in kept}
        with self.translated():
            self._check_version()
            directory = self._directory(run)
            generations.make_dirs(self._disk, directory, below=self.path.parent)
            generations.publish(self._disk, directory / "name.json", generations.seal(to_json({"run": writable(run)})))
            log = self.log(run)
            while True:
                self.index.catch_up(run, log)
                self._check_fingerprints(run, unchanged)
                opening = Opening(fingerprints, self._clock(), tuple(renewed), tuple(kept))
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
        with self.translated():
            self._check_version()
            self.index.catch_up(run, self.log(run))

    def _look_again(self, run: str) -> None:
        if run in self._behind and self._subject is None:
            self.catch_up(run)

    def _check_latest(self, opened: sqlite_records.Opened) -> None:
        run, epoch = opened.info.run, opened.info.epoch
        with self.translated():
            newest = self._newest(run)
        if newest > epoch:
            raise rules.fenced_out(run, epoch, newest)

    def _newest(self, run: str) -> int:
        """The epoch that began last, of those that the index does not know yet; 0 if none has."""
        after = self.log(run).read(self.index.place(run))
        return max((place[0] for place, entry in after if isinstance(entry, Opening | Dropped)), default=0)

    def _publish(self, opened: sqlite_records.Opened) -> None:
        run, entries = opened.info.run, list[Commits | Ended]()
        if self._staged:
            entries.append(Commits(tuple(self._staged)))
        if self._ending is not None:
            entries.append(self._ending)
        log = self.log(run)
        for entry in entries:
            end = self.index.place(run)
            place: Place | None = end
            if self._is_full(run, end):
                place, self._sealed = log.begin(Continued(), end), run
            if place is None or not log.append(place, entry):
                raise rules.fenced_out(run, opened.info.epoch, max(opened.info.epoch + 1, self._newest(run)))
            self.index.move(run, (place[0], place[1] + 1))

    def _is_full(self, run: str, place: Place) -> bool:
        """Whether the log has to go on in another segment.

        So it has if somebody sealed it who wanted to open the run and has not done so yet: whoever is first, has it.
        """
        return not 0 < place[1] < self._pack_after or self._bytes.get(run, 0) > _SEGMENT_BYTES

    # What a sweep asks for

    def runs(self) -> list[str]:
        """The runs that there are, by the names that their directories hold."""
        with self.translated():
            return [run for directory in self._names("runs") if (run := self._named(directory)) is not None]

    def tidy(self, older_than_s: float) -> int:
        """Remove temporary files that old and belong to no run; return how many."""
        with self.translated():
            return generations.remove_temporary(self._disk, self._home, older_than_s) if self._names("") else 0

    def tidy_run(self, run: str, older_than_s: float) -> int:
        """Pack the log of a run, and remove what nothing refers to; return how many files."""
        with self.translated():
            log = self.log(run)
            return log.clear() + log.pack() + log.temporaries(older_than_s) + self._tidy_payloads(run, older_than_s)

    def key(self, run: str) -> str:
        """The name of the run's directory, which also its payloads go by."""
        return self._directory(run).name

    def _tidy_payloads(self, run: str, older_than_s: float) -> int:
        key, removed = self.key(run), 0
        if self.payloads.has_files(key):
            self.catch_up(run)
            number, epoch = sqlite_sweep.epoch_of(self.connection(), run)
            left = self.payloads.leftovers(key, epoch)
            removed = self.payloads.remove(sqlite_reads.unreferenced(self.connection(), number, left))
        return removed + self.payloads.remove_temporary(key, older_than_s)

    def log(self, run: str) -> RunLog:
        """The log of a run."""
        return RunLog(self._disk, self._directory(run))

    def _names(self, below: str) -> list[str]:
        try:
            return self._disk.names(self._home / below)
        except FileNotFoundError:
            return []

    def _named(self, directory: str) -> str | None:
        """The run whose directory that is; None if it is nobody's."""
        path = self._home / "runs" / directory / "name.json"
        with suppress(FileNotFoundError, NotADirectoryError, ResultCorrupt):
            run = str(from_json(generations.unseal(self._disk.read(path), path))["run"])
            return run if self._directory(run).name == directory else None
        return None

    def _directory(self, run: str) -> Path:
        run = writable(run)
        digest = blake2b(run.encode(), digest_size=8).hexdigest()
        readable = quote(run, safe=" ").replace(".", "%2E")[:_READABLE]
        return self._home / "runs" / f"{readable}-{digest}"

    def _check_fingerprints(self, run: str, fingerprints: Mapping[str, str]) -> None:
        try:
            stored = sqlite_records.opened(self.connection(), run, self.durability).info.fingerprints
        except (UnknownRun, ResultExpired):
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
        own = sqlite_reads.own_learned(self.connection(), opened.number)
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
    def translated(self) -> Generator[None]:
        """Let an OSError inside be the StoreError that it amounts to."""
        try:
            yield
        except OSError as error:
            raise meaning_of(error, self.path) from error
