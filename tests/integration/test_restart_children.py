"""Lives that are real processes, cheap ones: killed, exiting, stalled, stopped, over and over."""

from __future__ import annotations

import os
import time
from collections import Counter
from functools import partial
from threading import Event, get_ident
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from headgate.errors import ConfigError, FencedOut, HeadgateError, StoreUnavailable
from headgate.restart import (
    Action,
    ChildStart,
    ProcessLives,
    RestartConfig,
    RestartCoordinator,
    RulesSource,
    RunRecord,
    Supervised,
    Supervisor,
    child,
    process,
    read_record,
)
from headgate.restart.child import ChildWatch, Push
from headgate.storage import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

QUICK = {"first_pause": 0.0, "longest_pause": 0.0, "poll": 0.02}
BUDGET = 12
FINISHED = """printf '{"status":"completed","exit_code":0}' > "$LIFE/end.json" """


class Job:
    """A run whose lives are what the shell makes of ``script``; each line of ``gained`` is an outcome on record."""

    def __init__(self, folder: Path, script: str) -> None:
        self.gained = folder / "gained"
        self.gained.touch()
        self.folder = folder
        self.script = script

    def command(self, start: ChildStart) -> list[str]:
        return ["/bin/sh", "-c", f"LIFE={start.folder}; cd {self.folder}; {self.script}"]

    def committed(self) -> int:
        return len(self.gained.read_bytes().splitlines())

    def run(
        self,
        *,
        config: dict[str, object] | None = None,
        rules: bool = True,
        stall_timeout_s: float = 60.0,
        grace_s: float = 0.2,
        stop_when: Callable[[], bool] | None = None,
    ) -> tuple[Supervised, RunRecord]:
        async def main() -> tuple[Supervised, RunRecord]:
            store = SqliteStore(self.folder / "decisions.db")
            ended: list[Supervised] = []
            broken: list[HeadgateError] = []
            settings = RestartConfig.model_validate({**QUICK, **(config or {})})
            sources = [RulesSource()] if rules else []
            async with RestartCoordinator("tickets", store, sources=sources, config=settings) as coordinator:
                lives = ProcessLives(self.command, self.committed, stall_timeout_s=stall_timeout_s, grace_s=grace_s)
                supervisor = Supervisor(coordinator, lives.live, grace_s=30.0)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(partial(_stop_when, supervisor, stop_when))
                    try:
                        with anyio.fail_after(60.0):
                            ended.append(await supervisor.run())
                    except HeadgateError as error:
                        broken.append(error)  # kept from the group, which would wrap it
                    tasks.cancel_scope.cancel()
                record = coordinator.record
            await store.aclose()
            if broken:
                raise broken[0]
            return ended[0], record

        return anyio.run(main)


async def _stop_when(supervisor: Supervisor, is_so: Callable[[], bool] | None) -> None:
    if is_so is not None:
        await _until(is_so)
        supervisor.stop()


async def _until(is_so: Callable[[], bool]) -> None:
    with anyio.fail_after(60.0):
        while not is_so():  # noqa: ASYNC110 - it waits for a file, or for another task's record
            await anyio.sleep(0.01)


def is_gone(pid: int) -> bool:
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def causes(record: RunRecord) -> list[tuple[str, str]]:
    return [(one.cause.kind, one.cause.where) for one in record.decisions if one.cause is not None]


@pytest.mark.parametrize(
    ("rules", "status", "code", "lives"), [(False, "budget_exhausted", 6, 20), (True, "told_to_stop", 7, 3)]
)
def test_a_crash_loop_of_20_cycles_ends_as_configured(
    tmp_path: Path, rules: bool, status: str, code: int, lives: int
) -> None:
    """Real processes that kill themselves: by the budget, or by the rules before it."""
    ended, record = Job(tmp_path, "kill -9 $$").run(config={"budget": 19}, rules=rules)
    assert (ended.status, ended.exit_code, ended.lives) == (status, code, lives)
    assert set(causes(record)) == {("killed", "SIGKILL")}
    again, _ = Job(tmp_path, FINISHED).run(config={"budget": 19}, rules=rules)
    assert (again.status, again.lives) == (status, 0), "a run that is closed stays so for whoever is begun later"


def test_a_crash_loop_with_progress_goes_on_beyond_the_budget(tmp_path: Path) -> None:
    """Progress is what is on record: each life gains one outcome and dies of it, but for the last one."""
    script = f"echo . >> gained; [ $(wc -l < gained) -lt 8 ] && kill -9 $$; {FINISHED}"
    ended, record = Job(tmp_path, script).run(config={"budget": 1})
    assert (ended.status, ended.exit_code, ended.lives) == ("completed", 0, 8)
    assert [one.progress for one in record.decisions] == [1] * 7
    assert record.finished == "completed"


def test_what_a_child_gains_counts_also_if_the_store_was_away_when_it_began(tmp_path: Path) -> None:
    """It is away once; the child gains when it is back, dies, and may go on: with no gain that would be the end."""
    gains = "until [ -e back ]; do sleep 0.02; done; echo . >> gained; kill -9 $$"
    job = Job(tmp_path, f"if [ -s gained ]; then {FINISHED}; else {gains}; fi")
    asked = 0

    def committed() -> int:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise StoreUnavailable("away")
        if asked == 3:  # by now it is known what the second one has found
            (tmp_path / "back").touch()
        return Job.committed(job)

    job.committed = committed  # type: ignore[method-assign]
    ended, record = job.run(config={"budget": 0}, rules=False, stall_timeout_s=10.0)
    assert (ended.status, ended.lives) == ("completed", 2)
    assert [one.progress for one in record.decisions] == [1]


def test_what_a_child_gained_counts_also_if_the_store_is_away_at_its_end(tmp_path: Path) -> None:
    """It was seen while the child lived; at the end of that life the store says nothing."""
    gains = "echo . >> gained; until [ -e seen ]; do sleep 0.02; done; kill -9 $$"
    job = Job(tmp_path, f"if [ -s gained ]; then {FINISHED}; else {gains}; fi")

    def committed() -> int:
        if (tmp_path / "seen").exists():
            raise StoreUnavailable("away")
        if count := Job.committed(job):
            (tmp_path / "seen").touch()
        return count

    job.committed = committed  # type: ignore[method-assign]
    ended, record = job.run(config={"budget": 0}, rules=False, stall_timeout_s=10.0)
    assert (ended.status, ended.lives) == ("completed", 2)
    assert [one.progress for one in record.decisions] == [1]


def test_what_nobody_could_see_of_a_life_counts_in_the_next_one(tmp_path: Path) -> None:
    """The store is away from the beginning of the first life to the end of it. The second one gains nothing itself."""
    script = (
        "echo . >> lives; case $(wc -l < lives) in 1) echo . >> gained; kill -9 $$;; 2) touch back; kill -9 $$;; esac"
    )
    job = Job(tmp_path, f"{script}; {FINISHED}")
    asked = 0

    def committed() -> int:
        nonlocal asked
        asked += 1
        if asked > 1 and not (tmp_path / "back").exists():
            raise StoreUnavailable("away")
        return Job.committed(job)

    job.committed = committed  # type: ignore[method-assign]
    ended, record = job.run(config={"budget": 1}, rules=False)
    assert (ended.status, ended.lives) == ("completed", 3)
    assert [one.progress for one in record.decisions] == [0, 1]


def test_a_store_that_hangs_costs_its_supervisor_a_few_threads_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing comes back, for the whole life of a child: neither does the supervisor go round meanwhile."""
    monkeypatch.setattr(process, "_COUNT_S", 0.05)
    monkeypatch.setattr(child, "_LOOK_MOST_S", 0.02)
    job, hang, threads = Job(tmp_path, f"sleep 0.6; {FINISHED}"), Event(), list[int]()
    asked: Counter[str] = Counter()

    def committed() -> int:
        threads.append(get_ident())
        hang.wait(30.0)
        return 0

    push, look = ChildWatch.push, ChildWatch.counted

    def counted_push(watch: ChildWatch, now: float) -> Push | None:
        asked["push"] += 1
        return push(watch, now)

    def counted_look(watch: ChildWatch, *told: Any) -> None:
        asked["look"] += 1
        look(watch, *told)

    monkeypatch.setattr(ChildWatch, "push", counted_push)
    monkeypatch.setattr(ChildWatch, "counted", counted_look)
    job.committed = committed  # type: ignore[method-assign]
    try:
        ended, _ = job.run(stall_timeout_s=60.0)
    finally:
        hang.set()
    assert ended.status == "completed"
    assert len(threads) <= 4
    assert asked["look"] > 4
    assert asked["push"] <= asked["look"] + 2, "one at the beginning, one for each look, one at the end"


def test_a_child_that_only_says_that_it_gains_exhausts_the_budget(tmp_path: Path) -> None:
    """T51: what it says of itself is no progress, nor that it has finished if it ends otherwise."""
    says = """printf '{"status":"held","exit_code":4,"report":{"done":1000}}' > "$LIFE/end.json"; exit 4"""
    ended, record = Job(tmp_path, says).run(config={"budget": 1}, rules=False)
    assert (ended.status, ended.lives) == ("budget_exhausted", 2)
    assert causes(record) == [("held", "")] * 2
    (tmp_path / "silent").mkdir()
    ended, record = Job(tmp_path / "silent", "exit 0").run(config={"budget": 0})
    assert causes(record) == [("exited", "exit code 0")]


def test_a_child_whose_money_is_spent_ends_the_run_and_leaves_it_open(tmp_path: Path) -> None:
    """Another life could spend nothing either; with a larger budget the run goes on."""
    spent = """printf '{"status":"budget_exhausted","exit_code":6}' > "$LIFE/end.json"; exit 6"""
    ended, record = Job(tmp_path, spent).run(config={"budget": 3})
    assert (ended.status, ended.exit_code, ended.lives) == ("budget_exhausted", 6, 1)
    assert record.is_open
    assert not record.decisions


def test_a_child_that_stalls_is_killed_with_all_that_it_has_begun(tmp_path: Path) -> None:
    """It does not listen to the interrupt, and has a child of its own. While it commits it is left alone."""
    script = (
        "trap '' INT; if [ -e pids ]; then exit 3; fi; "
        "for n in 1 2 3 4 5 6; do echo . >> gained; sleep 0.2; done; sleep 1000 & echo $$ $! > pids; wait"
    )
    began = time.monotonic()
    ended, record = Job(tmp_path, script).run(config={"budget": 0}, stall_timeout_s=1.0)
    assert time.monotonic() - began > 1.2, "it was ended while it committed"
    assert ended.status == "budget_exhausted"
    assert causes(record) == [("stalled", ""), ("exited", "exit code 3")]
    assert record.decisions[0].progress == 6
    assert all(is_gone(int(pid)) for pid in (tmp_path / "pids").read_text().split())


def test_a_stop_is_passed_on_and_ends_with_the_status_of_the_child(tmp_path: Path) -> None:
    job = Job(tmp_path, "trap 'echo told > told; exit 130' INT; echo . >> gained; while :; do sleep 0.05; done")
    ended, record = job.run(stop_when=lambda: job.committed() > 0, grace_s=20.0)
    assert (ended.status, ended.exit_code, ended.lives) == ("stopped", 130, 1)
    assert (tmp_path / "told").exists()
    assert record.is_open
    assert not record.decisions, "nothing is decided when its user stops it"
    finishing = Job(tmp_path, f"trap '' INT; echo . >> gained; sleep 0.3; {FINISHED}")
    ended, record = finishing.run(stop_when=lambda: finishing.committed() > 1, grace_s=20.0)
    assert (ended.status, ended.exit_code, record.finished) == ("completed", 0, "completed")


def test_whoever_is_killed_takes_no_budget_with_him(tmp_path: Path) -> None:
    """The cycles without progress are counted in the store: a supervisor that is begun anew goes on counting."""
    job = Job(tmp_path, "[ -e stop ] && sleep 60; kill -9 $$")
    before = 0
    for _ in range(2):
        before = _decisions_then_dies(job, 2)
        (tmp_path / "stop").unlink()
    assert before >= 4
    ended, record = job.run(config={"budget": BUDGET}, rules=False)
    assert (ended.status, ended.lives) == ("budget_exhausted", BUDGET + 1 - before)
    assert [one.fruitless for one in record.decisions] == list(range(1, BUDGET + 2))


def _decisions_then_dies(job: Job, decisions: int) -> int:
    """Supervise until so many more decisions are on record, or some more, and leave everything as it is."""

    async def main() -> int:
        store = SqliteStore(job.folder / "decisions.db")
        config = RestartConfig.model_validate({**QUICK, "budget": BUDGET})
        async with (
            RestartCoordinator("tickets", store, config=config) as coordinator,
            anyio.create_task_group() as tasks,
        ):
            await coordinator.enter()
            most = len(coordinator.record.decisions) + decisions
            tasks.start_soon(Supervisor(coordinator, ProcessLives(job.command, job.committed).live).run)
            await _until(lambda: len(coordinator.record.decisions) >= most)
            (job.folder / "stop").touch()
            tasks.cancel_scope.cancel()
        record = await read_record(store, "tickets")
        await store.aclose()
        assert record is not None
        return len(record.decisions)

    return anyio.run(main)


def test_what_no_restart_cures_is_raised_as_the_child_has_named_it(tmp_path: Path) -> None:
    def says(kind: str, final: str) -> str:
        error = f'{{"kind":"{kind}","message":"epoch 3"}}'
        said = f'{{"status":"crashed","exit_code":1,"error":{error},"is_final":{final}}}'
        return f"printf '{said}' > \"$LIFE/end.json\"; exit 1"

    with pytest.raises(FencedOut, match="epoch 3"):
        Job(tmp_path, says("FencedOut", "true")).run()
    with pytest.raises(ConfigError, match="epoch 3"):
        Job(tmp_path, says("SystemExit", "true")).run()
    ended, record = Job(tmp_path, says("StoreFull", "false")).run(config={"budget": 0}, rules=False)
    assert ended.status == "budget_exhausted"
    assert causes(record) == [("StoreFull", "")]


def test_a_life_that_is_left_is_killed(tmp_path: Path) -> None:
    """Nothing of it goes on when its supervisor is cancelled."""
    job = Job(tmp_path, "trap '' INT; echo $$ > pids; echo . >> gained; while :; do sleep 0.05; done")

    async def main() -> None:
        store = SqliteStore(tmp_path / "decisions.db")
        async with RestartCoordinator("tickets", store) as coordinator, anyio.create_task_group() as tasks:
            tasks.start_soon(Supervisor(coordinator, ProcessLives(job.command, job.committed).live).run)
            await _until(lambda: job.committed() > 0)
            tasks.cancel_scope.cancel()
        await store.aclose()

    anyio.run(main)
    assert is_gone(int((tmp_path / "pids").read_text()))


def test_a_program_that_is_not_there_is_a_bad_end_like_any_other(tmp_path: Path) -> None:
    job = Job(tmp_path, "")
    job.command = lambda start: [str(start.folder / "nothing")]  # type: ignore[method-assign]
    ended, record = job.run(config={"budget": 0}, rules=False)
    assert (ended.status, causes(record)) == ("budget_exhausted", [("FileNotFoundError", "")])
    assert [one.action for one in record.decisions] == [Action.EXHAUSTED]
    with pytest.raises(ConfigError, match="stall_timeout"):
        Job(tmp_path, "").run(stall_timeout_s=0.0)
