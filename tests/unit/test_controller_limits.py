"""The shell around the gate on both loops: limits that change while others wait, what it answers, and who bids."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from headgate.admission import AdmissionController, Bidder
from headgate.admission.gate import Gate
from headgate.admission.limits import Limits
from headgate.admission.values import Denied, DenyReason, Grant, Lease, ReleaseResult, Request
from headgate.errors import ConfigError
from headgate.testing.clock import VirtualLoop
from headgate.values import Outcome, ResourceKey, Usage
from tests.unit.controlled import MODEL, ONE, Backend, Stated, hold, under

if TYPE_CHECKING:
    from anyio.abc import TaskGroup


OTHER = ResourceKey.parse("openai/other")


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> Backend:
    chosen: Backend = request.param
    return chosen


def test_set_limits_while_others_wait(backend: Backend) -> None:
    """A1, A10: a higher limit serves waiters in the same step, a lower one only stops new requests."""

    async def body(controller: AdmissionController) -> None:
        came: list[float] = []

        async def one() -> None:
            came.append(await hold(controller, 10.0, Request(MODEL, queue_timeout_s=100.0)))

        async with anyio.create_task_group() as tasks:
            for _ in range(6):
                tasks.start_soon(one)
            await anyio.sleep(1.0)
            assert controller.pressure(MODEL).waiting == 5
            controller.set_limits("openai/gpt-x", Limits(concurrency=4))
            assert controller.pressure(MODEL).in_flight == 4
            await anyio.sleep(1.0)
            controller.set_limits("openai/gpt-x", {"concurrency": 1})
            assert controller.pressure(MODEL).in_flight == 4
        # One left at 10 (three were still there), three at 11, so the fifth came at 11 and the sixth after it.
        assert sorted(came) == [0.0, 1.0, 1.0, 1.0, 11.0, 21.0]
        with pytest.raises(ConfigError, match=r"no resource in use has the scope 'openai/nope'.*openai/gpt-x"):
            controller.set_limits("openai/nope", Limits(concurrency=1))

    under(backend, body)


def test_a_limit_that_every_model_has_is_taken_away_from_one(backend: Backend) -> None:
    every: Stated = {"*": {"requests_per_minute": 1, "queue_timeout": 600.0}}

    async def body(controller: AdmissionController) -> None:
        controller.register(MODEL)
        controller.register(OTHER)

        async def two(model: ResourceKey) -> float:
            began = anyio.current_time()
            for _ in range(2):
                await hold(controller, 0.0, Request(model))
            return anyio.current_time() - began

        assert await two(MODEL) >= 55
        controller.change_limits("openai/gpt-x", {"requests_per_minute": None, "queue_timeout": None})
        assert await two(MODEL) < 1
        controller.change_limits("openai/gpt-x", {"queue_timeout": 5.0})
        assert await two(MODEL) < 1, "another change brought it back"
        controller.change_limits("openai/gpt-x", {"queue_timeout": None})
        stated = controller.book.for_scope("openai/gpt-x", leaf=True)
        assert stated is not None
        assert stated.queue_timeout == 600.0
        assert await two(OTHER) >= 55, "it was taken away from one model"
        with pytest.raises(ConfigError, match="unknown key"):
            controller.change_limits("openai/gpt-x", {"requests_per_minut": None})

    under(backend, body, every)


def test_what_an_alias_states_goes_on_to_bound_its_target(backend: Backend) -> None:
    """A9: also after the target was given other limits."""
    other_name: Stated = {
        "openai/gpt-x": {"concurrency": 8},
        "azure/x": {"alias_of": "openai/gpt-x", "concurrency": 2, "requests_per_minute": 60},
    }

    async def body(controller: AdmissionController) -> None:
        controller.register(ResourceKey.parse("azure/x"))
        controller.set_limits("openai/gpt-x", {"concurrency": 20})
        found = controller.gate.scopes()["openai/gpt-x"].limits
        assert (found.maximum, found.requests_per_minute) == (2, 60.0)
        controller.change_limits("openai/gpt-x", {"concurrency": 1})
        assert controller.gate.scopes()["openai/gpt-x"].limits.maximum == 1

    under(backend, body, other_name)


def test_what_an_account_states_while_running_holds_for_its_models(backend: Backend) -> None:
    """As it does when it is stated before; a model's own word counts more, and other accounts hear nothing of it."""
    stated: Stated = {
        "openai": {"cooldown": 300.0},
        "openai/gpt-x": {"concurrency": 8},
        "openai/other": {"concurrency": 8, "cooldown": 40.0},
        "acme/small": {"concurrency": 8},
        "acme/alias": {"alias_of": "openai/gpt-x"},
    }

    async def body(controller: AdmissionController) -> None:
        for model in ("openai/gpt-x", "openai/gpt-x:embedding", "openai/other", "acme/small"):
            controller.register(ResourceKey.parse(model))
        controller.set_limits("openai", {"cooldown": 30.0, "share": 0.5})
        scopes = controller.gate.scopes()
        assert {name: (scope.limits.cooldown_cap_s, scope.limits.share) for name, scope in scopes.items()} == {
            "openai": (30.0, 0.5),
            "openai/gpt-x": (30.0, 0.5),
            "openai/gpt-x:embedding": (30.0, 0.5),
            "openai/other": (40.0, 0.5),
            "acme": (600.0, 1.0),
            "acme/small": (600.0, 1.0),
        }
        assert scopes["openai/gpt-x"].limits.maximum == 4, "half of the requests at once, too"
        assert scopes["openai/gpt-x"].cooldown.cap_s == 30.0
        controller.register(ResourceKey.parse("acme/alias"))
        controller.change_limits("openai", {"share": None})
        assert scopes["openai/gpt-x"].limits.maximum == 8
        assert scopes["openai/gpt-x"].limits.share == 1.0

    under(backend, body, stated)


def test_a_number_that_no_float_holds_changes_nothing(backend: Backend) -> None:
    async def body(controller: AdmissionController) -> None:
        controller.register(MODEL)
        with pytest.raises(ConfigError, match=r"concurrency = 1000.*\.\.\.: .* use 999999999 or less"):
            controller.change_limits("openai/gpt-x", {"concurrency": 10**400})
        with pytest.raises(ConfigError, match=r"too long to be written out"):
            controller.change_limits("openai/gpt-x", {"requests_per_minute": 10**5000})
        controller.change_limits("openai/gpt-x", {"queue_timeout": 5.0})
        assert controller.gate.scopes()["openai/gpt-x"].limits.maximum == 1

    under(backend, body)


def test_try_acquire_says_why_not_and_never_overtakes(backend: Backend) -> None:
    """A4: with somebody waiting, one that does not wait is told so even when a slot is about to be free."""

    async def body(controller: AdmissionController) -> None:
        lease = controller.try_acquire(Request(MODEL))
        assert isinstance(lease, Lease)
        refused = controller.try_acquire(Request(MODEL))
        assert refused == Denied(DenyReason.NO_CAPACITY, "openai/gpt-x")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hold, controller, 1.0)
            await anyio.sleep(0.5)
            assert controller.try_acquire(Request(MODEL)) == Denied(DenyReason.WAITERS_AHEAD, "openai/gpt-x")
            # One blocked resource never blocks another.
            other = controller.try_acquire(Request(OTHER))
            assert isinstance(other, Lease)
            controller.release(other, Outcome.SUCCESS)
            controller.release(lease, Outcome.SUCCESS)

    under(backend, body)


def test_the_release_says_what_it_did(backend: Backend) -> None:
    """A2: never raises, never counts twice."""

    async def body(controller: AdmissionController) -> None:
        lease = await controller.acquire(Request(MODEL))
        assert controller.release(lease, Outcome.SUCCESS, usage=Usage(3, 4)) is ReleaseResult.RELEASED
        assert controller.release(lease, Outcome.SUCCESS) is ReleaseResult.DUPLICATE
        assert controller.release(lease, Outcome.RATE_LIMITED) is ReleaseResult.DUPLICATE
        assert controller.pressure(MODEL).rate_limited == 0
        async with AdmissionController(ONE) as foreign:
            theirs = await foreign.acquire(Request(MODEL))
            mine = await controller.acquire(Request(MODEL))
            theirs.id += 1_000_000
            assert controller.release(theirs, Outcome.SUCCESS) is ReleaseResult.UNKNOWN
            theirs.id -= 1_000_000
            assert controller.pressure(MODEL).in_flight == 1
            foreign.release(theirs, Outcome.SUCCESS)
            controller.release(mine, Outcome.SUCCESS)

    under(backend, body)


def test_the_pressure_shows_who_waits_and_why(backend: Backend) -> None:
    async def body(controller: AdmissionController) -> None:
        lease = await controller.acquire(Request(MODEL))
        bidder = Bidder()
        bid = controller.bid(Request(MODEL, priority=0), bidder, anyio.current_time())
        assert isinstance(bid, int)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hold, controller, 0.5)
            await anyio.sleep(0.1)
            look = controller.pressure(MODEL)
            assert (look.in_flight, look.limit, look.waiting, look.bids) == (1, 1.0, 1, 1)
            assert (look.reason, look.blocked_s, look.admitted) == ("no_capacity", 0.0, 1)
            controller.release(lease, Outcome.SUCCESS)
            # The request of a running task goes before a scheduler's bid for a new one.
            assert not bidder.answers
        (answer,) = bidder.answers
        assert isinstance(answer, Grant)
        assert answer.lease.acquired_at == 0.6
        controller.release(answer.lease, Outcome.SUCCESS)
        assert controller.pressure(MODEL).reason is None

    under(backend, body)


def test_t05_polling_waiters(monkeypatch: pytest.MonkeyPatch) -> None:
    """T5: elsewhere each waiter woke every 50 ms, and 256 of them saturated a core.

    Here 10,000 that wait for an hour cost nothing in it: the gate is not looked at once, and the loop, which counts
    its turns, has nothing to do but to end the hour.
    """
    waiters = 10_000
    served: list[float] = []
    parked: list[int] = []
    ticks = count_calls(monkeypatch, Gate, "tick")
    turns = count_calls(monkeypatch, VirtualLoop, "jump")

    async def body(controller: AdmissionController) -> None:
        kept = await controller.acquire(Request(MODEL))

        async def wait() -> None:
            lease = await controller.acquire(Request(MODEL, queue_timeout_s=1e6))
            served.append(anyio.current_time())
            controller.release(lease, Outcome.SUCCESS)

        async with anyio.create_task_group() as tasks:
            for _ in range(waiters):
                tasks.start_soon(wait)
            await anyio.sleep(1.0)
            assert controller.pressure(MODEL).waiting == waiters
            ticks[0] = turns[0] = 0
            await anyio.sleep(3600.0)
            parked.extend((ticks[0], turns[0]))
            controller.release(kept, Outcome.SUCCESS)

    under("asyncio", body)
    assert parked == [0, 1]
    assert len(served) == waiters
    assert set(served) == {3601.0}


def count_calls(monkeypatch: pytest.MonkeyPatch, kind: type[object], name: str) -> list[int]:
    """Count the calls of a method."""
    calls = [0]
    method = getattr(kind, name)

    def counted(*args: object) -> object:
        calls[0] += 1
        return method(*args)

    monkeypatch.setattr(kind, name, counted)
    return calls


def test_the_limit_grows_while_a_scheduler_waits(backend: Backend) -> None:
    """Section 9: saturated means full with demand waiting, and a standing bid is demand.

    A scheduler bids again the moment that it was served, so that somebody waits all the time but at the very instants
    at which the gate decides. A law that looked at those instants only never grew: 4 in flight for ever.
    """

    grown: list[float] = []

    async def body(controller: AdmissionController) -> None:
        bidder = Bidder()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(schedule, controller, bidder, tasks)
            await anyio.sleep(4.0)
            grown.append(controller.pressure(MODEL).limit)
            await controller.aclose()

    under(backend, body, {"openai/gpt-x": {"concurrency": "1-4-1000"}})
    assert grown == [pytest.approx(64, rel=0.2)], "not a doubling a second for four seconds, from 4"


async def schedule(controller: AdmissionController, bidder: Bidder, tasks: TaskGroup) -> None:
    """Start requests of a quarter of a second without end, with one standing bid, as the engine does."""
    controller.register(MODEL)

    async def send(lease: Lease) -> None:
        await anyio.sleep(0.25)
        controller.release(lease, Outcome.SUCCESS)

    while True:
        answer = controller.bid(Request(MODEL), bidder, anyio.current_time())
        while isinstance(answer, int):
            await bidder.wakeup.wait()
            for one in bidder.answers:
                answer = one.lease if isinstance(one, Grant) else one.denied
            bidder.answers.clear()
        if isinstance(answer, Denied):
            return
        tasks.start_soon(send, answer)
