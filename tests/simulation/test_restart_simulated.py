"""Replicas with their shells in virtual time: who waits how long, who is asked how often, who is told what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

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
    Verdict,
)
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

if TYPE_CHECKING:
    from headgate.restart import RestartSource


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> Backend:
    chosen: Backend = request.param
    return chosen


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
                await anyio.sleep((number + 1) / 10)  # all have entered before one of them fails
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


def test_half_a_character_in_what_anybody_says_ends_no_replica(backend: Backend) -> None:
    """An exception that names half a surrogate pair: no encoding takes it, so it is kept, and sent, written out."""

    async def raises(_: Cycle) -> Answer:
        raise ValueError("half \ud83d")

    async def body() -> None:
        sources: list[RestartSource] = [
            Service(answer=Answer(Verdict.STOP, reason="half \ud83d")),
            CallableSource(raises),
        ]
        async with coordinator(MemoryStore(), sources, name="host \udce9") as replica:
            await replica.enter()
            replica.failed(Failure(Cause("crash", "summary \ud83d", "half \ud83d")))
            decision = await replica.decision()
        assert decision.action is Action.STOP
        assert decision.cause == Cause("crash", "summary \\ud83d", "half \\ud83d")
        assert {one.reason for one in decision.answers} == {"half \\ud83d"}
        assert decision.replica.startswith("host \\udce9")

    play(backend, body)
