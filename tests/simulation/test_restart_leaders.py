"""Replicas in virtual time: leaders that die, leave and live on, who comes late, and how runs end."""

from __future__ import annotations

import asyncio

import anyio
import pytest
from anyio.lowlevel import checkpoint

from headgate.errors import ConfigError, HeadgateError, ResultCorrupt, StoreError, StoreUnavailable
from headgate.restart import (
    Action,
    Answer,
    Basis,
    Cause,
    Cycle,
    Failure,
    Heard,
    RestartConfig,
    TaskId,
    Verdict,
)
from headgate.restart.codec import register_of
from headgate.storage import MemoryStore
from tests.simulation.restart_replicas import (
    CRASH,
    RESTART,
    STOP,
    Backend,
    FlakyStore,
    Service,
    coordinator,
    one_failure,
    play,
)


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> Backend:
    chosen: Backend = request.param
    return chosen


def test_a_leader_that_dies_between_trigger_and_read_is_followed(backend: Backend) -> None:
    """R1: by a replica that had not even failed, with the same analysis."""

    async def body() -> None:
        store, service = FlakyStore(), Service(seconds=15.0, answer=STOP)
        async with coordinator(store, [service], name="b") as follower:
            await follower.enter()
            dying = coordinator(store, [service])
            with anyio.CancelScope() as life:
                async with dying:
                    await dying.enter()
                    dying.failed(CRASH)
                    await anyio.sleep(1.0)
                    store.silent = True  # it has no time to say good-bye
                    life.cancel()
                    await checkpoint()
            store.silent = False
            decision = await follower.decision()
            assert decision.action is Action.STOP
            assert decision.replica.startswith("b#")
            assert len(service.begun) == 1

    play(backend, body)


class BrokenStore(MemoryStore):
    """Somebody's own store, with a fault in it."""

    broken = True

    async def read_register(self, name: str) -> tuple[int, bytes]:
        if self.broken:
            raise KeyError(name)
        return await super().read_register(name)


def test_a_fault_of_the_store_is_an_error_of_the_store(backend: Backend) -> None:
    """It ended the coordinator, and cancelled what was done inside of it, with a group of errors."""

    async def body() -> None:
        store = BrokenStore()
        async with coordinator(store, [Service(answer=STOP)]) as replica:
            with pytest.raises(StoreError, match=r"broken: KeyError: .*tickets") as caught:
                await replica.enter()
            assert isinstance(caught.value.__cause__, KeyError)
            store.broken = False
            await anyio.sleep(60.0)  # it was asked again
            await replica.enter()
            store.broken = True
            replica.failed(CRASH)
            decision = await replica.decision()
            assert decision.action is Action.RESTART
            assert anyio.current_time() <= 10 * RestartConfig().recovery_timeout

    play(backend, body)


def test_a_leader_that_leaves_is_followed_at_once(backend: Backend) -> None:
    async def body() -> None:
        store, service = MemoryStore(), Service(seconds=1.0, answer=STOP)
        config = RestartConfig(lease=100.0, timeout=50.0)
        async with coordinator(store, [service], config, name="b") as follower:
            await follower.enter()
            async with coordinator(store, [Service(hangs=True)], config) as leaving:
                await leaving.enter()
                leaving.failed(CRASH)
                follower.failed(CRASH)
                await anyio.sleep(2.0)
            decision = await follower.decision()
            assert decision.action is Action.STOP
            assert anyio.current_time() < 5.0

    play(backend, body)


def test_a_leader_that_lives_is_not_followed(backend: Backend) -> None:
    """However long the analysis takes, in comparison with the lease."""

    async def body() -> None:
        store, service = MemoryStore(), Service(seconds=45.0, elsewhere=False)
        async with coordinator(store, [service]) as leader, coordinator(store, [service], name="b") as other:
            await leader.enter()
            await other.enter()
            leader.failed(CRASH)
            await anyio.sleep(1.0)
            decision = await one_failure(other)
            assert decision.replica.startswith("a#")
            assert other.record.fence == 1

    play(backend, body)


def test_who_follows_late_hears_what_is_there(backend: Backend) -> None:
    """The leader dies as the time is almost over; the verdict has been there all along, and its successor hears it."""

    async def body() -> None:
        store, service = MemoryStore(), Service(seconds=1.0, answer=STOP)
        config = RestartConfig(timeout=20.0)
        async with coordinator(store, [service], config, name="b") as follower:
            await follower.enter()
            async with coordinator(store, [Service(hangs=True)], config) as leaving:
                await leaving.enter()
                leaving.failed(CRASH)
                follower.failed(CRASH)
                await anyio.sleep(19.9)
            decision = await follower.decision()
            assert (decision.action, decision.basis) == (Action.STOP, Basis.ANSWERS)

    play(backend, body)


def test_what_comes_after_a_stop_is_on_record_too(backend: Backend) -> None:
    async def body() -> None:
        slow = Service(seconds=9.0, answer=RESTART, name="slow")
        async with coordinator(MemoryStore(), [Service(answer=STOP), slow]) as replica:
            await replica.enter()
            decision = await one_failure(replica)
            assert [one.heard for one in decision.answers] == [Heard.IN_TIME, Heard.NOT_AWAITED]
            await anyio.sleep(10.0)
            (late,) = replica.record.late
            assert (late.answer.source, late.answer.verdict, late.evidence_for) == ("slow", Verdict.RESTART, None)
            assert replica.record.decisions == (decision,)

    play(backend, body)


def test_who_comes_while_a_decision_is_pending_waits_for_it(backend: Backend) -> None:
    """And lives in the next cycle, not in the one that has failed."""

    async def body() -> None:
        store, service = MemoryStore(), Service(seconds=5.0)
        async with coordinator(store, [service]) as failing, coordinator(store, [service], name="late") as late:
            await failing.enter()
            failing.failed(CRASH)
            await anyio.sleep(1.0)
            entry = await late.enter()
            assert entry.cycle == 2
            assert anyio.current_time() >= 5.0

    play(backend, body)


def test_a_late_verdict_is_evidence_for_the_next_cycle(backend: Backend) -> None:
    """It never shuts down a cycle that was already reopened."""

    async def body() -> None:
        service = Service(seconds=70.0, answer=STOP)
        async with coordinator(MemoryStore(), [service]) as replica:
            await replica.enter()
            first = await one_failure(replica)
            assert (first.action, first.basis) == (Action.RESTART, Basis.TIMEOUT)
            assert (await replica.enter()).closed is None
            await anyio.sleep(30.0)
            (late,) = replica.record.late
            assert (late.answer.verdict, late.evidence_for) == (Verdict.STOP, 2)
            assert replica.record.is_open
            second = await one_failure(replica)
            assert (second.action, second.basis) == (Action.STOP, Basis.EVIDENCE)
            assert replica.record.decisions[0] == first

    play(backend, body)


@pytest.mark.parametrize("gained", ["nothing", "progress", "committed"])
def test_a_crash_loop_ends_only_if_nothing_is_gained(backend: Backend, gained: str) -> None:
    """Its own status, not a STOP; and it is counted by the record, not by this process."""

    async def body() -> None:
        store, actions = MemoryStore(), list[Action]()
        config = RestartConfig(budget=4)
        for lives in range(1, 21):
            async with coordinator(store, [], config) as replica:
                entry = await replica.enter()
                assert entry.cycle == lives
                failure = Failure(
                    Cause("crash"), progress=gained == "progress", committed=lives * (gained == "committed")
                )
                action = (await one_failure(replica, failure)).action
            actions.append(action)
            if not action.goes_on:
                break
        expected = [Action.RESTART] * 20 if gained != "nothing" else [*[Action.RESTART] * 4, Action.EXHAUSTED]
        assert actions == expected

    play(backend, body)


def test_a_finished_run_is_never_stopped(backend: Backend) -> None:
    """R5: the STOP comes when another replica has finished the run; and it can be begun again."""

    async def body() -> None:
        store = MemoryStore()
        async with coordinator(store, [Service(answer=STOP)]) as failing, coordinator(store, name="b") as other:
            await failing.enter()
            await other.enter()
            failing.failed(CRASH)
            await anyio.sleep(1.0)
            await other.finished("completed")
            decision = await failing.decision()
            assert (decision.action, decision.basis) == (Action.FINISHED, Basis.FINISHED)
            assert failing.record.decisions == ()
            again = await failing.enter()
            assert again.closed is None

    play(backend, body)


def test_a_dry_run_records_what_would_have_been_done(backend: Backend) -> None:
    async def body() -> None:
        config = RestartConfig(dry_run=True)
        async with coordinator(MemoryStore(), [Service(answer=STOP)], config) as replica:
            await replica.enter()
            decision = await one_failure(replica)
            assert (decision.action, decision.would_be) == (Action.RESTART, Verdict.STOP)
            assert (await replica.enter()).closed is None

    play(backend, body)


def test_poison_is_set_aside_for_all_later_cycles(backend: Backend) -> None:
    async def body() -> None:
        store, poison = MemoryStore(), TaskId(7, "summary")
        async with coordinator(store, [Service(answer=Answer(Verdict.QUARANTINE, (poison,)))]) as replica:
            await replica.enter()
            decision = await one_failure(replica)
            assert (decision.action, decision.tasks) == (Action.QUARANTINE, (poison,))
        async with coordinator(store, name="b") as other:
            assert (await other.enter()).quarantined == (poison,)

    play(backend, body)


def test_a_closed_run_is_opened_only_by_who_says_so(backend: Backend) -> None:
    async def body() -> None:
        store = MemoryStore()
        async with coordinator(store, [Service(answer=STOP)]) as replica:
            await replica.enter()
            await one_failure(replica)
            assert (await replica.enter()).closed is not None
            entry = await replica.enter(reopen=True)
            assert (entry.closed, entry.cycle) == (None, 2)

    play(backend, body)


def test_a_store_that_is_broken_or_away_is_told_to_who_enters(backend: Backend) -> None:
    async def body() -> None:
        store = FlakyStore()
        await store.write_register(register_of("tickets"), b"{", after=0)
        async with coordinator(store) as replica:
            with pytest.raises(ResultCorrupt):
                await replica.enter()
        store.away = True
        async with coordinator(store) as replica:
            with pytest.raises(StoreUnavailable):
                await replica.enter()
        assert anyio.current_time() >= 300.0

    play(backend, body)


def test_what_cannot_be_meant_is_said(backend: Backend) -> None:
    async def body() -> None:
        with pytest.raises(ConfigError, match="one name"):
            coordinator(MemoryStore(), [Service(), Service()])
        closed = coordinator(MemoryStore())
        with pytest.raises(HeadgateError, match="not open"):
            await closed.enter()
        async with coordinator(MemoryStore()) as replica:
            with pytest.raises(HeadgateError, match="enter"):
                replica.failed(CRASH)

    play(backend, body)


class LeakingStore(MemoryStore):
    """Awaits what somebody else has cancelled, the first time."""

    leaked = False

    async def read_register(self, name: str) -> tuple[int, bytes]:
        if not self.leaked:
            self.leaked = True
            raise asyncio.CancelledError
        return await super().read_register(name)


class LeakingSource(Service):
    async def trigger(self, cycle: Cycle) -> None:
        raise asyncio.CancelledError

    async def read(self, cycle: Cycle) -> Answer | None:
        raise asyncio.CancelledError


def test_t62_what_somebody_else_cancels_ends_no_coordinator() -> None:
    """What was done inside of it was cancelled, without a word (on asyncio alone: trio leaks no cancellation)."""
    reached: list[Action] = []

    async def body() -> None:
        async with coordinator(LeakingStore(), [LeakingSource()]) as replica:
            with pytest.raises(StoreError, match="broken: CancelledError"):
                await replica.enter()
            await anyio.sleep(60.0)
            await replica.enter()
            replica.failed(CRASH)
            reached.append((await replica.decision()).action)

    play("asyncio", body)
    assert reached == [Action.RESTART]
