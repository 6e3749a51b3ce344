"""The same cases through what users run: the anyio controller in virtual time, against ``headgate.testing``'s provider.

The controller's waiters, its clock task, its reading of real headers and the provider's own machine take the place of
the simulator's shortcuts. One task a request, two waiting tasks a flow. It costs some 0.5 ms of CPU a request, five
times what the gate alone does.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, cast

import anyio

from headgate.admission import AdmissionController
from headgate.admission.headers import parse_feedback
from headgate.admission.values import Request
from headgate.testing.clock import run_virtual
from headgate.testing.provider import (
    Change,
    Dialect,
    Latency,
    ModelSpec,
    OutputTokens,
    ProviderResponseError,
    ProviderSpec,
    RetryAfter,
    VirtualProvider,
    Window,
)
from headgate.testing.provider.draws import content_digest, draw, lognormal
from headgate.values import Feedback, LimitKind, Outcome, ResourceKey, Usage

from .provider import Hint
from .simulation import LEG_S, MEAN_S, SIGMA, Demand, Record, new_record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyio.abc import TaskGroup

    from headgate.admission.values import Lease

    from .cases import AdmissionCase
    from .provider import Rule
    from .simulation import Job

__all__ = ["demand_for", "durations_of", "play_shell", "spec_of"]

MODEL: Final = ResourceKey.parse("bench/m")
WAITERS: Final = 2
FORMS: Final = {Hint.NONE: RetryAfter.NONE, Hint.SECONDS: RetryAfter.SECONDS, Hint.MS: RetryAfter.MS}


def spec_of(rule: Rule, phase_s: float, *, seed: int = 0, sigma: float = SIGMA, first_s: float = 0.0) -> ProviderSpec:
    """``rule`` in the words of ``headgate.testing``, whose clock starts with the first request, at ``first_s``."""
    begin, end = rule.refuses
    changes = [Change(at_s=at - first_s, concurrency=slots) for at, slots in rule.slots[1:]]
    if begin < inf:
        changes += [Change(at_s=begin - first_s, reject=429), Change(at_s=end - first_s, reject=None)]
    model = ModelSpec(
        concurrency=rule.slots[0][1] if rule.slots else None,
        requests_per_minute=rule.per_minute,
        request_burst=rule.burst or None,
        tokens_per_minute=rule.tokens_per_minute,
        window=Window.FIXED if rule.fixed_window else Window.BUCKET,
        window_phase_s=(phase_s - first_s) % 60.0,
        count_rejected=rule.rejected_count,
        latency=Latency(mean_s=MEAN_S, sigma=sigma),
        output_tokens=OutputTokens(mean=1),
        headers=Dialect.IETF if rule.states else Dialect.NONE,
        retry_after=FORMS[rule.hint],
        retry_after_s=rule.retry_after_s,
        script=tuple(changes),
    )
    return ProviderSpec(models={"m": model}, seed=seed)


def durations_of(seed: int) -> Callable[[int], float]:
    """How long the provider of ``seed`` serves job number n: its own draw, so that an oracle is offered the same."""

    def duration_s(number: int) -> float:
        return lognormal(MEAN_S, SIGMA, draw(seed, "m", content_digest(f"job {number}"), 0).latency)

    return duration_s


def play_shell(case: AdmissionCase, *, seed: int, seconds: float, warm_s: float) -> list[Record]:
    """Run ``case`` for ``seconds``; one record a client, as the simulator makes them."""
    return run_virtual(_main, case, seed, seconds, warm_s)


async def _main(case: AdmissionCase, seed: int, seconds: float, warm_s: float) -> list[Record]:
    provider = VirtualProvider(
        spec_of(case.rule, case.phase_s(seed), seed=seed, first_s=LEG_S), network_s=LEG_S, epoch_s=1_700_000_000.0
    )
    clients = [
        _ShellClient(case, provider, demand_for(case, seed, number), seed * 100 + number, seconds, warm_s)
        for number in range(case.clients)
    ]
    async with anyio.create_task_group() as group:
        for client in clients:
            group.start_soon(client.run)
    return [client.record for client in clients]


def demand_for(case: AdmissionCase, seed: int, number: int) -> Demand:
    """The demand of client ``number``: its jobs take as long as the provider will draw for them."""
    first = number * 1_000_000
    durations = durations_of(seed)
    return Demand(
        seed * 100 + number,
        tokens=case.rule.tokens_per_minute is not None,
        rows=case.rows,
        first=first,
        durations=durations,
    )


class _ShellClient:
    """One controller, two tasks a flow that wait for leases, one task a request."""

    def __init__(
        self,
        case: AdmissionCase,
        provider: VirtualProvider,
        demand: Demand,
        seed: int,
        seconds: float,
        warm_s: float,
    ) -> None:
        self.record = new_record(int(seconds) + 1)
        self._case = case
        self._provider = provider
        self._demand = demand
        self._seed = seed
        self._seconds = seconds
        self._warm_s = warm_s

    async def run(self) -> None:
        """Ask for leases for ``seconds``, or until all rows are done, then let what is in flight finish."""
        cap = self._case.cap
        limits: dict[str, dict[str, object]] = {str(MODEL): {"concurrency": f"1-4-{cap}" if cap else "auto"}}
        async with (
            AdmissionController(limits, seed=self._seed, wall_clock=self._provider.wall_s) as controller,
            anyio.create_task_group() as requests,
        ):
            with anyio.move_on_after(self._seconds):
                async with anyio.create_task_group() as waiters:
                    for flow in range(len(self._case.weights)):
                        for _ in range(WAITERS):
                            waiters.start_soon(self._feed, controller, requests, flow)

    async def _feed(self, controller: AdmissionController, requests: TaskGroup, flow: int) -> None:
        while True:
            job = self._demand.take(flow)
            if job is None:
                if not self.record.in_flight and self._demand.ended():
                    return
                await anyio.sleep(LEG_S)  # one that is in flight may still be refused and come back
                continue
            request = Request(
                MODEL,
                int(job.estimate),
                flow=f"flow {flow}",
                weight=self._case.weights[flow],
                queue_timeout_s=inf,
            )
            try:
                lease = await controller.acquire(request)
            except BaseException:
                self._demand.back(job)
                raise
            self.record.in_flight += 1
            requests.start_soon(self._send, controller, lease, job)

    async def _send(self, controller: AdmissionController, lease: Lease, job: Job) -> None:
        began, record = anyio.current_time(), self.record
        late = began >= self._warm_s
        record.sent += 1
        record.late_sent += late
        second = int(began + LEG_S)
        try:
            # The provider charges what it reads and the one token that it writes.
            tokens = max(0, int(job.tokens) - 1)
            answer = await self._provider.chat("m", f"job {job.number}", input_tokens=tokens)
        except ProviderResponseError as refusal:
            record.refused += 1
            record.late_refused += late
            if second < len(record.refusals):
                record.refusals[second] += 1
            record.in_flight -= 1
            self._demand.back(job)
            controller.release(lease, Outcome.RATE_LIMITED, feedback=self._feedback(refusal))
            return
        now = anyio.current_time()
        record.serve(began + LEG_S, now - LEG_S)
        if second < len(record.accepted):
            record.accepted[second] += 1
            record.tokens[second] += job.tokens
            record.flows[job.flow] = record.flows.get(job.flow, 0) + 1
        record.answered += 1
        record.last_answer = now
        record.in_flight -= 1
        usage = Usage(answer.usage.input_tokens, answer.usage.output_tokens) if job.tokens else None
        controller.release(lease, Outcome.SUCCESS, feedback=self._read(answer.headers, 200), usage=usage)

    def _feedback(self, refusal: ProviderResponseError) -> Feedback:
        """The headers; the name of the limit in the body only in the cases in which rejections are labelled."""
        feedback = self._read(refusal.headers, refusal.status_code)
        if not self._case.rule.labelled:
            return feedback
        error = cast("Mapping[str, object]", refusal.body["error"])
        return Feedback(retry_after_s=feedback.retry_after_s, kind=LimitKind(str(error["type"])))

    def _read(self, headers: Mapping[str, str], status: int) -> Feedback:
        return parse_feedback(headers, wall_now=self._provider.wall_s(), status=status)
