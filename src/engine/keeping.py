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
from ..prices.account import account_from, account_to
from ..storage.codec import decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..admission.controller import AdmissionController
    from ..prices.account import Account
    from ..storage.ports import RunInfo
    from .recording import Recorder
    from .spending import Spending

__all__ = ["EVERY_S", "FIRST_S", "Keeper", "account_before", "begin_with", "kept"]

FIRST_S = 10.0
EVERY_S = 60.0
"""Limits are found within seconds and change over minutes. A record costs about as much as some cells."""

UNKNOWN_AGE_S = 7 * 86_400.0
"""What a clock that went backwards dates to the future may be of any age: it counts as old."""


class Keeper:
    """Says when what was learned is to be written, and what that is: no figures without a ``recorder``.

    What ``run`` has spent stands beside it. Where there is a budget, it is also written when a hundredth of that was
    spent: a crash makes a run forget no more.
    """

    __slots__ = ("_controller", "_due_at", "_recorder", "_run", "_spending", "_wall_clock")

    def __init__(
        self,
        controller: AdmissionController,
        wall_clock: Callable[[], float],
        now: float,
        recorder: Recorder | None = None,
        *,
        run: RunInfo | None = None,
        spending: Spending | None = None,
    ) -> None:
        self._run = run
        self._spending = spending
        self._controller = controller
        self._recorder = recorder
        self._wall_clock = wall_clock
        self._due_at = now + FIRST_S

    def due(self) -> bytes | None:
        """The record to write with a commit that is made now; None if it is too early, or there is nothing."""
        now = anyio.current_time()
        if now < self._due_at and not (self._spending is not None and self._spending.unkept):
            return None
        self._due_at = now + EVERY_S
        return self.last()

    def last(self) -> bytes | None:
        """The record as of now; None if nothing was learned, there are no figures and no account is kept."""
        learned, wall_now, spending = self._controller.learned(), self._wall_clock(), self._spending
        if not learned and self._recorder is None and spending is None:
            return None
        record: dict[str, object] = {"at": wall_now, "learned": to_plain(learned)}
        if self._recorder is not None:
            record["figures"] = self._recorder.record(anyio.current_time(), wall_now)
        if spending is not None and self._run is not None:
            record["spent"] = account_to(spending.account, self._run.run, self._run.created_at)
            spending.kept()
        return encode(record)


def begin_with(controller: AdmissionController, record: bytes | None, wall_now: float) -> list[str]:
    """Let ``controller`` begin with an earlier record, in scopes that it has not used yet. Returns their names.

    Never raises for what the record holds.
    """
    found = kept(record)
    if not found:
        return []
    at = found.get("at")
    age_s = wall_now - at if isinstance(at, (int, float)) and 0 <= at <= wall_now else UNKNOWN_AGE_S
    return controller.restore(from_plain(found.get("learned")), age_s=min(age_s, UNKNOWN_AGE_S))


def account_before(record: bytes | None, run: RunInfo) -> Account:
    """What earlier lives of ``run`` spent. The record may be that of another run, which is no concern of this one."""
    return account_from(kept(record).get("spent"), run.run, run.created_at)


def kept(record: bytes | None) -> Mapping[str, object]:
    """What stands in ``record``; nothing if it makes no sense."""
    try:
        plain: object = {} if record is None else decode(record)
    except ValueError:
        return {}
    return cast("Mapping[str, object]", plain) if isinstance(plain, dict) else {}
