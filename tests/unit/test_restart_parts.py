"""The parts of a restart decision one by one: the rules, the record, its bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from headgate.errors import ConfigError, ResultCorrupt, SchemaMismatch
from headgate.restart import (
    Action,
    Answer,
    Basis,
    Blocked,
    CallableSource,
    Cause,
    Cycle,
    Decision,
    Failure,
    FailureCount,
    Heard,
    Ledger,
    PastCycle,
    Rules,
    RulesSource,
    SourceAnswer,
    Suspect,
    TaskId,
    Verdict,
    read_record,
    render,
)
from headgate.restart.asking import NoAnswer, read
from headgate.restart.codec import decode, encode, register_of
from headgate.restart.record import DECISIONS_KEPT, LATE_KEPT, TRIGGERS_KEPT, RunRecord, Trigger
from headgate.restart.rules import judge_by_rules
from headgate.storage import MemoryStore

CRASH = Cause("crash", "summary")
POISON = TaskId(3, "summary")


def cycle(
    *before: PastCycle, cause: Cause = CRASH, progress: int = 0, ledger: Ledger | None = None, number: int = 5
) -> Cycle:
    return Cycle("id", "tickets", number, Failure(cause, ledger=ledger or Ledger()), progress, before)


def past(number: int, cause: Cause = CRASH, progress: int = 0) -> PastCycle:
    return PastCycle(number, cause, progress)


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        (cycle(), Verdict.RESTART),
        (cycle(past(4)), Verdict.RESTART),
        (cycle(past(3), past(4)), Verdict.STOP),
        (cycle(past(3), past(4, Cause("crash", "summary", "another text"))), Verdict.STOP),
        (cycle(past(3), past(4), progress=1), Verdict.RESTART),
        (cycle(past(3), past(4, progress=1)), Verdict.RESTART),
        (cycle(past(3), past(4, Cause("crash", "title"))), Verdict.RESTART),
        (cycle(past(2), past(3, Cause("stall")), past(4)), Verdict.RESTART),
        (cycle(past(3), past(4), cause=Cause("stall")), Verdict.RESTART),
        (cycle(ledger=Ledger(poison=(POISON,))), Verdict.QUARANTINE),
        (cycle(past(3), past(4), ledger=Ledger(poison=(POISON,))), Verdict.STOP),
        (cycle(ledger=Ledger(resources=("a/b",))), Verdict.RESTART),
        (cycle(ledger=Ledger(resources=("a/b",), blocked=(Blocked("a/b", "unauthorized"),))), Verdict.STOP),
        (cycle(ledger=Ledger(resources=("a/b", "c/d"), blocked=(Blocked("a/b", "quota_exhausted"),))), Verdict.RESTART),
        (cycle(ledger=Ledger(blocked=(Blocked("a/b", "unauthorized"),))), Verdict.RESTART),
    ],
)
def test_rules_say_what_the_facts_say(given: Cycle, verdict: Verdict) -> None:
    answer = judge_by_rules(given, Rules())
    assert answer.verdict is verdict
    assert answer.reason
    assert answer.tasks == ((POISON,) if verdict is Verdict.QUARANTINE else ())


def in_flight(*rows: int) -> Ledger:
    return Ledger(in_flight=tuple(TaskId(row, "summary") for row in rows))


def crashed(record: RunRecord, ledger: Ledger, verdict: Verdict = Verdict.RESTART) -> RunRecord:
    """The open cycle has crashed, and it was decided."""
    failed = record.triggered(Trigger("r", 0.0, Failure(CRASH, ledger=ledger)))
    given = failed.cycle_of(failed.triggers[0].failure)
    answer = judge_by_rules(given, Rules()) if verdict is Verdict.RESTART else Answer(verdict, (POISON,))
    action = Action.QUARANTINE if answer.verdict is Verdict.QUARANTINE else Action(answer.verdict.value)
    return failed.with_decision(
        Decision(failed.cycle, action, Basis.ANSWERS, answer.verdict, answer.tasks, cause=CRASH, fruitless=1)
    )


def test_a_task_that_is_at_work_whenever_it_crashes_is_poison() -> None:
    """In flight at three crashed cycles in a row; what only stood beside it once or twice is not."""
    record = RunRecord("tickets", "l")
    for rows in ((3, 4, 5), (3, 5, 6), (3, 6, 7)):
        assert not record.quarantined
        record = crashed(record, in_flight(*rows))
    assert record.quarantined == (POISON,)
    assert [one.action for one in record.decisions] == [Action.RESTART, Action.RESTART, Action.QUARANTINE]


def test_a_task_that_was_not_at_work_once_is_counted_anew() -> None:
    record = RunRecord("tickets", "l")
    for rows in ((3, 4), (3, 4), (4,)):
        record = crashed(record, in_flight(*rows))
    assert record.quarantined == (TaskId(4, "summary"),)
    assert [(one.task.row, one.cycles) for one in record.suspects] == [(4, 3)]


def test_what_was_set_aside_may_have_been_the_cause_so_cycles_count_anew() -> None:
    """Three crashes, a quarantine, two more crashes with others at work: no STOP before the third."""
    given = cycle(past(2), replace(past(3), quarantined=1), past(4))
    assert judge_by_rules(given, Rules()).verdict is Verdict.RESTART
    assert judge_by_rules(cycle(past(3), past(4)), Rules()).verdict is Verdict.STOP


def test_of_many_tasks_that_were_at_work_each_time_none_is_named() -> None:
    """Most of them are innocent: STOP says how many there were."""
    many = tuple(Suspect(TaskId(row, "summary"), 3) for row in range(9))
    answer = judge_by_rules(replace(cycle(past(3), past(4)), suspects=many), Rules())
    assert answer.verdict is Verdict.STOP
    assert "9 tasks were in flight each time, too many to say which is poison" in answer.reason
    fewer = judge_by_rules(replace(cycle(past(3), past(4)), suspects=many[:8]), Rules())
    assert (fewer.verdict, len(fewer.tasks)) == (Verdict.QUARANTINE, 8)
    never = replace(cycle(past(3), past(4)), suspects=many[:1])
    assert judge_by_rules(never, Rules(poison_cycles=0)).verdict is Verdict.STOP


def test_sources_are_told_who_is_suspected_and_only_so_many() -> None:
    first = RunRecord("tickets", "l")
    assert first.cycle_of(Failure(CRASH, ledger=in_flight(1))).suspects == (), "once is no reason to suspect anybody"
    record = crashed(first, in_flight(*range(300)))
    told = record.cycle_of(Failure(CRASH, ledger=in_flight(*range(1, 300))).bounded())
    assert len(told.suspects) == 200
    assert set(told.suspects) <= {Suspect(TaskId(row, "summary"), 2) for row in range(1, 300)}
    assert decode(encode(record)) == record
    assert not record.with_end("completed").reopened().suspects
    flood = Failure(CRASH, ledger=in_flight(*range(5000))).bounded()
    assert len(flood.ledger.in_flight) == 1000


def test_how_often_is_enough_can_be_said() -> None:
    assert judge_by_rules(cycle(), Rules(same_cause_cycles=1)).verdict is Verdict.STOP
    with pytest.raises(ConfigError):
        Rules(same_cause_cycles=0)


async def test_sources_in_this_process_answer() -> None:
    def plain(one: Cycle) -> Answer:
        return Answer(Verdict.STOP, reason=one.run)

    async def slow(one: Cycle) -> Answer | None:
        return None if one.number else Answer(Verdict.RESTART)

    class Caller:
        async def __call__(self, one: Cycle) -> Answer:
            return Answer(Verdict.RESTART, reason=one.id)

    assert await RulesSource().read(cycle()) == Answer(Verdict.RESTART, reason="nothing speaks against it")
    assert await CallableSource(plain).read(cycle()) == Answer(Verdict.STOP, reason="tickets")
    assert await CallableSource(slow).read(cycle()) is None
    assert await CallableSource(Caller()).read(cycle()) == Answer(Verdict.RESTART, reason="id")
    assert [CallableSource(plain).name, CallableSource(Caller()).name] == ["plain", "Caller"]
    assert CallableSource(plain, name="mine").name == "mine"


@pytest.mark.parametrize("said", ["text", 7, Verdict.STOP])
async def test_what_is_no_answer_is_invalid(said: object) -> None:
    def lies(_: Cycle) -> Answer:
        return said  # type: ignore[return-value]  # pyright: ignore[reportReturnType]

    with pytest.raises(NoAnswer, match="is no answer") as raised:
        await read(CallableSource(lies), cycle(), every_s=0.01, timeout_s=1.0)
    assert raised.value.heard is Heard.INVALID


async def test_an_answer_is_what_it_claims_to_be() -> None:
    """What a function made without types: a verdict by its word is that verdict; what cannot be kept is none."""

    async def heard(**fields: Any) -> Answer | None:
        said = CallableSource(lambda _: Answer(**fields), name="mine")
        return await read(said, cycle(), every_s=0.01, timeout_s=1.0)

    assert await heard(verdict="stop") == Answer(Verdict.STOP)
    tasks = [TaskId(1, "a"), TaskId(2, "b")]
    assert await heard(verdict=Verdict.QUARANTINE, tasks=tasks) == Answer(Verdict.QUARANTINE, tuple(tasks))
    for fields in (
        {"verdict": "halt"},
        {"verdict": None},
        {"verdict": Verdict.QUARANTINE, "tasks": ("row 7",)},
        {"verdict": Verdict.QUARANTINE, "tasks": (TaskId(7, "half \ud83d"),)},
        {"verdict": "quarantine"},
        {"verdict": Verdict.STOP, "reason": None},
    ):
        with pytest.raises(NoAnswer) as raised:
            await heard(**fields)
        assert raised.value.heard is Heard.INVALID


@pytest.mark.parametrize(
    ("verdict", "tasks"), [(Verdict.STOP, (POISON,)), (Verdict.QUARANTINE, ()), (Verdict.QUARANTINE, (POISON,) * 201)]
)
def test_an_answer_that_contradicts_itself_cannot_be_made(verdict: Verdict, tasks: tuple[TaskId, ...]) -> None:
    with pytest.raises(ConfigError):
        Answer(verdict, tasks)


def full_record() -> RunRecord:
    """A record with something in every field."""
    failure = Failure(
        CRASH, 3, 9, 2, Ledger((FailureCount("a", "bug", 1),), ("a/b",), (Blocked("a/b", "x"),), (POISON,))
    )
    said = SourceAnswer("rules", Heard.IN_TIME, 1, Verdict.QUARANTINE, (POISON,), "ü\n\x1b\tb", 5.5)
    record = RunRecord("tickets", "abc").triggered(Trigger("a#1", 1.5, failure)).led_by("a#1")
    decision = Decision(
        1, Action.QUARANTINE, Basis.ANSWERS, Verdict.QUARANTINE, (POISON,), False, "a#1", 2.5, CRASH, 3, 0, (said,)
    )
    record = record.with_decision(replace(decision, triggers=record.triggers))
    late = SourceAnswer("slow", Heard.LATE, 1, Verdict.STOP, reason="late", at=9.0)
    record = record.with_late(late, as_evidence=True)
    return record.triggered(Trigger("b#2", 2.0, failure)).led_by("b#2").beaten()


def test_a_record_is_read_as_it_was_written() -> None:
    for record in (RunRecord("tickets", "abc"), full_record(), full_record().with_end("completed")):
        assert decode(encode(record)) == record


async def test_a_record_can_be_read_by_who_takes_no_part() -> None:
    store = MemoryStore()
    assert await read_record(store, "tickets") is None
    await store.write_register(register_of("tickets"), encode(full_record()), after=0)
    assert await read_record(store, "tickets") == full_record()


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"format":1,"record":{}}', b'{"format":1,"record":7}'])
def test_bytes_that_are_no_record_are_corrupt(data: bytes) -> None:
    with pytest.raises(ResultCorrupt, match="cannot be read"):
        decode(data)


def test_a_record_of_another_format_is_named() -> None:
    with pytest.raises(SchemaMismatch, match="format is 2"):
        decode(encode(RunRecord("tickets", "abc")).replace(b'"format":1', b'"format":2'))


def test_everything_about_a_decision_can_be_printed() -> None:
    """Who triggered when, who said what, on what basis, what would have been, what came late."""
    record = full_record()
    assert render(record).splitlines() == [
        "run tickets: in cycle 2",
        "cycle 1: quarantine, on the basis of answers",
        "  ended by crash in summary",
        "  progress: 3 outcomes",
        "  sets aside: row 3 of summary",
        "  triggered by a#1 at 1970-01-01 00:00:01.500",
        "  rules: quarantine 1 tasks, at 1970-01-01 00:00:05.500: ü b",
        "  decided by a#1 at 1970-01-01 00:00:02.500",
        "  late: slow: stop at 1970-01-01 00:00:09.000, evidence for cycle 2: late",
        "cycle 2: has failed, and is being decided",
        "  triggered by b#2 at 1970-01-01 00:00:02.000",
        "  led by b#2",
        "set aside: row 3 of summary",
    ]
    answers = (
        SourceAnswer("slow", Heard.LATE, 1, Verdict.STOP, at=9.0),
        SourceAnswer("gone", Heard.UNREACHABLE, 2, reason="connection refused"),
    )
    decision = Decision(2, Action.RESTART, Basis.EVIDENCE, Verdict.STOP, dry_run=True, fruitless=1, answers=answers)
    decided = record.with_decision(decision)
    assert render(decided).splitlines()[9:13] == [
        "cycle 2: restart (dry run: would be stop), on the basis of evidence",
        "  progress: 0 outcomes, 1 cycles without",
        "  slow: stop, said late of cycle 1, at 1970-01-01 00:00:09.000",
        "  gone: unreachable: connection refused",
    ]
    assert render(decided).startswith("run tickets: in cycle 3, 1 without progress before it")
    closed = decided.with_decision(Decision(3, Action.STOP, Basis.ANSWERS, Verdict.STOP))
    assert render(closed).startswith("run tickets: closed by the decision on cycle 3: told_to_stop")
    assert render(closed.with_end("completed")).startswith("run tickets: finished (completed) in cycle 3")


def test_a_record_stays_bounded_however_long_the_run_goes_on() -> None:
    """As large as a record can get, it fits into a register with room to spare."""
    record = RunRecord("tickets", "abc")
    poison = tuple(TaskId(row, "a column of some length") for row in range(200))
    ledger = Ledger(tuple(FailureCount(f"c{n}", "bug", n) for n in range(500)), poison=poison * 9)
    for number in range(1, DECISIONS_KEPT + 20):
        for replica in range(TRIGGERS_KEPT + 9):
            failure = Failure(Cause("crash", "x", "y" * 9999), number, number, 1, ledger).bounded()
            record = record.triggered(Trigger(f"replica {replica}", 1.0, failure))
        said = SourceAnswer("s", Heard.IN_TIME, number, Verdict.QUARANTINE, poison, "z" * 500)
        triggers = tuple(one.brief() for one in record.triggers)
        decision = Decision(
            number, Action.QUARANTINE, Basis.ANSWERS, Verdict.QUARANTINE, poison, answers=(said,), triggers=triggers
        )
        record = record.with_decision(decision).with_late(replace(said, heard=Heard.LATE), as_evidence=True)
    assert len(record.decisions) == DECISIONS_KEPT
    assert len(record.late) == LATE_KEPT
    assert len(encode(record)) < 4 * 1024 * 1024
    assert record.decided(1) == record.decisions[-1], "too long ago to be kept"
