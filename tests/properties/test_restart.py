"""Replicas of one run that fail, die and go on, with a store and sources that do what they like: R1 to R6."""

from __future__ import annotations

from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headgate.restart.aggregation import judge
from headgate.restart.core import CoreOptions
from headgate.restart.record import Action, Basis, Heard, SourceAnswer
from headgate.restart.values import Aggregation, LateVerdict, TaskId, Verdict

from .restart_world import Reaction, Replica, Script, Served, Source, World

REACTIONS: list[Reaction] = ["restart", "stop", "quarantine", "hangs", "unreachable", "nonsense", "untriggered"]
SERVED: list[Served] = ["done", "done", "done", "refused", "answer_lost"]

SCRIPTS = st.builds(Script, st.sampled_from(REACTIONS), st.sampled_from([0.0, 1.0, 19.0, 25.0, 60.0]))
SOURCES = st.lists(st.builds(Source, st.just(""), st.booleans(), st.lists(SCRIPTS, min_size=1, max_size=4)), max_size=3)


class RestartMachine(RuleBasedStateMachine):
    """Drives three replicas, and plays their store and their sources."""

    @initialize(
        sources=SOURCES,
        aggregation=st.sampled_from(Aggregation),
        late=st.sampled_from(LateVerdict),
        budget=st.integers(0, 3),
        dry_run=st.booleans(),
    )
    def begin(
        self, sources: list[Source], aggregation: Aggregation, late: LateVerdict, budget: int, dry_run: bool
    ) -> None:
        for number, source in enumerate(sources):
            source.name = f"source {number}"
        self.options = CoreOptions(
            timeout_s=20.0, recovery_timeout_s=100.0, lease_s=6.0, poll_s=1.0, budget=budget, aggregation=aggregation,
            late_verdict=late, dry_run=dry_run,
        )  # fmt: skip
        self.world = World(3, sources, self.options)

    def pick(self, which: int) -> Replica:
        return self.world.replicas[which % len(self.world.replicas)]

    @rule(which=st.integers(0, 2), progress=st.integers(0, 2))
    def fails(self, which: int, progress: int) -> None:
        self.world.committed += progress
        self.world.fail(self.pick(which))

    @rule(seconds=st.sampled_from([1.0, 30.0]))
    def all_fail(self, seconds: float) -> None:
        """One cause, seen by all who run; then there is time to decide."""
        for replica in self.world.replicas:
            self.world.fail(replica)
        self.world.run_for(seconds)
        for replica in self.world.replicas:
            if replica.core.decision is not None and not replica.core.is_leaving:
                replica.core.enter()
        self.world.run_for(1.0)

    @rule(which=st.integers(0, 2), how=st.sampled_from(SERVED))
    def store_answers(self, which: int, how: Served) -> None:
        self.world.serve(self.pick(which), how)
        self.world.settle()

    @rule(seconds=st.sampled_from([0.0, 0.5, 3.0, 7.0, 30.0]), serve=st.sampled_from([True, True, False]))
    def time_passes(self, seconds: float, serve: bool) -> None:
        self.world.run_for(seconds, serve)

    @rule(which=st.integers(0, 2))
    def is_killed(self, which: int) -> None:
        self.world.kill(self.pick(which))

    @precondition(lambda self: self.world.orphans)
    @rule()
    def what_a_killed_one_sent_arrives(self) -> None:
        self.world.swap(self.world.orphans.pop())

    @rule(which=st.integers(0, 2))
    def is_paused_or_goes_on(self, which: int) -> None:
        paused = [replica for replica in self.world.replicas if replica.paused]
        (paused or [self.pick(which)])[0].paused = not paused

    @rule(which=st.integers(0, 2))
    def enters_again(self, which: int) -> None:
        core = self.pick(which).core
        if core.decision is not None:
            core.enter()

    @rule(which=st.integers(0, 2))
    def somebody_reopens_it(self, which: int) -> None:
        core = self.pick(which).core
        if core.refusal is not None:
            core.enter(reopen=True)

    @precondition(lambda self: self.world.now > 60.0)
    @rule(which=st.integers(0, 2))
    def finishes(self, which: int) -> None:
        core = self.pick(which).core
        if core.cycle is not None:
            core.finished("completed")

    @precondition(lambda self: not any(replica.core.is_leaving for replica in self.world.replicas))
    @rule(which=st.integers(0, 2))
    def leaves(self, which: int) -> None:
        self.world.leave(self.pick(which))

    @invariant()
    def r2_one_analysis_for_each_cycle(self) -> None:
        """R2: elsewhere one; in a replica's own process one for each who leads, and only who leads."""
        for source in self.world.sources.values():
            ids = [cycle for cycle, _ in source.analyses]
            if source.elsewhere:
                assert len(set(ids)) == len(ids)
                continue
            for cycle in set(ids):
                number = int(cycle.rpartition("-")[2])
                assert ids.count(cycle) <= len(self.world.leaders.get(number, ()))

    @invariant()
    def decisions_rest_on_what_sources_said(self) -> None:
        for decision in self.world.decisions.values():
            said = {one.source for one in decision.answers if one.verdict is Verdict.STOP}
            if decision.action is Action.STOP:
                assert said, "an unreachable source is no STOP"
                assert not decision.dry_run
                if self.options.aggregation is Aggregation.ALL:
                    assert said == set(self.world.sources)
            if decision.action is Action.EXHAUSTED:
                assert decision.fruitless > self.options.budget
                assert not decision.progress
            if decision.basis is Basis.EVIDENCE:
                assert self.options.late_verdict is LateVerdict.NEXT_CYCLE
            if self.options.dry_run:
                assert decision.action in (Action.RESTART, Action.EXHAUSTED)

    def teardown(self) -> None:
        """Once nobody is killed or paused any more, everybody who waits is told, and all are told the same."""
        if not hasattr(self, "world"):
            return
        world = self.world
        for replica in list(world.replicas):
            replica.paused = False
        # Who leaves is followed by another one.
        for replica in [one for one in world.replicas if one.core.is_leaving]:
            world.kill(replica)
        world.run_for(self.options.timeout_s + 4 * self.options.lease_s)
        record = world.record
        assert record is not None
        assert not record.triggers, "a failed cycle that nobody decides"
        for replica in world.replicas:
            core = replica.core
            assert core.record == record
            assert core.cycle is not None or core.refusal is not None or record.finished


def test_who_leads_again_listens_as_long_as_a_new_leader() -> None:
    """The one that led before may have slept while the others asked: it has a lease's time to hear what is known."""
    options = CoreOptions(timeout_s=10.0, recovery_timeout_s=100.0, lease_s=6.0, poll_s=1.0, budget=3)
    world = World(2, [Source("slow", True, [Script("hangs")])], options)
    world.run_for(1.0)
    first, second = world.replicas
    world.fail(first)
    world.run_for(1.0)
    world.fail(second)
    first.paused = True
    world.run_for(7.0)  # the second leads, and stays away too
    second.paused = True
    first.paused = False
    world.run_for(options.timeout_s + 2 * options.lease_s)
    assert world.leaders[1] == {1, 2, 3}
    decision = world.decisions[1]
    assert (decision.basis, decision.replica) == (Basis.TIMEOUT, first.core.replica)
    assert decision.at == world.led_since[3] + options.lease_s


TestRestart = RestartMachine.TestCase
TestRestart.settings = settings(max_examples=max(100, settings().max_examples), stateful_step_count=40)


ANSWERS = st.sampled_from(
    [
        (Heard.IN_TIME, Verdict.RESTART),
        (Heard.IN_TIME, Verdict.STOP),
        (Heard.IN_TIME, Verdict.QUARANTINE),
        (Heard.UNREACHABLE, None),
        (Heard.INVALID, None),
        None,
    ]
)


def said(source: str, heard: Heard, verdict: Verdict | None, cycle: int = 2) -> SourceAnswer:
    tasks = (TaskId(int(source), "x"),) if verdict is Verdict.QUARANTINE else ()
    return SourceAnswer(source, heard, cycle, verdict, tasks)


def verdict_of(
    aggregation: Aggregation, answers: list[tuple[Heard, Verdict | None] | None], late: list[SourceAnswer]
) -> Verdict:
    heard = {str(n): said(str(n), *one) for n, one in enumerate(answers) if one is not None}
    judgement = judge(aggregation, 2, [str(n) for n in range(len(answers))], heard, late, over=True)
    assert judgement is not None
    return judgement.verdict


@given(answers=st.lists(ANSWERS, max_size=4), late=st.sets(st.integers(0, 3)))
def test_the_verdict_is_what_the_answers_say(
    answers: list[tuple[Heard, Verdict | None] | None], late: set[int]
) -> None:
    """Any: one STOP. All: every source. Who is only slow is represented by what it said late."""
    evidence = [said(str(n), Heard.LATE, Verdict.STOP, 1) for n in sorted(late)]
    verdicts = [(Verdict.STOP if n in late else None) if one is None else one[1] for n, one in enumerate(answers)]
    otherwise = Verdict.QUARANTINE if Verdict.QUARANTINE in verdicts else Verdict.RESTART
    stops = verdicts.count(Verdict.STOP)
    assert verdict_of(Aggregation.ANY, answers, evidence) is (Verdict.STOP if stops else otherwise)
    by_all = stops > 0 and stops == len(verdicts)
    assert verdict_of(Aggregation.ALL, answers, evidence) is (Verdict.STOP if by_all else otherwise)


@given(
    aggregation=st.sampled_from(Aggregation),
    answers=st.lists(ANSWERS, max_size=4),
    late=st.sets(st.integers(0, 3)),
)
def test_r4_the_order_of_answers_does_not_change_the_verdict(
    aggregation: Aggregation, answers: list[tuple[Heard, Verdict | None] | None], late: set[int]
) -> None:
    """R4: whoever answers first: the same verdict, the same tasks."""
    names = [str(n) for n in range(len(answers))]
    evidence = [said(str(n), Heard.LATE, Verdict.STOP, 1) for n in sorted(late)]
    given_by = {name: said(name, *one) for name, one in zip(names, answers, strict=True) if one is not None}
    outcomes: set[tuple[Verdict, tuple[TaskId, ...]]] = set()
    for order in permutations(given_by):
        heard: dict[str, SourceAnswer] = {}
        judgement = judge(aggregation, 2, names, heard, evidence, over=False)
        for name in order:
            if judgement is not None:
                break
            heard[name] = given_by[name]
            judgement = judge(aggregation, 2, names, heard, evidence, over=False)
        judgement = judgement or judge(aggregation, 2, names, heard, evidence, over=True)
        assert judgement is not None
        outcomes.add((judgement.verdict, judgement.tasks))
    assert len(outcomes) == 1


@given(answers=st.lists(ANSWERS, max_size=4), late=st.sets(st.integers(0, 3)))
def test_a_stop_by_all_is_a_stop_by_any(answers: list[tuple[Heard, Verdict | None] | None], late: set[int]) -> None:
    evidence = [said(str(n), Heard.LATE, Verdict.STOP, 1) for n in sorted(late)]
    if verdict_of(Aggregation.ALL, answers, evidence) is Verdict.STOP:
        assert verdict_of(Aggregation.ANY, answers, evidence) is Verdict.STOP


@given(
    aggregation=st.sampled_from(Aggregation),
    answers=st.lists(ANSWERS, min_size=1, max_size=4),
    late=st.sets(st.integers(0, 3)),
    which=st.integers(0, 3),
    how=st.sampled_from([Heard.UNREACHABLE, Heard.INVALID]),
)
def test_a_source_that_cannot_be_reached_never_makes_a_restart_a_stop(
    aggregation: Aggregation,
    answers: list[tuple[Heard, Verdict | None] | None],
    late: set[int],
    which: int,
    how: Heard,
) -> None:
    evidence = [said(str(n), Heard.LATE, Verdict.STOP, 1) for n in sorted(late)]
    worse = list(answers)
    worse[which % len(answers)] = (how, None)
    if verdict_of(aggregation, answers, evidence) is not Verdict.STOP:
        assert verdict_of(aggregation, worse, evidence) is not Verdict.STOP
