"""Sweeping a directory of runs: what ended long ago is dropped, logs are packed, what is left over is removed.

Nothing is judged by its age alone. A run is dropped by taking the slot after its last word, as an opening would:
whoever has opened it meanwhile, or still writes, has that slot, and the run stays. A file is left over if nothing can
refer to it any more. Only temporary files go by age, and a writer that misses one writes another. So any number of
sweepers, writers and readers may be at work, on any machines.

What is in the directory and not this store's is not looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..errors import ResultCorrupt
from . import sqlite_reads, sqlite_records, sqlite_sweep
from .file_entry import Dropped
from .ports import Swept

if TYPE_CHECKING:
    from collections.abc import Collection

    from .run_logs import RunLogs

__all__ = ["sweep"]

_TEMPORARY_S: Final = 3600.0


def sweep(logs: RunLogs, now: float, keep_s: float, statuses: Collection[str], spare: Collection[str] = ()) -> Swept:
    """Sweep all runs of ``logs``, whose index must be nobody else's, but those to ``spare``.

    What is damaged is left as it is. ``now`` and the ends of runs are wall-clock seconds. Raises StoreError.
    """
    dropped: list[str] = []
    removed = logs.tidy(_TEMPORARY_S)
    for run in logs.runs():
        try:
            with logs.translated():
                if run not in spare and _drop(logs, run, now, keep_s, statuses):
                    dropped.append(run)
            removed += logs.tidy_run(run, _TEMPORARY_S)
        except ResultCorrupt:
            continue  # evidence, for whoever reads it
    return Swept(tuple(dropped), removed)


def _drop(logs: RunLogs, run: str, now: float, keep_s: float, statuses: Collection[str]) -> bool:
    """Drop the run if it is time."""
    ended = logs.log(run).ended()
    if ended is None or ended.status not in statuses or ended.at > now - keep_s:
        return False
    logs.catch_up(run)
    if run not in sqlite_sweep.ended(logs.connection(), now - keep_s, statuses):
        return False
    opened = sqlite_records.opened(logs.connection(), run, logs.durability)
    learned = sqlite_reads.own_learned(logs.connection(), opened.number)
    return logs.log(run).begin(Dropped(now, learned), logs.index.place(run)) is not None
