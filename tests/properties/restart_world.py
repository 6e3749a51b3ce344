"""A run with several replicas, their store and their sources, in virtual time: what the restart machine is driven by.

The store answers, refuses, or does it and loses the answer. Replicas are killed and paused at any moment; what a killed
one had sent may still be done. Sources answer late, never, nonsense, or cannot be reached.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from itertools import count
from math import inf
from typing import Literal

from headgate.restart.core import Ask, CoordinatorCore, CoreOptions, Look, SourceFacts, Start, Swap
from headgate.restart.record import Action, Decision, Heard, RunRecord
from headgate.restart.values import Answer, Cause, Failure, TaskId, Verdict

Reaction = Literal["restart", "stop", "quarantine", "hangs", "unreachable", "nonsense", "untriggered"]
Served = Literal["done", "refused", "answer_lost"]

POISON = (TaskId(7, "summary"),)


@dataclass(frozen=True)
class Script:
    """How a source reacts to the analysis of one cycle, and how many seconds that takes."""

    reaction: Reaction = "restart"
    seconds: float = 1.0

    def answer(self) -> Answer | Heard | None:
        match self.reaction:
            case "restart" | "stop":
                return Answer(Verdict(self.reaction))
            case "quarantine":
                return Answer(Verdict.QUARANTINE, POISON)
            case "unreachable":
                return Heard.UNREACHABLE
            case "nonsense":
                return Heard.INVALID
            case "hangs" | "untriggered":
                return None


@dataclass
class Source:
    name: str
    elsewhere: bool
    scripts: list[Script]
    triggered: dict[str, float] = field(default_factory=dict[str, float])
    analyses: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def script(self, cycle: int) -> Script:
        return self.scripts[(cycle - 1) % len(self.scripts)]


@dataclass
class Replica:
    """A process: its machine, what it has sent to the store, whether it runs."""

    core: CoordinatorCore
    call: Look | Swap | None = None
    paused: bool = False


class World:
    """All of it. ``self.versions`` is every record that ever stood in the register, in order."""

    def __init__(self, replicas: int, sources: list[Source], options: CoreOptions) -> None:
        self.now = 0.0
        self.options = options
        self.sources = {source.name: source for source in sources}
        self.versions: list[RunRecord] = []
        self.decisions: dict[int, Decision] = {}
        self.leaders: dict[int, set[int]] = {}
        self.led_since: dict[int, float] = {}
        self.seen: dict[int, list[Decision]] = {}
        self.orphans: list[Swap] = []
        self.replicas: list[Replica] = []
        self.committed = 0
        self._names = count(1)
        self._order = count()
        self._news: list[tuple[float, int, CoordinatorCore, str, int, Answer | Heard]] = []
        for _ in range(replicas):
            self.replicas.append(self.born())

    def born(self) -> Replica:
        name = f"replica {next(self._names)}"
        facts = [SourceFacts(source.name, source.elsewhere) for source in self.sources.values()]
        core = CoordinatorCore("tickets", name, facts, self.options, lineage=f"born of {name}")
        core.enter()
        return Replica(core)

    @property
    def record(self) -> RunRecord | None:
        return self.versions[-1] if self.versions else None

    # What happens to replicas

    def fail(self, replica: Replica, kind: str = "crash") -> bool:
        core = replica.core
        if replica.paused or core.cycle is None or core.closing or core.record.finished:
            return False
        core.failed(Failure(Cause(kind), committed=self.committed), self.now)
        return True

    def leave(self, replica: Replica) -> None:
        self._abandon(replica)
        replica.core.leave()

    def _abandon(self, replica: Replica) -> None:
        if isinstance(replica.call, Swap):
            self.orphans.append(replica.call)
        replica.call = None

    def kill(self, replica: Replica) -> None:
        self._abandon(replica)
        self.replicas[self.replicas.index(replica)] = self.born()

    # The store

    def serve(self, replica: Replica, how: Served) -> None:
        call, replica.call = replica.call, None
        if call is None:
            return
        if how == "refused":
            replica.core.store_failed(self.now)
            return
        done = isinstance(call, Swap) and self.swap(call)
        if how == "answer_lost":
            replica.core.store_failed(self.now)
        elif isinstance(call, Swap):
            replica.core.swapped(call, self.now, done=done)
        else:
            replica.core.seen(len(self.versions), self.record, self.now)
        self.note(replica.core)

    def swap(self, call: Swap) -> bool:
        if call.after != len(self.versions):
            return False
        self.check_step(self.record, call.record)
        self.versions.append(call.record)
        return True

    def check_step(self, before: RunRecord | None, after: RunRecord) -> None:
        """One write: what stands in the record may become, and what may not."""
        if after.lease is not None:
            self.leaders.setdefault(after.cycle, set()).add(after.lease.token)
            self.led_since.setdefault(after.lease.token, self.now)
        for decision in after.decisions:
            known = self.decisions.setdefault(decision.cycle, decision)
            assert known == decision, "R1: a decided cycle is immutable"
        if before is None:
            return
        if len(after.decisions) > len(before.decisions) and before.lease is not None:
            self.check_patience(after.decisions[-1], before.lease.token)
        assert after.lineage == before.lineage
        assert after.fence >= before.fence
        assert before.cycle <= after.cycle <= before.cycle + 1
        if before.finished and after.finished:
            assert after.decisions == before.decisions, "R5: a finished run is never stopped"
        if before.closed:
            assert after.decisions == before.decisions

    def check_patience(self, decision: Decision, token: int) -> None:
        """Who follows a leader, be it one who led before, does not give up on anybody before a lease has passed."""
        gives_up = any(one.heard is Heard.NOTHING for one in decision.answers)
        if gives_up and token > min(self.leaders[decision.cycle]):
            least_s = min(self.options.lease_s, self.options.timeout_s)
            assert self.now >= self.led_since[token] + least_s, "decided on less than it could have heard"

    def note(self, core: CoordinatorCore) -> None:
        decision = core.decision
        if decision is not None and decision.recorded and decision.action is not Action.FINISHED:
            assert self.decisions[decision.cycle] == decision, "R1: the same for all"

    # Time

    def settle(self) -> None:
        """Let every replica do what it does now; what it sends to the store waits there."""
        for replica in self.replicas:
            if replica.paused:
                continue
            for effect in replica.core.step(self.now):
                match effect:
                    case Look() | Swap():
                        assert replica.call is None, "one call at a time"
                        replica.call = effect
                    case Start():
                        self._start(effect)
                    case Ask():
                        self._ask(replica.core, effect)
            self.note(replica.core)

    def _start(self, effect: Start) -> None:
        source = self.sources[effect.source]
        script = source.script(effect.cycle.number)
        if source.elsewhere and script.reaction != "untriggered" and effect.cycle.id not in source.triggered:
            source.triggered[effect.cycle.id] = self.now
            source.analyses.append((effect.cycle.id, "elsewhere"))

    def _ask(self, core: CoordinatorCore, effect: Ask) -> None:
        source = self.sources[effect.source]
        script = source.script(effect.cycle.number)
        begun = self.now
        if source.elsewhere:
            begun = source.triggered.get(effect.cycle.id, inf)
        else:
            source.analyses.append((effect.cycle.id, core.replica))
        answer = script.answer()
        if answer is not None and begun < inf:
            at = max(self.now, begun + script.seconds)
            heapq.heappush(self._news, (at, next(self._order), core, source.name, effect.cycle.number, answer))

    def run_for(self, seconds: float, serve: bool = True) -> None:
        """Time passes, from one moment at which something happens to the next."""
        until = self.now + seconds
        for _ in range(100_000):
            self.settle()
            if serve and any(replica.call and not replica.paused for replica in self.replicas):
                for replica in list(self.replicas):
                    if not replica.paused:
                        self.serve(replica, "done")
                continue
            ticks = [replica.core.next_tick(self.now) for replica in self.replicas if not replica.paused]
            at = min([*ticks, self._news[0][0] if self._news else inf])
            if at > until:
                break
            assert at > self.now or self._news, "it waits for a moment that has passed"
            self.now = max(self.now, at)
            self.hear()
        else:
            raise AssertionError("time stands still")
        self.now = until
        self.hear()
        self.settle()

    def hear(self) -> None:
        """Sources answer those who still live."""
        while self._news and self._news[0][0] <= self.now:
            _, _, core, source, cycle, answer = heapq.heappop(self._news)
            if not any(replica.core is core for replica in self.replicas):
                continue
            if isinstance(answer, Answer):
                core.answered(source, cycle, answer, self.now)
            else:
                core.not_answered(source, cycle, answer, "", self.now)
