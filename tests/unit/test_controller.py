"""The shell around the gate on both loops, in virtual time: waiting, timing out, being cancelled, closing."""

from __future__ import annotations

import anyio
import pytest

from headgate.admission import AdmissionController, Bidder
from headgate.admission.values import Denied, DenyReason, Grant, Lease, ReleaseResult, Request
from headgate.errors import AdmissionDenied, AdmissionTimeout, ModelTimeout, ProviderTimeout
from headgate.testing.clock import run_virtual
from headgate.values import Outcome, ResourceKey
from tests.unit.controlled import MODEL, ONE, Backend, Stated, hold, under

FOUR: Stated = {"openai/gpt-x": {"concurrency": 4, "queue_timeout": 5.0}, "openai/other": {"concurrency": 1}}


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> Backend:
    chosen: Backend = request.param
    return chosen


def test_room_is_given_at_once_and_a_release_serves_the_next(backend: Backend) -> None:
    """A1, A10."""

    async def body(controller: AdmissionController) -> list[float]:
        came: list[float] = []

        async def one() -> None:
            came.append(await hold(controller, 1.0, Request(MODEL, queue_timeout_s=60.0)))
            controller.gate.check()

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(one)
        return sorted(came)

    assert under(backend, body, FOUR) == [0.0] * 4 + [1.0] * 4 + [2.0] * 2


def test_a3_the_deadline_passes_and_nothing_is_left_of_the_waiter(backend: Backend) -> None:
    """A3: exactly at its deadline, with everything that one wants to know of it."""

    async def body(controller: AdmissionController) -> None:
        kept = await controller.acquire(Request(MODEL))
        with pytest.raises(AdmissionTimeout) as caught:
            await controller.acquire(Request(MODEL))
        assert anyio.current_time() == 5.0
        error = caught.value
        assert (error.resource, error.reason, error.waited_s) == ("openai/gpt-x", "queue_timeout", 5.0)
        assert error.pressure is not None
        assert (error.pressure.in_flight, error.pressure.limit, error.pressure.waiting) == (1, 1.0, 0)
        assert controller.pressure(MODEL).waiting == 0
        assert "queue_timeout" in str(error)
        controller.release(kept, Outcome.SUCCESS)

    under(backend, body)


def test_a3_a_timeout_of_zero_answers_at_once(backend: Backend) -> None:
    """A3: there is room, or there is not."""

    async def body(controller: AdmissionController) -> None:
        lease = await controller.acquire(Request(MODEL, queue_timeout_s=0.0))
        with pytest.raises(AdmissionTimeout):
            await controller.acquire(Request(MODEL, queue_timeout_s=0.0))
        assert anyio.current_time() == 0.0
        assert controller.pressure(MODEL).waiting == 0
        controller.release(lease, Outcome.SUCCESS)

    under(backend, body)


def test_a3_a_deadline_does_not_run_while_the_resource_is_closed(backend: Backend) -> None:
    """A3: in a cooldown nobody could be served, so nobody is late."""

    async def body(controller: AdmissionController) -> None:
        lease = await controller.acquire(Request(MODEL))
        controller.block("openai/gpt-x", 100.0)
        controller.release(lease, Outcome.SUCCESS)
        came = await hold(controller, 0.1)
        assert 100.0 <= came < 105.0

    under(backend, body)


def test_a2_a_cancelled_waiter_leaves_the_queue(backend: Backend) -> None:
    """A2: and the one behind it gets what it would have got."""

    async def body(controller: AdmissionController) -> None:
        kept = await controller.acquire(Request(MODEL))
        with anyio.move_on_after(1.0):
            await controller.acquire(Request(MODEL))
            raise AssertionError("there was no room")
        assert controller.pressure(MODEL).waiting == 0
        controller.release(kept, Outcome.SUCCESS)
        assert await hold(controller, 0.0) == 1.0

    under(backend, body)


@pytest.mark.parametrize("cancelled_first", [True, False])
def test_t16_late_cancel(backend: Backend, cancelled_first: bool) -> None:
    """T16: elsewhere a waiter that was cancelled in the tick in which it got its lease kept the lease for ever."""

    async def body(controller: AdmissionController) -> None:
        kept = await controller.acquire(Request(MODEL))
        scope = anyio.CancelScope()

        async def wait() -> None:
            with scope:
                lease = await controller.acquire(Request(MODEL))
                controller.release(lease, Outcome.CANCELLED, sent=False)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.sleep(1.0)
            # Both happen before the waiter can look at either.
            if cancelled_first:
                scope.cancel()
            controller.release(kept, Outcome.SUCCESS)
            assert controller.gate.leases() == 1
            scope.cancel()
        assert controller.gate.leases() == 0
        assert await hold(controller, 0.0) == 1.0

    under(backend, body)


def test_t16_late_cancel_of_a_bid(backend: Backend) -> None:
    """T16: the same for a scheduler's bid: withdrawn after it was granted, its lease is in the answers."""

    async def body(controller: AdmissionController) -> None:
        kept = await controller.acquire(Request(MODEL))
        bidder = Bidder()
        bid = controller.bid(Request(MODEL), bidder, anyio.current_time())
        assert isinstance(bid, int)
        controller.release(kept, Outcome.SUCCESS)
        assert not controller.withdraw(bid)
        (answer,) = bidder.answers
        assert isinstance(answer, Grant)
        controller.release(answer.lease, Outcome.CANCELLED, sent=False)
        again = controller.bid(Request(MODEL), bidder, anyio.current_time())
        assert isinstance(again, Lease)
        controller.release(again, Outcome.SUCCESS)

    under(backend, body)


def test_t10_local_cap_dressed_as_429(backend: Backend) -> None:
    """T10: elsewhere the full local queue raised RateLimitError with status 429, and callers backed off.

    Here it is a timeout of the local queue that carries no status and is no provider's error.
    """

    async def body(controller: AdmissionController) -> None:
        kept = await controller.acquire(Request(MODEL))
        with pytest.raises(AdmissionTimeout) as caught:
            await controller.acquire(Request(MODEL, queue_timeout_s=1.0))
        error = caught.value
        assert isinstance(error, ModelTimeout)
        assert isinstance(error, TimeoutError)
        assert not isinstance(error, ProviderTimeout)
        assert not any(hasattr(error, name) for name in ("status", "status_code", "code", "response"))
        assert "429" not in str(error)
        assert "rate" not in str(error).lower()
        controller.release(kept, Outcome.SUCCESS)

    under(backend, body)


def test_t11_denial_dressed_as_timeout(backend: Backend) -> None:
    """T11: elsewhere an unregistered model surfaced as a timeout, and was retried for ever."""

    async def body(controller: AdmissionController) -> None:
        unknown = ResourceKey.parse("anthropic/claude-x")
        for ask in (controller.acquire(Request(unknown)),):
            with pytest.raises(AdmissionDenied) as caught:
                await ask
            assert caught.value.reason == "unknown_resource"
            assert caught.value.resource == "anthropic/claude-x"
            assert not isinstance(caught.value, TimeoutError)
            assert '"*"' in str(caught.value), "the cure is missing"
        with pytest.raises(AdmissionDenied, match="did you mean openai/gpt-x"):
            controller.pressure(ResourceKey.parse("openai2/gpt-x"))
        assert anyio.current_time() == 0.0

    under(backend, body)


def test_a_request_that_can_never_fit_is_denied_with_its_size(backend: Backend) -> None:
    """A7, T7: at once, and not as a timeout."""

    async def body(controller: AdmissionController) -> None:
        with pytest.raises(AdmissionDenied, match=r"10001 \+ 0 tokens") as caught:
            await controller.acquire(Request(MODEL, input_tokens=10_001))
        assert caught.value.reason == "too_large"
        assert caught.value.pressure is not None

    under(backend, body, {"openai/gpt-x": {"concurrency": 4, "tokens_per_minute": 10_000}})


def test_aclose_refuses_those_who_wait_and_those_who_come(backend: Backend) -> None:
    """A2: at shutdown every waiter is answered, and leases that are out may still come back."""

    async def body(controller: AdmissionController) -> None:
        kept = await controller.acquire(Request(MODEL))
        reasons: list[tuple[str, float]] = []

        async def wait() -> None:
            with pytest.raises(AdmissionDenied) as caught:
                await controller.acquire(Request(MODEL))
            reasons.append((caught.value.reason, caught.value.waited_s))

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(wait)
            await anyio.sleep(2.0)
            await controller.aclose()
        assert reasons == [("shutdown", 2.0)] * 3
        with pytest.raises(AdmissionDenied, match="shut down"):
            await controller.acquire(Request(MODEL))
        assert controller.try_acquire(Request(MODEL)) == Denied(DenyReason.SHUTDOWN, "openai/gpt-x")
        assert controller.release(kept, Outcome.SUCCESS) is ReleaseResult.RELEASED

    under(backend, body)


def test_leaving_the_controller_passes_the_callers_own_error(backend: Backend) -> None:
    async def main() -> None:
        async with AdmissionController(ONE):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run_virtual(main, backend=backend)
