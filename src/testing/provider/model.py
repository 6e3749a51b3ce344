"""The provider as a pure machine: which request is taken, what goes wrong with it, and the exact account of
it all.

The loopback server and the in-process provider both serve this model, so they agree in every decision. It
takes ``now`` in seconds and reads no clock; a request costs the same whatever came before.

>>> from headgate.testing.provider import Accepted, ModelSpec, ProviderModel, ProviderRequest, ProviderSpec
>>> model = ProviderModel(ProviderSpec(models={"m": ModelSpec(concurrency=1)}))
>>> first = model.begin(ProviderRequest("m", "Why?"), now=0.0)
>>> second = model.begin(ProviderRequest("m", "How?"), now=0.0)
>>> isinstance(first, Accepted), second.status, second.limit.value
(True, 429, 'concurrency')
>>> model.end(first.request_id, now=0.05)
>>> model.stats(now=0.05).models["m"].statuses
{'429': 1, '200': 1}
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, assert_never

from .dialects import Dialect, error_body, overloaded_status, rate_headers, retry_after_headers
from .draws import Draws, content_digest, draw, lognormal
from .served import Cost, Refusal, ServedModel
from .values import (
    Accepted,
    ContentCount,
    Decision,
    Fault,
    ProviderLimit,
    ProviderRequest,
    ProviderStats,
    Rejected,
    TokenCharge,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .spec import Capacity, ProviderSpec
    from .timeline import Slice

__all__ = ["ProviderModel"]

MESSAGES: Final = {
    ProviderLimit.CONCURRENCY: "too many concurrent requests",
    ProviderLimit.REQUESTS: "requests per minute",
    ProviderLimit.TOKENS: "tokens per minute",
    ProviderLimit.INPUT_TOKENS: "input tokens per minute",
    ProviderLimit.OUTPUT_TOKENS: "output tokens per minute",
}


@dataclass(frozen=True, slots=True)
class _InFlight:
    """An accepted request until its end: ``since`` when (seconds), and what is counted of it then."""

    served: ServedModel
    count: ContentCount
    status: str
    since: float
    input_tokens: int
    output_tokens: int


class ProviderModel:
    """A provider of ``spec``. ``epoch_s`` is the wall clock (seconds since 1970) at ``now == 0``, for dates
    in headers.

    ``now`` is in seconds, never negative, and never goes back. The provider's own clock (scripts, fixed
    windows, integrals) starts with its first request.
    """

    def __init__(self, spec: ProviderSpec, *, epoch_s: float = 0.0) -> None:
        self._seed = spec.seed
        self._epoch_s = epoch_s
        self._served = {name: ServedModel(name, model, spec.remember) for name, model in spec.models.items()}
        self._in_flight: dict[int, _InFlight] = {}
        self._last_id = 0
        self._start_s = math.inf
        self._unknown_model = 0

    def begin(self, request: ProviderRequest, now: float) -> Decision:
        """Decide about a request that arrives now. An ``Accepted`` one must be ended exactly once."""
        self._start(now)
        served = self._served.get(request.model)
        if served is None:
            return self._unknown(request.model)
        served.advance(now)
        digest = content_digest(request.content)
        count = served.contents.of(digest)
        draws = draw(self._seed, request.model, digest, count.accepted)
        made = _output_tokens(served, request, draws)
        refusal = served.refuse(_cost(served.capacity, request, made), now)
        if refusal is not None:
            return self._reject(served, count, refusal, now)
        sticky = draw(self._seed, request.model, digest, 0) if served.capacity.faults.sticky else draws
        fault = served.fault(request.content, draws, sticky)
        accepted = self._accept(served, fault, draws, made, now)
        status = "reset" if fault is Fault.RESET else str(accepted.status)
        entry = _InFlight(served, count, status, now, request.input_tokens, made)
        self._in_flight[accepted.request_id] = entry
        served.account.accept(fault, count)
        return accepted

    def end(self, request_id: int, now: float, *, left: bool = False) -> None:
        """Free the slot of an accepted request: it was served, or the client ``left`` before that."""
        entry = self._in_flight.pop(request_id, None)
        assert entry is not None, "a request ended twice, or was never accepted"
        entry.served.advance(now)
        account = entry.served.account
        account.finish("left" if left else entry.status)
        if entry.status == "200" and not left:
            account.answer(entry.input_tokens, entry.output_tokens, now - entry.since, entry.count)

    def change(self, name: str | None, change: Capacity, now: float) -> None:
        """Change what a model (None: every model) serves; fields not given stay. Raises KeyError."""
        for served in self._served.values() if name is None else (self._served[name],):
            served.change(change, now)

    def capacity(self, name: str) -> Capacity:
        """Return what a model serves at present. Raises KeyError."""
        return self._served[name].capacity

    def names(self) -> tuple[str, ...]:
        """Return the names of the models served."""
        return tuple(self._served)

    def in_flight(self) -> int:
        """Return how many requests are accepted and not ended."""
        return len(self._in_flight)

    def contents(self, name: str) -> Mapping[bytes, ContentCount]:
        """Return the counts by content digest of a model. Raises KeyError."""
        return self._served[name].contents.all()

    def count(self, name: str, content: str) -> ContentCount:
        """Return how often a content was requested, accepted and answered. Raises KeyError."""
        return self.contents(name).get(content_digest(content), ContentCount())

    def stats(self, now: float) -> ProviderStats:
        """Return the exact accounts of all models up to now."""
        for served in self._served.values():
            served.advance(now)
        models = {name: served.account.stats(served.contents) for name, served in self._served.items()}
        return ProviderStats(max(0.0, now - self._start_s), models, self._unknown_model)

    def timeline(self, name: str, now: float) -> tuple[Slice, ...]:
        """Return how busy a model was since its account began. Raises KeyError."""
        served = self._served[name]
        served.advance(now)
        return served.account.timeline.slices()

    def reset_stats(self, now: float) -> None:
        """Start all counts and the memory of contents again; requests in flight, quotas and scripts go on."""
        self._unknown_model = 0
        for served in self._served.values():
            served.reset_account(now)

    def next_tick(self, now: float) -> float:
        """Return the time of the next scripted change (infinity: none). Nothing has to happen then."""
        return min((served.next_tick() for served in self._served.values()), default=math.inf)

    def check(self) -> None:
        """Assert that every account adds up and agrees with the requests in flight."""
        for served in self._served.values():
            served.check()
        assert len(self._in_flight) == sum(served.account.in_flight for served in self._served.values())

    def _start(self, now: float) -> None:
        if math.isinf(self._start_s):
            self._start_s = now
            for served in self._served.values():
                served.start(now)

    def _unknown(self, name: str) -> Rejected:
        self._unknown_model += 1
        dialects = [served.capacity.headers for served in self._served.values()]
        body = error_body(dialects[0] if dialects else Dialect.NONE, 404, f"The model {name!r} does not exist.")
        return Rejected(404, {}, body, ProviderLimit.UNKNOWN_MODEL)

    def _reject(self, served: ServedModel, count: ContentCount, refusal: Refusal, now: float) -> Rejected:
        capacity = served.capacity
        status = capacity.reject or 429
        wait_s = refusal.wait_s if capacity.retry_after_s is None else capacity.retry_after_s
        wall_s = self._epoch_s + now
        headers = {
            **rate_headers(capacity.headers, served.states(now), wall_s),
            **retry_after_headers(capacity.retry_after, wait_s, wall_s),
        }
        served.account.reject(refusal.limit, status, count)
        return Rejected(status, headers, _refusal_body(served, status, refusal), refusal.limit)

    def _accept(self, served: ServedModel, fault: Fault | None, draws: Draws, made: int, now: float) -> Accepted:
        capacity = served.capacity
        latency_s = lognormal(capacity.latency.mean_s, capacity.latency.sigma, draws.latency)
        latency_s += capacity.latency.per_output_token_s * made
        latency_s, body_s = _durations(fault, latency_s, capacity.faults.slow_factor)
        status = _fault_status(fault, capacity.headers)
        error = None if status == 200 else error_body(capacity.headers, status, f"Simulated fault: {fault}.")
        self._last_id += 1
        return Accepted(
            request_id=self._last_id,
            latency_s=latency_s,
            output_tokens=made,
            tag=draws.tag,
            headers=rate_headers(capacity.headers, served.states(now), self._epoch_s + now),
            fault=fault,
            body_s=body_s,
            status=status,
            error=error,
        )


def _output_tokens(served: ServedModel, request: ProviderRequest, draws: Draws) -> int:
    """Return the length of the answer: as drawn, cut at the request's maximum."""
    shape = served.capacity.output_tokens
    drawn = max(1, round(lognormal(shape.mean, shape.sigma, draws.length)))
    return drawn if request.max_output_tokens is None else min(drawn, request.max_output_tokens)


def _cost(capacity: Capacity, request: ProviderRequest, made: int) -> Cost:
    if capacity.token_charge is TokenCharge.MAX_TOKENS and request.max_output_tokens is not None:
        return Cost(request.input_tokens, request.max_output_tokens)
    return Cost(request.input_tokens, made)


def _durations(fault: Fault | None, latency_s: float, slow_factor: float) -> tuple[float, float]:
    """Return the seconds until the answer's header, and those that its body takes after that."""
    match fault:
        case Fault.UNAUTHORIZED | Fault.BAD_REQUEST:
            return 0.0, 0.0
        case Fault.SLOW:
            return latency_s * slow_factor, 0.0
        case Fault.SLOW_BODY:
            return latency_s, latency_s * (slow_factor - 1)
        case _:
            return latency_s, 0.0


def _fault_status(fault: Fault | None, dialect: Dialect) -> int:
    match fault:
        case Fault.ERROR_500:
            return 500
        case Fault.OVERLOADED:
            return overloaded_status(dialect)
        case Fault.UNAUTHORIZED:
            return 401
        case Fault.BAD_REQUEST:
            return 400
        case None | Fault.RESET | Fault.HANG | Fault.MALFORMED | Fault.SLOW_BODY | Fault.SLOW:
            return 200
        case _:
            assert_never(fault)


def _refusal_body(served: ServedModel, status: int, refusal: Refusal) -> dict[str, object]:
    capacity = served.capacity
    if refusal.limit is ProviderLimit.EVERYTHING:
        return error_body(capacity.headers, status, f"The model {served.name} takes no requests now.")
    if capacity.vague:
        return error_body(capacity.headers, status, "Too many requests.")
    if math.isinf(refusal.wait_s):
        text = f"Request too large for {served.name}: it can never fit the limit on {MESSAGES[refusal.limit]}."
        return error_body(capacity.headers, status, text, refusal.limit)
    text = f"Rate limit reached for {served.name}: {MESSAGES[refusal.limit]}."
    return error_body(capacity.headers, status, text, refusal.limit)
