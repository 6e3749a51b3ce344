"""Poison or outage? One lane's evidence, and its circuit breaker.

Decides whether (nearly) all on the lane fail, when one request may probe, and when the lane is well again. It
does not decide about any task. Prior art: the circuit breaker (Nygard, "Release It!"), run tests for
randomness. What is unlike the usual breaker:

* Only *distinct* tasks without a record count towards an outage. One bad task that is tried eight times says
  nothing of the lane, nor does one that is known to fail while others succeed.
* **A success speaks for the time at which its request was sent**, not for the time at which it was answered.
  What was sent before the trouble began may still be answered well in the middle of it. And a fault is
  contradicted only by the success of a request that was sent no earlier.
* Faults are numbered by *spell*: a spell begins with the first fault and ends with a success that contradicts
  it. When a spell turns out to be an outage, its faults are held against nobody; each task finds that out
  when it is next looked at, and no task has to be searched for.
* An outage can be overturned: if as many requests as it took to call it, sent at the same time as the failed
  ones, come back well after all, it was none.
"""

from __future__ import annotations

from collections import deque
from math import inf, log10
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

    from ..values import Rng

    K = TypeVar("K", bound=Hashable)
else:
    K = TypeVar("K")

__all__ = ["Breaker"]

_DECAY: Final = 31 / 32
"""Weight of older results in the lane's success share: about the last 32 count."""
_HEALTHY: Final = 0.5
"""Share of successes below which failing is what this lane does."""
_SPELLS_KEPT: Final = 64
"""Outages remembered. A task that sleeps through more of them is charged with one fault too many."""
_JITTER: Final = 0.25
"""Share by which each pause varies, so that processes with one provider do not probe in step."""
_MAX_LEVEL: Final = 30


class Breaker(Generic[K]):
    """Closed: all may go. Open until ``opens_at``: none. Then one probe at a time until one is answered."""

    def __init__(self, *, outage_min: int, probe_base_s: float, probe_cap_s: float, rng: Rng) -> None:
        self._outage_min = outage_min
        self._base_s = probe_base_s
        self._cap_s = probe_cap_s
        self._rng = rng
        self.is_open = False
        self.opens_at = -inf
        self.probing = False
        self._probe: K | None = None
        self._level = 0
        self._tripped_at = -inf
        self._doubts = 0
        self.trips = 0
        self.good_at = -inf
        """When the latest-sent request was sent that was answered well; -inf if none ever was."""
        self.successes = 0
        self.results = 0
        """Answers that weigh in the share of successes."""
        self.spell = 0
        self.run = 0
        """Distinct tasks without a record that failed in the current spell."""
        self._in_spell = False
        self._spell_sent_at = -inf
        self.spell_began_at = -inf
        self._good = 0.0
        self._bad = 0.0
        self._streak = 0
        self._outages: deque[int] = deque(maxlen=_SPELLS_KEPT)

    def fault(
        self, task: K, now: float, *, sent_at: float, last_fault_at: float = -inf, has_record: bool = False
    ) -> float | None:
        """Note a provider fault. Return the end of the pause that begins with it, None if none does.

        ``last_fault_at`` is when the task failed before, ``has_record`` whether it did so while others
        succeeded.
        """
        if self.is_open:
            return self._probe_failed(now, grow=not has_record) if self._is_probe(task) else None
        repeated = self._in_spell and last_fault_at >= self.spell_began_at
        if not self._in_spell:
            self._in_spell, self._spell_sent_at, self.spell_began_at = True, sent_at, now
            self.spell += 1
        if repeated:
            return None
        self._streak = 0
        self.results += 1
        self._good *= _DECAY
        self._bad = self._bad * _DECAY + 1.0
        if has_record:
            return None
        self.run += 1
        return self._trip(now) if self.run >= self._outage_min else None

    def pressed(self, task: K, now: float) -> float | None:
        """Note that the task met pressure. A probe that did proved neither: the same pause once more."""
        return self._pause(now) if self.is_open and self._is_probe(task) else None

    def worked(self, task: K, now: float, sent_at: float | None) -> bool:
        """Note an answer that shows the provider working. Return whether that ended an outage.

        ``sent_at`` None means unknown, and is then taken to be ``now``, except for ending an outage early.
        """
        evidence_at = now if sent_at is None else sent_at
        if evidence_at > self.good_at:
            self.good_at = evidence_at
        self.successes += 1
        self.results += 1
        self._good = self._good * _DECAY + 1.0
        self._bad *= _DECAY
        if self.is_open:
            return self._close() if self._ends_outage(task, now, sent_at) else False
        self._streak += 1
        if self._streak >= self._outage_min:
            self._level = 0
        if evidence_at >= self._spell_sent_at:
            self._in_spell, self.run = False, 0
        return False

    def probe_sent(self, task: K | None, now: float) -> None:
        """One request is on its way (or about to be) to see whether the lane is back. None: unknown whose."""
        if self.is_open and now >= self.opens_at:
            self.probing, self._probe = True, task

    def probe_lost(self, task: K) -> None:
        """The task will not tell us: it was cancelled, or failed for a reason of its own."""
        if self.is_open and self._is_probe(task):
            self.probing, self._probe = False, None

    def ask_probe(self, now: float) -> None:
        """Reopen by a probe after a person's repair: one request first, not the whole lane."""
        self.is_open, self.probing, self._probe = True, False, None
        self._in_spell, self.run, self._doubts = False, 0, 0
        self.opens_at = self._tripped_at = self._spell_sent_at = now

    def was_outage(self, spell: int) -> bool:
        """Whether faults of that spell were an outage, as can be told once it is over."""
        over = not self.is_open or spell != self.spell
        return over and spell in self._outages

    def blame(self, own: float) -> float:
        """How much of a fault is the task's own, 0 to 1: on a lane that fails many requests, little is.

        ``own`` is what the task's own faults still weigh. The logarithm of the chance that another task
        fails: 1 where that is a tenth or less. So five attempts mean one in 100,000 whether the lane fails a
        tenth of all requests, and five of them suffice, or half of all, and it takes seventeen. Below half it
        is not the task's.
        """
        bad = max(0.0, self._bad - own)
        total = self._good + bad
        if self.successes == 0 or self._good < _HEALTHY * total:
            return 0.0
        return 1.0 if bad <= 0.1 * total else -log10(bad / total)

    def faded(self, weight: float, since: int) -> float:
        """Return what is left of a weight that was noted when ``results`` was ``since``."""
        return float(weight * _DECAY ** (self.results - since))

    def check(self) -> None:
        """Assert the invariants."""
        assert 0 <= self.run < self._outage_min
        assert self.is_open or not self.probing
        assert not self.is_open or self.run == 0
        assert self._in_spell or self.is_open or self.run == 0
        assert 0.0 <= self._good + self._bad <= 1 / (1 - _DECAY) + 1e-9

    def _is_probe(self, task: K) -> bool:
        return self.probing and (self._probe is None or self._probe == task)

    def _ends_outage(self, task: K, now: float, sent_at: float | None) -> bool:
        if self._is_probe(task):
            return True
        if sent_at is None:
            return now >= self.opens_at
        if sent_at > self._tripped_at:
            return True
        self._doubts += sent_at >= self._spell_sent_at
        if self._doubts < self._outage_min:
            return False
        if self.spell in self._outages:
            self._outages.remove(self.spell)
        return True

    def _trip(self, now: float) -> float:
        self.is_open, self._tripped_at, self.run, self._doubts = True, now, 0, 0
        self.trips += 1
        self._outages.append(self.spell)
        return self._pause(now)

    def _probe_failed(self, now: float, *, grow: bool) -> float:
        self._level = min(self._level + grow, _MAX_LEVEL)
        return self._pause(now)

    def _pause(self, now: float) -> float:
        self.probing, self._probe = False, None
        pause_s = min(self._cap_s, self._base_s * 2**self._level)
        self.opens_at = now + pause_s * self._rng.uniform(1 - _JITTER, 1 + _JITTER)
        return self.opens_at

    def _close(self) -> bool:
        # The level stays until the lane has worked for a while: an outage that flickers is probed ever more
        # rarely.
        self.is_open, self.probing, self._probe = False, False, None
        self._in_spell, self.run, self._streak = False, 0, 1
        return True
