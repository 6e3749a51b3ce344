"""How many tokens a request will probably use: what is reserved for it until its usage is known.

Decides the reservation of one resource's requests from the usage that earlier ones like them reported: input tokens
are the caller's estimate times what such estimates turned out to be worth, output tokens are the mean and one standard
deviation. What the caller says is believed until there are enough samples, and no longer: an explicit number is a
prior, not a law. Where the caller says nothing and nothing like it was seen, other requests of the resource stand in.

Does not decide whether a request can ever fit: a reservation is cut to what the buckets hold, so a learned number
makes a request wait for a full bucket, never refuses it. Does not settle: the actual usage replaces the reservation at
release.

Requests are alike when they come from the same column of the same run (``Request.alike``, else the flow). Pure; O(1)
per request, bounded however many flows there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Final

from ..values import LimitKind, Outcome, Usage
from .moments import Moments, MomentsMemory
from .values import TOKENS_MAX, Request

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .scope import Scope

__all__ = ["FLOWS_MAX", "FlowMemory", "TokenEstimates", "TokenMemory"]

FLOWS_MAX: Final = 64
"""How many kinds of request are told apart per resource; the one that was heard of longest ago goes."""

_ANSWERED: Final = frozenset({Outcome.SUCCESS, Outcome.INVALID_OUTPUT})
"""The model answered in full: the usage is what such requests cost."""


@dataclass(frozen=True, slots=True)
class FlowMemory:
    """What is worth keeping of one kind of request: tokens as mean and standard deviation.

    ``stated`` and ``actual`` are the input tokens of requests whose caller gave an estimate, ``unstated`` those of
    requests whose caller gave none. None where too few were seen.
    """

    stated: MomentsMemory | None = None
    actual: MomentsMemory | None = None
    unstated: MomentsMemory | None = None
    output: MomentsMemory | None = None


@dataclass(frozen=True, slots=True)
class TokenMemory:
    """What is worth keeping of one resource: each kind of request by its name, and all of them together."""

    together: FlowMemory | None
    flows: Mapping[str, FlowMemory]


class _Flow:
    """What requests of one kind have used."""

    __slots__ = ("actual", "output", "stated", "unstated")

    def __init__(self) -> None:
        self.stated = Moments()
        self.actual = Moments()
        self.unstated = Moments()
        self.output = Moments()

    def learn(self, stated: int, usage: Usage) -> None:
        # No request has an input of nothing: then the client counted the output only.
        if usage.input_tokens and stated:
            self.stated.add(float(stated))
            self.actual.add(float(usage.input_tokens))
        elif usage.input_tokens:
            self.unstated.add(float(usage.input_tokens))
        self.output.add(float(usage.output_tokens))

    def worth(self) -> float | None:
        """Actual input tokens for each that was stated, over all; None while too few were seen."""
        if not self.actual.settled or not self.stated.mean:
            return None
        return self.actual.mean / self.stated.mean

    def learned(self) -> FlowMemory | None:
        kept = FlowMemory(self.stated.learned(), self.actual.learned(), self.unstated.learned(), self.output.learned())
        return None if kept == FlowMemory() else kept

    def restore(self, kept: FlowMemory) -> None:
        if kept.stated is not None and kept.actual is not None:
            self.stated.restore(kept.stated)
            self.actual.restore(kept.actual)
        if kept.unstated is not None:
            self.unstated.restore(kept.unstated)
        if kept.output is not None:
            self.output.restore(kept.output)


class TokenEstimates:
    """What the requests of one resource use, by flow. Made for lanes that pass a token limit, and asked only there."""

    # The mutable state: flows in the order in which they were last heard of, and all of them together.
    __slots__ = ("_all", "_flows")

    def __init__(self) -> None:
        self._flows: dict[str, _Flow] = {}
        self._all = _Flow()

    def reserve(self, request: Request, scopes: Iterable[Scope]) -> Request:
        """``request`` with the numbers to reserve for it, and as its caller stated it in ``stated``."""
        flow = self._flows.get(request.alike or request.flow)
        tokens_in, tokens_out = self._fitted(self._input(flow, request), self._output(flow, request), scopes)
        if (tokens_in, tokens_out) == (request.input_tokens, request.output_tokens):
            return request
        return Request(
            request.resource,
            tokens_in,
            tokens_out,
            request.flow,
            request.weight,
            request.priority,
            request.queue_timeout_s,
            request.alike,
            request,
        )

    def learn(self, request: Request, outcome: Outcome, usage: Usage) -> None:
        """An attempt of ``request`` ended and reported ``usage``. Only one that was answered in full teaches."""
        if outcome not in _ANSWERED:
            return
        name = request.alike or request.flow
        flow = self._flows.pop(name, None) or _Flow()
        if len(self._flows) >= FLOWS_MAX:
            del self._flows[next(iter(self._flows))]
        self._flows[name] = flow
        stated = (request.stated or request).input_tokens
        flow.learn(stated, usage)
        # For a flow that says nothing itself; what estimates are worth differs from one to the next.
        self._all.output.add(float(usage.output_tokens))
        if usage.input_tokens and not stated:
            self._all.unstated.add(float(usage.input_tokens))

    def learned(self) -> TokenMemory | None:
        """What is worth keeping across a restart; None while there is nothing."""
        flows = {name: flow.learned() for name, flow in self._flows.items()}
        kept = {name: memory for name, memory in flows.items() if memory is not None}
        together = self._all.learned()
        return TokenMemory(together, kept) if kept or together is not None else None

    def restore(self, kept: TokenMemory) -> None:
        """Begin with what an earlier process learned. What this one has seen itself stays."""
        if kept.together is not None and not self._all.output.count:
            self._all.restore(kept.together)
        for name, memory in kept.flows.items():
            if name not in self._flows and len(self._flows) < FLOWS_MAX:
                self._flows[name] = flow = _Flow()
                flow.restore(memory)

    def footprint(self) -> int:
        """How many flows are kept."""
        return len(self._flows)

    def check(self) -> None:
        """Assert every invariant."""
        assert len(self._flows) <= FLOWS_MAX
        for flow in (self._all, *self._flows.values()):
            for moments in (flow.stated, flow.actual, flow.unstated, flow.output):
                moments.check()
            assert flow.stated.count == flow.actual.count

    def _input(self, flow: _Flow | None, request: Request) -> int:
        if request.input_tokens:
            worth = None if flow is None else flow.worth()
            return request.input_tokens if worth is None else ceil(request.input_tokens * worth)
        if flow is not None and flow.unstated.count:
            return ceil(flow.unstated.usual)
        return ceil(self._all.unstated.usual)

    def _output(self, flow: _Flow | None, request: Request) -> int:
        if flow is not None and (flow.output.settled or (flow.output.count and not request.output_tokens)):
            return ceil(flow.output.usual)
        return request.output_tokens or ceil(self._all.output.usual)

    @staticmethod
    def _fitted(tokens_in: int, tokens_out: int, scopes: Iterable[Scope]) -> tuple[int, int]:
        """The numbers cut to what the buckets can hold, and to what can be meant at all."""
        tokens_in, tokens_out = min(tokens_in, TOKENS_MAX), min(tokens_out, TOKENS_MAX)
        for scope in scopes:
            if not scope.token_limited:
                continue
            for kind, limiter in scope.limiters.items():
                if kind is _REQUESTS:
                    continue
                capacity = limiter.capacity
                if kind is not _OUTPUT and tokens_in > capacity:
                    tokens_in = int(capacity)
                if kind is not _INPUT:
                    room = capacity if kind is _OUTPUT else capacity - tokens_in
                    if tokens_out > room:
                        tokens_out = int(room)
        return tokens_in, tokens_out


# Looking a member up on its enum costs as much as the comparison.
_REQUESTS: Final = LimitKind.REQUESTS
_INPUT: Final = LimitKind.INPUT_TOKENS
_OUTPUT: Final = LimitKind.OUTPUT_TOKENS
