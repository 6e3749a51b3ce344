"""Keeping what admission learned with the run, so that a resumed run begins where this one was; and what became of it
so far, so that a report shows it.

Decides when it is written: a little after the start, then about each minute with a commit that is made anyway, and at
the end. A crash loses what was learned since then, which is little. Serialises it, and stamps it with the wall-clock
time, because it is read in another life; what makes no sense there is as good as never written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import anyio

from ..admission.memory_plain import from_plain, to_plain
from ..storage.codec import decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..admission.controller import AdmissionController
    from .recording import Recorder

__all__ = ["EVERY_S", "FIRST_S", "Keeper", "begin_with"]

FIRST_S = 10.0
EVERY_S = 60.0
"""Limits are found within seconds and change over minutes. A record costs about as much as some cells."""

UNKNOWN_AGE_S = 7 * 86_400.0
"""What a clock that went backwards dates to the future may be of any age: it counts as old."""


class Keeper:
    """Says when what was learned is to be written, and what that is: no figures without a ``recorder``."""

    __slots__ = ("_controller", "_due_at", "_recorder", "_wall_clock")

    def __init__(
        self,
        controller: AdmissionController,
        wall_clock: Callable[[], float],
        now: float,
        recorder: Recorder | None = None,
    ) -> None:
        self._controller = controller
        self._recorder = recorder
        self._wall_clock = wall_clock
        self._due_at = now + FIRST_S

    def due(self) -> bytes | None:
        """The record to write with a commit that is made now; None if it is too early, or there is nothing."""
        now = anyio.current_time()
        if now < self._due_at:
            return None
        self._due_at = now + EVERY_S
        return self.last()

    def last(self) -> bytes | None:
        """The record as of now; None if nothing was learned and there are no figures."""
        learned, wall_now = self._controller.learned(), self._wall_clock()
        if self._recorder is None:
            return encode({"at": wall_now, "learned": to_plain(learned)}) if learned else None
        figures = self._recorder.record(anyio.current_time(), wall_now)
        return encode({"at": wall_now, "learned": to_plain(learned), "figures": figures})


def begin_with(controller: AdmissionController, record: bytes | None, wall_now: float) -> list[str]:
    """Let ``controller`` begin with an earlier record, in scopes that it has not used yet. Returns their names.

    Never raises for what the record holds.
    """
    if record is None:
        return []
    try:
        plain: object = decode(record)
    except ValueError:
        return []
    if not isinstance(plain, dict):
        return []
    found = cast("Mapping[str, object]", plain)
    at = found.get("at")
    age_s = wall_now - at if isinstance(at, (int, float)) and 0 <= at <= wall_now else UNKNOWN_AGE_S
    return controller.restore(from_plain(found.get("learned")), age_s=min(age_s, UNKNOWN_AGE_S))
