"""A life that is another process, seen from outside: when it stalls, how it is ended, what its end means."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.errors import ConfigError
from headgate.restart import Cause, ChildReport, LifeEnd, Rules, TaskId, process
from headgate.restart.child import ChildEnd, ChildWatch, Push, memory_kills
from headgate.restart.in_flight import SLOTS, InFlightFile, read_in_flight
from headgate.restart.values import Ledger

FINISHED = ChildReport("completed", 0)
HELD = ChildReport("held", 4)
SPENT = ChildReport("budget_exhausted", 6)
BROKEN = ChildReport("crashed", 1, Cause("StoreFull", message="no room"))
AT_WORK = (TaskId(7, "double"),)


@given(
    looks=st.lists(st.tuples(st.floats(0.1, 30.0), st.sampled_from([None, 0, 0, 1])), max_size=30),
    stop_at=st.one_of(st.just(inf), st.floats(0.0, 300.0)),
)
def test_a_child_is_interrupted_once_and_killed_a_grace_later(
    looks: list[tuple[float, int | None]], stop_at: float
) -> None:
    """Not before it has committed nothing for the stall timeout, whatever the store says of it meanwhile."""
    watch = ChildWatch(0.0, stall_timeout_s=100.0, grace_s=5.0)
    now, gained_at, committed, pushes = 0.0, 0.0, 0, list[tuple[Push, float]]()
    watch.counted(0, 0.0, 0.0)
    for wait, gain in [*looks, (400.0, None)]:
        until = now + wait
        while True:
            if now >= stop_at and not watch.stopped:
                watch.stop()
            if (push := watch.push(now)) is not None:
                pushes.append((push, now))
                continue
            if watch.look_at <= now:  # it wants to know what is committed
                watch.counted(None if gain is None else committed, now, now)
                assert watch.look_at > now, "time stands still"
                continue
            tick = min(watch.next_tick, watch.look_at, stop_at if stop_at > now else inf)
            if tick >= until:
                break
            now = tick
        now = until
        if gain is not None:
            committed += gain
            gained_at = now if gain and not pushes else gained_at
            watch.counted(committed, now, now)
    assert [push for push, _ in pushes] == [Push.INTERRUPT, Push.KILL]
    interrupted, killed = (at for _, at in pushes)
    assert killed == pytest.approx(interrupted + 5.0)
    if watch.stalled:
        assert interrupted == pytest.approx(gained_at + 100.0)
    else:
        assert interrupted == pytest.approx(stop_at)


CAUSES: list[tuple[ChildEnd, LifeEnd]] = [
    (ChildEnd(0, FINISHED), LifeEnd("completed")),
    (ChildEnd(-11, FINISHED), LifeEnd("completed")),  # it had finished, whatever came after
    (ChildEnd(130, FINISHED, stalled=True), LifeEnd("completed")),
    (ChildEnd(0), LifeEnd("crashed", 1, Cause("exited", "exit code 0"), False)),
    (ChildEnd(3), LifeEnd("crashed", 1, Cause("exited", "exit code 3"), False)),
    (ChildEnd(9, HELD), LifeEnd("crashed", 4, Cause("exited", "exit code 9"), False)),
    (ChildEnd(4, HELD), LifeEnd("held", 4, Cause("held"), False)),
    (ChildEnd(4, HELD, deadline_is_over=True), LifeEnd("held", 4, None, False)),
    (ChildEnd(1, BROKEN), LifeEnd("crashed", 1, BROKEN.error, False)),
    (ChildEnd(130, ChildReport("stopped", 130)), LifeEnd("stopped", 130, None, False)),
    (ChildEnd(6, SPENT), LifeEnd("budget_exhausted", 6, None, False)),  # another life could spend no more
    (ChildEnd(-9, SPENT), LifeEnd("killed", 6, Cause("killed", "SIGKILL"), False)),
    (ChildEnd(130), LifeEnd("stopped", 130, None, False)),
    (ChildEnd(-9, stopped=True), LifeEnd("stopped", 130, None, False)),
    (ChildEnd(130, ChildReport("stopped", 130), stalled=True), LifeEnd("stalled", 130, Cause("stalled"), False)),
    (ChildEnd(130, stalled=True), LifeEnd("stalled", 1, Cause("stalled"), False)),  # so a shell ends when interrupted
    (ChildEnd(-9, stalled=True), LifeEnd("stalled", 1, Cause("stalled"), False)),
    (ChildEnd(-9, memory_kills=1), LifeEnd("killed", 1, Cause("out_of_memory"), False)),
    (ChildEnd(-9, memory_kills=0), LifeEnd("killed", 1, Cause("killed", "SIGKILL"), False)),
    (ChildEnd(-9), LifeEnd("killed", 1, Cause("killed", "SIGKILL"), False)),
    (ChildEnd(-11, memory_kills=1), LifeEnd("killed", 1, Cause("killed", "SIGSEGV"), False)),
    (ChildEnd(-250), LifeEnd("killed", 1, Cause("killed", "signal 250"), False)),
]


@pytest.mark.parametrize(("end", "means"), CAUSES)
def test_what_an_end_means(end: ChildEnd, means: LifeEnd) -> None:
    told = end.life_end(3)
    assert (told.status, told.exit_code, told.finished) == (means.status, means.exit_code, means.finished)
    assert told.progress == 3
    if means.cause is None or told.cause is None:
        assert told.cause is means.cause
    else:
        assert told.cause.is_same(means.cause)


def test_a_killed_child_may_have_run_out_of_memory_where_nobody_knows() -> None:
    unknown, known = ChildEnd(-9).life_end(0).cause, ChildEnd(-9, memory_kills=0).life_end(0).cause
    assert unknown is not None
    assert known is not None
    assert "perhaps for want of memory" in unknown.message
    assert "memory" not in known.message


def test_what_was_at_work_goes_with_a_bad_end_only() -> None:
    said = ChildReport("held", 4, ledger=Ledger(in_flight=(TaskId(1, "x"),)))
    assert ChildEnd(-9, at_work=AT_WORK).life_end(0).ledger.in_flight == AT_WORK
    assert ChildEnd(4, said).life_end(0).ledger.in_flight == (TaskId(1, "x"),)
    assert ChildEnd(0, FINISHED, at_work=AT_WORK).life_end(0).ledger.in_flight == ()


@pytest.mark.parametrize(
    ("text", "kills"),
    [("low 0\nhigh 2\nmax 1\noom 3\noom_kill 2\noom_group_kill 0\n", 2), ("oom 3\n", None), ("oom_kill x\n", None)],
)
def test_memory_kills_of_a_control_group(text: str, kills: int | None) -> None:
    assert memory_kills(text) == kills


@pytest.mark.parametrize(
    ("groups", "kills"),
    [
        *(
            ("0::/jobs/one\n", 2),
            ("12:pids:/x\n0::/jobs/one\n", 2),
            ("0::/\n", None),
            ("12:memory:/x\n", None),
            ("", None),
        ),
        *(("9:cpu,memory:/old\n0::/\n", 5), ("9:memory:/old\n0::/jobs/one\n", 2), ("9:cpu:/old\n", None)),
    ],
)
def test_memory_kills_are_those_of_the_own_control_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str, kills: int | None
) -> None:
    (tmp_path / "jobs" / "one").mkdir(parents=True)
    (tmp_path / "jobs" / "one" / "memory.events").write_text("oom_kill 2\n", encoding="ascii")
    (tmp_path / "memory" / "old").mkdir(parents=True)
    (tmp_path / "memory" / "old" / "memory.oom_control").write_text("under_oom 0\noom_kill 5\n", encoding="ascii")
    (tmp_path / "cgroup").write_text(groups, encoding="ascii")
    monkeypatch.setattr(process, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(process, "CGROUPS", tmp_path)
    assert process.own_memory_kills() == kills


def test_a_change_of_what_is_committed_is_a_sign_of_life_in_either_direction() -> None:
    """Failed cells that are tried again are taken back first."""
    watch = ChildWatch(0.0, stall_timeout_s=10.0, grace_s=1.0)
    for now, committed in ((0.0, 100), (9.0, 90), (18.0, 95), (27.0, 95)):
        assert watch.push(now) is None
        watch.counted(committed, now, now)
    assert watch.look_at == pytest.approx(27.5)
    watch.counted(95, 27.9, 27.9)
    assert watch.push(27.9) is None
    assert watch.look_at == 28.0
    watch.counted(95, 28.0, 28.0)
    assert watch.push(28.0) is Push.INTERRUPT


def test_a_supervisor_that_could_not_look_does_not_know_that_its_child_stalled() -> None:
    """It was stopped for an hour, or the store was slow to answer: what was gained it sees at the next look."""
    watch = ChildWatch(0.0, stall_timeout_s=10.0, grace_s=1.0)
    watch.counted(100, 0.0, 0.0)
    assert watch.push(3600.0) is None
    watch.counted(100, 9.0, 12.0)  # asked before the time was over: the answer is none about the end of it
    assert watch.push(12.0) is None
    assert watch.look_at <= 12.0
    watch.counted(101, 12.0, 12.0)
    assert watch.push(12.0) is None
    assert watch.push(22.0) is None
    watch.counted(None, 22.0, 32.0)  # a store that says nothing is no sign of life
    assert watch.push(32.0) is Push.INTERRUPT


def test_a_child_that_has_for_ever_to_end_is_interrupted_once() -> None:
    watch = ChildWatch(0.0, stall_timeout_s=10.0, grace_s=inf)
    watch.stop()
    assert watch.push(1.0) is Push.INTERRUPT
    assert watch.push(1.0) is None
    assert watch.next_tick == inf


def test_what_was_on_record_first_is_what_gains_are_counted_from() -> None:
    watch = ChildWatch(0.0, stall_timeout_s=10.0, grace_s=1.0)
    assert watch.first is None
    for committed in (None, 0, None, 7):
        watch.counted(committed, 1.0, 1.0)
    assert watch.first == 0


def test_tasks_at_work_are_known_when_their_process_is_gone(tmp_path: Path) -> None:
    """Killed with SIGKILL, which nobody can do anything about; what had ended by then is not among them."""
    path = tmp_path / "at work"
    child = (
        "import os, signal, sys; from headgate.restart.in_flight import InFlightFile\n"
        "file = InFlightFile(sys.argv[1], ['double', 'na\\u00efve'])\n"
        "for row in range(10): file.began(row, row, ['double', 'na\\u00efve'][row % 2])\n"
        "for row in (0, 3, 4, 9): file.ended(row)\n"
        "file.began('again', 2**40, 'double')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", child, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert read_in_flight(path) == (
        *(TaskId(1, "na\u00efve"), TaskId(2, "double"), TaskId(5, "na\u00efve"), TaskId(6, "double")),
        *(TaskId(7, "na\u00efve"), TaskId(8, "double"), TaskId(2**40, "double")),
    )


def test_more_tasks_than_can_be_noted_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "at work"
    with InFlightFile(path, ["x"]) as file:
        for row in range(SLOTS + 5):
            file.began(row, row, "x")
        assert len(read_in_flight(path)) == SLOTS
        for row in range(SLOTS + 5):
            file.ended(row)
        assert read_in_flight(path) == ()
        file.began("one", 1, "x")
    assert read_in_flight(path) == (TaskId(1, "x"),)


def test_a_note_needs_no_more_room(tmp_path: Path) -> None:
    """A mapping over a hole takes room at the first note in a page: on a full disk that is SIGBUS, and no error."""
    path = tmp_path / "at work"
    with InFlightFile(path, ["x"]) as file:
        before = path.stat().st_blocks
        for row in range(SLOTS):
            file.began(row, row, "x")
        assert path.stat().st_blocks <= before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full is of Linux")
def test_no_room_is_told_at_the_start() -> None:
    with pytest.raises(OSError, match="cannot be noted here: No space left") as told:
        InFlightFile("/dev/full", ["x"])
    assert (told.value.errno, told.value.filename) == (errno.ENOSPC, "/dev/full")


@pytest.mark.parametrize("content", [b"", b"x" * 20, b"\0" * 100_000, json.dumps(["x"]).encode(), b"\xff" * 70_000])
def test_a_file_that_makes_no_sense_names_nobody(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "at work").write_bytes(content)
    assert read_in_flight(tmp_path / "at work") == ()
    assert read_in_flight(tmp_path / "missing") == ()


@pytest.mark.parametrize("wrong", [{"poison_cycles": 1}, {"poison_cycles": -1}, {"poison_most": 0}])
def test_rules_that_cannot_be_meant(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        Rules(**wrong)
