"""What the fields of events mean, and events as plain values."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Final

from .kinds import EVENTS

if TYPE_CHECKING:
    from .kinds import Event

__all__ = ["FIELDS", "as_dict"]

FIELDS: Final = {
    "action": "`restart`, `quarantine`, `told_to_stop`, `budget_exhausted`, or `finished` by another replica",
    "accepted": "rows that were taken in",
    "at": "wall-clock seconds since 1970",
    "attempts": "attempts that reached the provider and count; pressure costs none",
    "basis": "on what it was decided: see the pages on restarts",
    "column": "name of the column",
    "columns": "names of the columns, in the order of the pipeline",
    "count": "how many",
    "cycle": "number of the life in the record of restarts, from 1; replicas share it",
    "destination": "where it goes, as it was added",
    "done": "rows that are done",
    "epoch": "which opening of the run this is, from 1",
    "error": "type and message of what broke the run",
    "failed": "rows in which a cell failed",
    "grace_s": "seconds that what is in flight has to end",
    "group": "number of the row group, from 0, in this life of the run; None for a task of one row",
    "held": "rows left for a later run",
    "in_flight": "requests of this run on the resource now",
    "input_tokens": "tokens that were read, as far as they were reported",
    "key": "of the delivery, the same at each attempt",
    "lease": "number of the lease: one for each attempt, within one engine",
    "limit": "concurrency limit now, in requests; None if there is none",
    "lives": "lives of the run until now",
    "message": "for people",
    "outcome": "`done`, `failed`, `skipped` or `held`, of a delivery `gone` or `rejected`, of a request an `Outcome`",
    "output_tokens": "tokens that were written, as far as they were reported",
    "pace": "what sets the speed, in the words of the report",
    "reason": "failure kind, cause of a bad end, or why it was skipped; else empty",
    "records": "rows, cells and other records of one commit",
    "resource": "`provider/model[:domain]`; None for local work",
    "restored": "whether an earlier run had finished it",
    "retry_in_s": "seconds until it is tried again",
    "row": "position of the row, from 0; None for a group task",
    "row_id": "the row's own name",
    "rows": "rows that the task is about",
    "run": "name of the run",
    "seconds": "how long it took, or will take",
    "skipped": "rows that needed nothing",
    "status": "of a run as in its report, or `failed` if something broke it; of a row `done`, `failed` or `skipped`",
    "waited_s": "seconds in the local queue",
}
"""What each field means, whatever the kind."""


def as_dict(event: Event) -> dict[str, object]:
    """``event`` as plain values, ``kind`` first."""
    names = _NAMES[type(event)]
    return {"kind": event.kind, **{name: getattr(event, name) for name in names}}


_NAMES: Final = {one: tuple(field.name for field in fields(one)) for one in EVENTS}
