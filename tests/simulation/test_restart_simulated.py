"""Replicas with their shells in virtual time: who waits how long, who is asked how often, who is told what."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import anyio
import pytest
from anyio.lowlevel import checkpoint

from headgate.errors import ConfigError, HeadgateError, ResultCorrupt, StoreUnavailable
from headgate.restart import (
    Action,
    Answer,
    Basis,
    CallableSource,
    Cause,
    Cycle,
    Decision,
    Failure,
    Heard,
    RestartConfig,
    RestartCoordinator,
    SourceUnreachable,
    TaskId,
    Verdict,
)
from headgate.restart.codec import register_of
from headgate.storage import MemoryStore
from headgate.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from headgate.restart import RestartSource

STOP = Answer(Verdict.STOP, reason="the disk is full")
RESTART = Answer(Verdict.RESTART)
CRASH = Failure(Cause("crash", "summary"))

Backend = Literal["asyncio", "trio"]


@dataclass
class Service:
    """An analysis service that all replicas ask: one analysis for each cycle, which takes ``seconds``."""

    seconds: float = 5.0
    answer: Answer = RESTART
    name: str = "service"
    elsewhere: bool = True
    begun: dict[str, float] = field(default_factory=dict[str, float])
    triggers: int = 0
    hangs: bool = False
    reachable: bool = True
    broken: bool = False

    async def trigger(self, cycle: Cycle) -> None:
        self.triggers += 1
        if not self.reachable:
            raise SourceUnreachable("connection refused")
        self.begun.setdefault(cycle.id, anyio.current_time())

    async def read(self, cycle: Cycle) -> Answer | None:
        if self.broken:
            raise ZeroDivisionError("a source with a fault")
        if not self.reachable:
            raise SourceUnreachable("connection refused")
        if self.hangs:
            await anyio.sleep_forever()
        begun = self.begun.get(cycle.id)
        if begun is None or anyio.current_time() < begun + self.seconds:
            return None
        return self.answer


@dataclass
class FlakyStore(MemoryStore):
    """Registers that can be away, or do what they are asked and lose the answer."""

    away: bool = False
    silent: bool = False
    loses_answers: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    async def read_register(self, name: str) -> tuple[int, bytes]:
        if self.away:
            raise StoreUnavailable("no connection")
        if self.silent:
            await anyio.sleep_forever()
        return await super().read_register(name)

    async def write_register(self, name: str, data: bytes, *, after: int) -> bool:
        if self.away:
            raise StoreUnavailable("no connection")
        done = await super().write_register(name, data, after=after)
        if self.loses_answers:
            self.loses_answers -= 1
            raise StoreUnavailable("the connection broke")
        return done


def coordinator(
    store: MemoryStore,
    sources: Sequence[RestartSource] = (),
    config: RestartConfig | None = None,
    name: str = "a",
) -> RestartCoordinator:
    return RestartCoordinator("tickets", store, sources=sources, config=config, replica=name, clock=lambda: 1e9)


async def one_failure(replica: RestartCoordinator, failure: Failure = CRASH) -> Decision:
    replica.failed(failure)
    return await replica.decision()


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> Backend:
    chosen: Backend = request.param
    return chosen


def play(backend: Backend, body: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await body()

    run_virtual(main, backend=backend)


def test_t56_analysis_and_recovery_go_on_together(backend: Backend) -> None:
    """Recovery took analysis plus rendezvous: here it takes the longer of both."""

    async def body() -> None:
        async with coordinator(MemoryStore(), [Service(seconds=5.0)]) as replica:
            await replica.enter()
            began = anyio.current_time()
            replica.failed(CRASH)
            assert anyio.current_time() == began, "triggering takes no time"
            await anyio.sleep(5.0)  # the recovery
            decision = await replica.decision()
            assert decision.basis is Basis.ANSWERS
            assert anyio.current_time() - began < 6.0

    play(backend, body)


@pytest.mark.parametrize("elsewhere", [True, False])
def test_t57_eight_replicas_one_analysis_one_verdict(backend: Backend, elsewhere: bool) -> None:
    """Every agent asked, paid and could disagree: here the source that says each time something else is asked once."""
    calls: list[str] = []

    async def fickle(cycle: Cycle) -> Answer:
        calls.append(cycle.id)
        await anyio.sleep(5.0)
        return STOP if len(calls) % 2 else RESTART

    async def body() -> None:
        store, service = MemoryStore(), Service()
        decisions: list[Decision] = []

        async def life(number: int) -> None:
            sources: list[RestartSource] = [service] if elsewhere else [CallableSource(fickle)]
            async with coordinator(store, sources, name=f"replica {number}") as replica:
                await replica.enter()
                await anyio.sleep(number / 10)
                decisions.append(await one_failure(replica))

        async with anyio.create_task_group() as replicas:
            for number in range(8):
                replicas.start_soon(life, number)
        assert len(decisions) == 8
        assert len(set(decisions)) == 1, "R1"
        assert len({trigger.replica for trigger in decisions[0].triggers}) == 8
        if elsewhere:
            assert service.triggers >= 8
            assert len(service.begun) == 1, "R2"
        else:
            assert len(calls) == 1, "R2"

    play(backend, body)


def test_t58_the_stop_is_the_record_and_stands_nowhere_else(backend: Backend) -> None:
    """The stop travelled beside the protocol: here who looks at the one record is stopped, who never failed too."""

    async def body() -> None:
        store = MemoryStore()
        async with coordinator(store, [Service(answer=STOP)]) as failing, coordinator(store, name="b") as healthy:
            await failing.enter()
            await healthy.enter()
            decision = await one_failure(failing)
            assert decision.action is Action.STOP
            assert await healthy.told_to_stop() == decision
            assert await healthy.decision() == decision
        async with coordinator(store, name="late") as late:
            entry = await late.enter()
            assert entry.closed == decision

    play(backend, body)


def test_t59_a_veto_reaches_the_decision_on_the_way_that_replicas_take(backend: Backend) -> None:
    """A test built a veto that could not enter the tested path: here one path says STOP with it, and not without."""

    async def decided(answer: Answer) -> Action:
        async with coordinator(MemoryStore(), [Service(answer=answer)]) as replica:
            await replica.enter()
            return (await one_failure(replica)).action

    async def body() -> None:
        assert await decided(RESTART) is Action.RESTART
        assert await decided(STOP) is Action.STOP

    play(backend, body)


def test_t60_a_stop_whose_write_is_lost_is_a_stop_for_all_or_for_none(backend: Backend) -> None:
    """Announcing the stop failed silently and the round was opened anyway: peers restarted while the leader stopped."""

    async def body() -> None:
        store, service = FlakyStore(), Service(answer=STOP)
        async with coordinator(store, [service]) as leader, coordinator(store, [service], name="b") as peer:
            await leader.enter()
            await peer.enter()
            leader.failed(CRASH)
            peer.failed(CRASH)
            await anyio.sleep(4.5)
            store.loses_answers = 3
            first, second = await leader.decision(), await peer.decision()
            assert first == second
            assert first.action is Action.STOP
            assert first.recorded

    play(backend, body)


def test_t60_while_the_store_is_away_everybody_goes_on_and_stops_when_it_is_back(backend: Backend) -> None:
    async def body() -> None:
        store = FlakyStore()
        async with coordinator(store, [Service(answer=STOP)]) as leader, coordinator(store, name="b") as peer:
            await leader.enter()
            await peer.enter()
            leader.failed(CRASH)
            await anyio.sleep(1.0)
            store.away = True
            peer.failed(CRASH)
            for replica in (leader, peer):
                decision = await replica.decision()
                assert (decision.action, decision.basis) == (Action.RESTART, Basis.STORE)
                assert not decision.recorded
            assert anyio.current_time() < 310.0
            store.away = False
            assert (await leader.told_to_stop()) == (await peer.told_to_stop())

    play(backend, body)


def test_t61_a_verdict_outlives_its_leader(backend: Backend) -> None:
    """A leader change lost it: here it stands in the store before anybody is told."""

    async def body() -> None:
        store = MemoryStore()
        async with coordinator(store, [Service(answer=STOP)]) as leader:
            await leader.enter()
            decision = await one_failure(leader)
        async with coordinator(store, [Service(answer=RESTART)], name="next") as follower:
            entry = await follower.enter()
            assert entry.closed == decision

    play(backend, body)


def test_t62_cancelling_one_who_waits_cancels_nothing_for_the_others(backend: Backend) -> None:
    """R6: cancelling the first waiter of a single-flight call cancelled all."""
    told: list[Decision] = []

    async def body() -> None:
        service = Service(answer=STOP)
        async with coordinator(MemoryStore(), [service]) as replica:
            await replica.enter()
            replica.failed(CRASH)
            async with anyio.create_task_group() as waiters:

                async def wait() -> None:
                    told.append(await replica.decision())

                with anyio.move_on_after(1.0) as first:
                    await replica.decision()
                assert first.cancelled_caught
                waiters.start_soon(wait)
                waiters.start_soon(wait)
        assert [one.action for one in told] == [Action.STOP, Action.STOP]
        assert len(service.begun) == 1

    play(backend, body)


def test_r3_a_hung_source_costs_the_timeout_and_no_more(backend: Backend) -> None:
    """R3: and what the others said counts."""

    async def body() -> None:
        config = RestartConfig(timeout=20.0)
        async with coordinator(MemoryStore(), [Service(hangs=True), Service(name="other")], config) as replica:
            await replica.enter()
            began = anyio.current_time()
            decision = await one_failure(replica)
            assert anyio.current_time() - began <= 20.1
            assert (decision.action, decision.basis) == (Action.RESTART, Basis.TIMEOUT)
            assert [one.heard for one in decision.answers] == [Heard.NOTHING, Heard.IN_TIME]

    play(backend, body)


def test_a_source_that_cannot_be_reached_or_has_a_fault_is_no_stop_and_costs_little(backend: Backend) -> None:
    async def body() -> None:
        for service, heard in ((Service(reachable=False), Heard.UNREACHABLE), (Service(broken=True), Heard.INVALID)):
            async with coordinator(MemoryStore(), [service]) as replica:
                await replica.enter()
                began = anyio.current_time()
                decision = await one_failure(replica)
                assert anyio.current_time() - began < 10.0
                assert decision.action is Action.RESTART
                assert [one.heard for one in decision.answers] == [heard]

    play(backend, body)


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
