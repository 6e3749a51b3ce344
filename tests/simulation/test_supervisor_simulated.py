"""Lives of a run under a supervisor, in virtual time: what goes on, what ends, what is waited for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import TYPE_CHECKING

import anyio
import pytest

from headgate.errors import FencedOut
from headgate.restart import (
    Action,
    Answer,
    CallableSource,
    Cause,
    Cycle,
    Failure,
    Life,
    LifeEnd,
    RestartConfig,
    RestartCoordinator,
    RulesSource,
    Supervised,
    Supervisor,
    TaskId,
    Verdict,
)
from headgate.restart.lives import pause_s
from headgate.storage import MemoryStore
from headgate.testing import run_virtual
from headgate.values import EXIT_CODES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from headgate.events import Event
    from headgate.restart import RestartSource

CRASHED = LifeEnd("crashed", 1, Cause("MemoryError"), finished=False)
DONE = LifeEnd("completed")
QUICK = RestartConfig(first_pause=0.0, longest_pause=0.0, budget=5)


@dataclass
class Lives:
    """A run whose lives end as scripted, the last way again and again."""

    ends: list[LifeEnd | Exception]
    seconds: float = 1.0
    lived: list[Life] = field(default_factory=list[Life])
    began: list[float] = field(default_factory=list[float])

    async def live(self, life: Life) -> LifeEnd:
        self.lived.append(life)
        self.began.append(anyio.current_time())
        await anyio.sleep(self.seconds)
        end = self.ends[min(len(self.lived), len(self.ends)) - 1]
        if isinstance(end, Exception):
            raise end
        return end


async def supervised(
    lives: Lives,
    *sources: RestartSource,
    config: RestartConfig = QUICK,
    store: MemoryStore | None = None,
    recover: Callable[[], Awaitable[None]] | None = None,
    reopen: bool = False,
) -> Supervised:
    async with RestartCoordinator(
        "tickets", store or MemoryStore(), sources=sources, config=config, clock=lambda: 1e9
    ) as coordinator:
        return await Supervisor(coordinator, lives.live, recover=recover, rng=Random(1)).run(reopen=reopen)


def says(answer: Answer, seconds: float = 0.0) -> CallableSource:
    async def source(cycle: Cycle) -> Answer:
        assert cycle.run == "tickets"
        await anyio.sleep(seconds)
        return answer

    return CallableSource(source)


def play(body: Callable[[], Awaitable[None]], backend: str = "asyncio") -> None:
    async def main() -> None:
        await body()

    run_virtual(main, backend="trio" if backend == "trio" else "asyncio")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_run_goes_on_after_a_crash_until_it_is_done(backend: str) -> None:
    async def body() -> None:
        lives = Lives([MemoryError("no room"), CRASHED, DONE])
        ended = await supervised(lives)
        assert (ended.status, ended.exit_code, ended.lives, ended.end) == ("completed", 0, 3, DONE)
        assert [life.entry.cycle for life in lives.lived] == [1, 2, 3]

    play(body, backend)


def test_an_error_that_cannot_say_what_it_is_is_a_bad_end_like_any_other() -> None:
    """An exception class of the user's, whose own words raise."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise ZeroDivisionError

    async def body() -> None:
        lives = Lives([Mute(), MemoryError(), DONE])
        async with RestartCoordinator("tickets", MemoryStore(), config=QUICK) as coordinator:
            ended = await Supervisor(coordinator, lives.live, rng=Random(1)).run()
            assert (ended.status, ended.lives) == ("completed", 3)
            assert [one.cause for one in coordinator.record.decisions] == [Cause("Mute"), Cause("MemoryError")]

    play(body)


def test_analysis_of_5_s_and_recovery_of_5_s_take_5_s() -> None:
    """T56: the longer of both; and the pause is counted from the failure too."""

    async def body() -> None:
        async def recover() -> None:
            await anyio.sleep(5.0)

        config = RestartConfig(first_pause=3.0, longest_pause=3.0)
        lives = Lives([CRASHED, DONE])
        await supervised(lives, says(Answer(Verdict.RESTART), 5.0), config=config, recover=recover)
        assert 5.0 <= lives.began[1] - lives.began[0] - lives.seconds < 5.5

    play(body)


def test_a_crash_loop_of_20_cycles_ends_as_configured() -> None:
    async def body() -> None:
        lives = Lives([CRASHED])
        ended = await supervised(lives)
        assert (ended.status, ended.exit_code, ended.lives) == ("budget_exhausted", 6, 6)
        lives = Lives([CRASHED])
        ended = await supervised(
            lives, RulesSource(), config=RestartConfig(first_pause=0.0, longest_pause=0.0, budget=20)
        )
        assert (ended.status, ended.exit_code, ended.lives) == ("told_to_stop", 7, 3)
        assert ended.decision is not None
        assert "3 cycles running" in ended.decision.answers[0].reason

    play(body)


def test_a_crash_loop_with_progress_goes_on() -> None:
    async def body() -> None:
        gains = LifeEnd("crashed", 1, Cause("MemoryError"), finished=False, progress=1)
        ended = await supervised(Lives([*[gains] * 20, DONE]), RulesSource())
        assert (ended.status, ended.lives) == ("completed", 21)

    play(body)


def test_the_budget_is_counted_over_processes() -> None:
    """A supervisor that is killed each time counts on where the one before was."""

    async def body() -> None:
        store, ends = MemoryStore(), list[str]()
        for _ in range(4):
            with anyio.move_on_after(2.5):
                ends.append((await supervised(Lives([CRASHED]), store=store)).status)
        assert ends == ["budget_exhausted", "budget_exhausted"]

    play(body)


def test_who_is_told_to_stop_by_another_replica_ends_in_good_order() -> None:
    """It has its grace, and is cancelled if it does not take it."""

    async def body() -> None:
        store, ended = MemoryStore(), dict[str, Supervised]()

        async def polite(life: Life) -> LifeEnd:
            await life.stopping.wait()
            await anyio.sleep(1.0)
            return LifeEnd("stopped", 130, finished=False)

        async def deaf(_: Life) -> LifeEnd:
            await anyio.sleep_forever()
            raise AssertionError

        async def replica(name: str, live: Callable[[Life], Awaitable[LifeEnd]]) -> None:
            sources = [says(Answer(Verdict.STOP))]
            async with RestartCoordinator("tickets", store, sources=sources, config=QUICK, replica=name) as coordinator:
                ended[name] = await Supervisor(coordinator, live, rng=Random(1)).run()

        async with anyio.create_task_group() as replicas:
            replicas.start_soon(replica, "failing", Lives([CRASHED]).live)
            replicas.start_soon(replica, "polite", polite)
            replicas.start_soon(replica, "deaf", deaf)
        assert {name: one.status for name, one in ended.items()} == dict.fromkeys(
            ("failing", "polite", "deaf"), "told_to_stop"
        )
        assert ended["polite"].end is not None
        assert ended["deaf"].end is None
        assert len({one.decision for one in ended.values()}) == 1
        assert anyio.current_time() < 30.0

    play(body)


def test_a_life_that_finishes_while_it_is_told_to_stop_has_finished() -> None:
    """R5: it is the run's end, whatever was decided about another replica."""

    async def body() -> None:
        store = MemoryStore()

        async def finishing(life: Life) -> LifeEnd:
            await life.stopping.wait()
            return DONE

        sources = [says(Answer(Verdict.STOP))]
        async with (
            RestartCoordinator("tickets", store, sources=sources, config=QUICK) as first,
            RestartCoordinator("tickets", store, sources=sources, config=QUICK) as second,
        ):
            ended: list[Supervised] = []

            async def finish() -> None:
                ended.append(await Supervisor(second, finishing, rng=Random(1)).run())

            async with anyio.create_task_group() as replicas:
                replicas.start_soon(finish)
                stopped = await Supervisor(first, Lives([CRASHED]).live, rng=Random(1)).run()
                assert stopped.status == "told_to_stop"
        assert ended[0].status == "completed"
        assert second.run == "tickets"
        assert (await supervised(Lives([DONE]), store=store)).status == "completed", "nobody has to reopen it"

    play(body)


def test_a_closed_run_is_not_begun_unless_somebody_says_so() -> None:
    async def body() -> None:
        store = MemoryStore()
        await supervised(Lives([CRASHED]), says(Answer(Verdict.STOP)), store=store)
        lives = Lives([DONE])
        ended = await supervised(lives, store=store)
        assert (ended.status, ended.lives, lives.lived) == ("told_to_stop", 0, [])
        assert (await supervised(lives, store=store, reopen=True)).status == "completed"

    play(body)


@pytest.mark.parametrize("kind", ["restart_asked", "restart_decided", "restart_done"])
def test_who_listens_may_stop_it_whatever_is_said(kind: str) -> None:
    async def body() -> None:
        lives = Lives([CRASHED, DONE])

        def listen(event: Event) -> None:
            if event.kind == kind:
                supervisor.stop()

        async with RestartCoordinator("tickets", MemoryStore(), config=QUICK, clock=lambda: 1e9) as coordinator:
            supervisor = Supervisor(coordinator, lives.live, rng=Random(1), events=listen)
            ended = await supervisor.run()
        assert (ended.status, ended.lives, ended.end, len(lives.lived)) == ("stopped", 1, CRASHED, 1)

    play(body)


def test_who_reopened_a_run_does_not_do_so_again() -> None:
    """It is closed by another replica while this one waits for its next life."""

    async def body() -> None:
        store, config = MemoryStore(), RestartConfig(first_pause=60.0, longest_pause=60.0)

        async def closes_it() -> None:
            await anyio.sleep(10.0)
            async with RestartCoordinator(
                "tickets", store, sources=[says(Answer(Verdict.STOP))], config=config
            ) as other:
                await other.enter()
                other.failed(Failure(Cause("disk")))
                assert (await other.decision()).action is Action.STOP

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(closes_it)
            lives = Lives([CRASHED])
            ended = await supervised(lives, config=config, store=store, reopen=True)
            assert (ended.status, ended.lives) == ("told_to_stop", 1)

    play(body)


def test_poison_is_set_aside_in_the_next_life() -> None:
    async def body() -> None:
        lives, poison = Lives([CRASHED, DONE]), TaskId(7, "summary")
        await supervised(lives, says(Answer(Verdict.QUARANTINE, (poison,))))
        assert [life.entry.quarantined for life in lives.lived] == [(), (poison,)]

    play(body)


def test_what_the_user_stopped_is_not_finished_and_asks_nobody() -> None:
    async def body() -> None:
        stopped = LifeEnd("stopped", 130, finished=False)
        store = MemoryStore()
        ended = await supervised(Lives([stopped]), says(Answer(Verdict.STOP)), store=store)
        assert (ended.status, ended.exit_code, ended.decision) == ("stopped", 130, None)
        assert (await supervised(Lives([DONE]), store=store)).status == "completed"

    play(body)


def test_what_no_restart_cures_is_raised() -> None:
    async def body() -> None:
        lives = Lives([FencedOut("a newer epoch")])
        with pytest.raises(FencedOut, match="newer epoch"):
            await supervised(lives)
        assert len(lives.lived) == 1

    play(body)


def test_a_recovery_that_fails_or_hangs_delays_nobody_for_ever() -> None:
    async def body() -> None:
        async def broken() -> None:
            raise OSError("no such mount")

        async def hangs() -> None:
            await anyio.sleep_forever()

        async def leaks() -> None:
            """Awaits what somebody else has cancelled (T62)."""
            raise asyncio.CancelledError

        for recover, least_s in ((broken, 0.0), (hangs, 300.0), (leaks, 0.0)):
            lives = Lives([CRASHED, DONE])
            assert (await supervised(lives, recover=recover)).status == "completed"
            assert least_s <= lives.began[1] - lives.began[0] < least_s + 5.0

    play(body)


def test_t62_a_life_that_awaits_what_others_cancelled_has_crashed() -> None:
    """The cancellation came out of the supervisor, as if that had been cancelled itself (on asyncio alone)."""

    async def body() -> None:
        lived: list[Life] = []

        async def live(life: Life) -> LifeEnd:
            lived.append(life)
            if len(lived) == 1:
                raise asyncio.CancelledError
            return DONE

        async with RestartCoordinator("tickets", MemoryStore(), config=QUICK, clock=lambda: 1e9) as coordinator:
            ended = await Supervisor(coordinator, live, rng=Random(1)).run()
        assert (ended.status, len(lived)) == ("completed", 2)

    play(body)


def test_who_is_begun_again_in_a_pause_waits_for_the_rest_of_it() -> None:
    """Killed between two lives: the pause and the count of lives in vain are those that are on record."""

    async def body() -> None:
        store, config = MemoryStore(), RestartConfig(first_pause=100.0, longest_pause=400.0, budget=2)
        lives = Lives([CRASHED])

        async def supervise_for(seconds: float) -> Supervised | None:
            with anyio.move_on_after(seconds):
                replica = RestartCoordinator("tickets", store, config=config, clock=anyio.current_time)
                async with replica as coordinator:
                    return await Supervisor(coordinator, lives.live, rng=Random(1)).run()
            return None

        for _ in range(8):
            assert await supervise_for(20.0) is None
        assert len(lives.began) == 2
        assert lives.began[1] >= 75.0
        ended = await supervise_for(1e6)
        assert ended is not None
        assert (ended.status, len(lives.began)) == ("budget_exhausted", 3)
        assert lives.began[2] - lives.began[1] >= 150.0, "the pause doubles over supervisors"

    play(body)


def _wall_time(day: int) -> float:
    return anyio.current_time() + 1e5 * day


def test_who_is_begun_on_another_day_waits_for_nothing() -> None:
    async def body() -> None:
        store, config = MemoryStore(), RestartConfig(first_pause=100.0, longest_pause=400.0)
        lives = Lives([CRASHED, DONE])
        for day in range(2):
            wall = partial(_wall_time, day)
            replica = RestartCoordinator("tickets", store, config=config, clock=wall)
            async with replica as coordinator:
                with anyio.move_on_after(20.0):
                    await Supervisor(coordinator, lives.live, rng=Random(1)).run()
        assert len(lives.began) == 2
        assert lives.began[1] < 25.0

    play(body)


def test_pauses_double_while_nothing_is_gained_and_are_spread() -> None:
    middle = [pause_s(n, 1.0, 60.0, Random(1)) / Random(1).uniform(0.75, 1.25) for n in (0, 1, 2, 3, 7, 900)]
    assert middle == pytest.approx([1.0, 1.0, 2.0, 4.0, 60.0, 60.0])
    drawn = {pause_s(1, 1.0, 60.0, Random(seed)) for seed in range(50)}
    assert len(drawn) == 50
    assert 0.75 <= min(drawn) <= max(drawn) <= 1.25


def test_actions_that_end_a_run_have_exit_codes_of_their_own() -> None:
    assert {action for action in Action if not action.goes_on} - set(EXIT_CODES) == {Action.FINISHED}
    assert len(set(EXIT_CODES.values())) == len(EXIT_CODES)
