"""What a rejection that counts means to the concurrency law, and what the limit does about it.

It is a *measurement* if the limit asked for it by growing; *noise* if it is about as high as the last measurement; a
*cut* if it comes as a surprise; and the limit is *falling* while one rejection follows the other. Which ones count is
decided in :mod:`headgate.admission.concurrency`, where the theory of operation is.

Pure: ``now`` in seconds (monotonic).
"""

from __future__ import annotations

from math import floor
from typing import TYPE_CHECKING

from .law_values import CUT, FALL, Mode, Verdict
from .measurement import shared

if TYPE_CHECKING:
    from .ceiling import Ceiling
    from .measurement import Measurement
    from .probing import Probing

__all__ = ["Judge"]


class Judge:
    """Judges the rejections of one law, and moves its ceiling and its probes accordingly."""

    __slots__ = ("_ceiling", "_measurement", "_probing")

    def __init__(self, ceiling: Ceiling, probing: Probing, measurement: Measurement) -> None:
        self._ceiling = ceiling
        self._probing = probing
        self._measurement = measurement

    def rejected(self, others: int, now: float, *, consecutive: int, rejections: int, tau: float) -> Verdict:
        """A request was rejected that was sent with ``others`` in flight: the ``consecutive``-th in a row, of
        ``rejections`` in all. What is not rejected in ``tau`` seconds is accepted.
        """
        verdict = self._verdict(others, consecutive, tau, now)
        if verdict is Verdict.MEASURED:
            self._probing.ended(self._ceiling.mode, others, self._ceiling.level, rejections)
            self._measurement.level = others
            self._hold(others, now)
        elif verdict is Verdict.NOISE:
            self._hold(others, now)
        elif verdict is Verdict.CUT:
            self._cut(others, now)
        else:
            self._fall(float(floor(FALL * others)), others, Mode.FALL, now)
            self._probing.begin(rejections)
            self._probing.plan(self._ceiling.limit, now)
        return verdict

    def _verdict(self, others: int, consecutive: int, tau: float, now: float) -> Verdict:
        if self._ceiling.grows and consecutive == 1 and not self._probing.contended(now):
            return Verdict.MEASURED
        if self._measurement.explains(others, consecutive, tau=tau, now=now):
            return Verdict.NOISE
        return Verdict.CUT if consecutive == 1 else Verdict.FALLING

    def _hold(self, others: int, now: float) -> None:
        self._measurement.at = now
        self._ceiling.hold(others)
        self._probing.plan(self._ceiling.limit, now)

    def _cut(self, others: int, now: float) -> None:
        if self._probing.contended(now):
            if self._measurement.strange(others):
                self._probing.surprised(now)
            self._measurement.take(others, now)
            self._ceiling.hold(shared(others))
            self._probing.plan(others, now)
            return
        if self._ceiling.rests:
            self._probing.surprised(now)
            self._measurement.level = others
        self._fall(float(floor(CUT * others)), floor((1.0 + CUT) / 2.0 * others), Mode.HOLD, now)
        self._probing.plan(self._ceiling.limit, now)

    def _fall(self, limit: float, top: float, mode: Mode, now: float) -> None:
        ceiling = self._ceiling
        self._probing.fell(ceiling.limit, now)
        ceiling.cut(limit, top=top, span_s=self._probing.recovery_s(min(ceiling.limit, limit), now), mode=mode)
