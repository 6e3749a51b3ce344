"""The provider machine against naive models: exact limits, fates without order, accounts that add up."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate, combinations_with_replacement

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headgate.testing.provider import (
    Accepted,
    Capacity,
    Fault,
    Faults,
    Latency,
    ModelSpec,
    OutputTokens,
    ProviderLimit,
    ProviderModel,
    ProviderRequest,
    ProviderSpec,
    Rejected,
    Window,
)

gaps = st.integers(0, 160).map(lambda eighths: eighths / 8)  # exact in floats, so that edges are exact
contents = st.sampled_from([f"row {number}" for number in range(12)])

FAULTS = Faults(error_500=0.2, reset=0.1, hang=0.1, malformed=0.1, slow=0.1, slow_body=0.1)
RANDOM = ModelSpec(latency=Latency(mean_s=2, sigma=1), output_tokens=OutputTokens(mean=20, sigma=1), faults=FAULTS)


def _times(all_gaps: list[float]) -> list[float]:
    return list(accumulate(all_gaps))


@given(st.lists(gaps, min_size=1, max_size=60), st.floats(1, 600), st.integers(1, 20))
def test_accepted_in_any_window_never_exceeds_the_bucket(all_gaps: list[float], per_minute: float, burst: int) -> None:
    spec = ModelSpec(requests_per_minute=per_minute, request_burst=burst)
    provider = ProviderModel(ProviderSpec(models={"m": spec}))
    taken = [now for now in _times(all_gaps) if _is_accepted(provider, now)]
    for first, last in combinations_with_replacement(range(len(taken)), 2):
        allowed = burst + (taken[last] - taken[first]) * per_minute / 60
        assert last - first + 1 <= allowed + 1e-6


@given(st.lists(st.tuples(gaps, st.integers(1, 300)), min_size=1, max_size=60), st.integers(1, 3000))
def test_accepted_tokens_in_any_window_never_exceed_the_bucket(asked: list[tuple[float, int]], per_minute: int) -> None:
    spec = ModelSpec(tokens_per_minute=per_minute, output_tokens=OutputTokens(mean=50, sigma=1))
    provider = ProviderModel(ProviderSpec(models={"m": spec}))
    taken: list[tuple[float, int]] = []
    now = 0.0
    for number, (gap, tokens) in enumerate(asked):
        now += gap
        decision = provider.begin(ProviderRequest("m", str(number), tokens), now)
        if isinstance(decision, Accepted):
            taken.append((now, tokens + decision.output_tokens))
    for first, last in combinations_with_replacement(range(len(taken)), 2):
        spent = sum(cost for _, cost in taken[first : last + 1])
        assert spent <= per_minute * (1 + (taken[last][0] - taken[first][0]) / 60) + 1e-6


@given(st.lists(gaps, min_size=1, max_size=80), st.integers(0, 8), st.integers(0, 59))
def test_accepted_in_a_fixed_minute_never_exceeds_the_quota_and_always_reaches_it(
    all_gaps: list[float], quota: int, phase_s: int
) -> None:
    spec = ModelSpec(requests_per_minute=quota, window=Window.FIXED, window_phase_s=phase_s)
    provider = ProviderModel(ProviderSpec(models={"m": spec}))
    times = _times(all_gaps)
    asked: Counter[int] = Counter(math.floor((now - times[0] - phase_s) / 60) for now in times)
    taken: Counter[int] = Counter(
        math.floor((now - times[0] - phase_s) / 60) for now in times if _is_accepted(provider, now)
    )
    assert taken == Counter({minute: min(quota, count) for minute, count in asked.items() if quota})


def _is_accepted(provider: ProviderModel, now: float) -> bool:
    return isinstance(provider.begin(ProviderRequest("m", "Why?"), now), Accepted)


orders_of_rows = st.lists(contents, min_size=1, max_size=40).flatmap(
    lambda rows: st.tuples(st.just(rows), st.permutations(rows))
)


@given(orders_of_rows, st.integers(0, 9), st.booleans())
def test_the_same_seed_gives_each_request_the_same_fate_in_any_order(
    orders: tuple[list[str], list[str]], seed: int, crowded: bool
) -> None:
    """S8: fault, latency and length depend on content and attempt, not on arrival or rejections between."""
    first, second = orders
    assert _fates(first, seed, concurrency=None) == _fates(second, seed, concurrency=1 if crowded else None)


Fate = tuple[Fault | None, float, float, int, int]


def _fates(rows: list[str], seed: int, concurrency: int | None) -> dict[tuple[str, int], Fate]:
    """Ask for each row until it is accepted, finishing earlier requests when the model is full."""
    spec = RANDOM.changed_by(Capacity(concurrency=concurrency))
    provider = ProviderModel(ProviderSpec(models={"m": spec}, seed=seed))
    fates: dict[tuple[str, int], Fate] = {}
    attempts: Counter[str] = Counter()
    running: list[int] = []
    for now, row in enumerate(rows):
        decision = provider.begin(ProviderRequest("m", row), now)
        while isinstance(decision, Rejected):
            provider.end(running.pop(), now)
            decision = provider.begin(ProviderRequest("m", row), now)
        running.append(decision.request_id)
        fates[row, attempts[row]] = (
            decision.fault,
            decision.latency_s,
            decision.body_s,
            decision.output_tokens,
            decision.tag,
        )
        attempts[row] += 1
    return fates


def test_another_seed_gives_other_fates() -> None:
    rows = [f"row {number}" for number in range(12)]
    assert _fates(rows, 1, None) != _fates(rows, 2, None)


@dataclass
class _Running:
    request_id: int
    content: str
    status: str
    since: float
    tokens: tuple[int, int]


class ProviderAccounts(RuleBasedStateMachine):
    """Random traffic, endings and changes, against books that remember everything."""

    @initialize(concurrency=st.none() | st.integers(0, 4), per_minute=st.none() | st.integers(1, 120))
    def start(self, concurrency: int | None, per_minute: int | None) -> None:
        spec = RANDOM.changed_by(Capacity(concurrency=concurrency, requests_per_minute=per_minute))
        self.provider = ProviderModel(ProviderSpec(models={"m": spec}, seed=1))
        self.concurrency = concurrency
        self.now = 0.0
        self.running: list[_Running] = []
        self.rejected: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.accepted: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.tokens = (0, 0)
        self.busy_s = self.served_s = 0.0

    @rule(content=st.sampled_from(["row 0", "row 1", "row 2"]), tokens=st.integers(1, 50))
    def begin(self, content: str, tokens: int) -> None:
        decision = self.provider.begin(ProviderRequest("m", content, tokens), self.now)
        if isinstance(decision, Rejected):
            self.rejected[decision.limit.value] += 1
            self.statuses[str(decision.status)] += 1
            full = self.concurrency is not None and len(self.running) >= self.concurrency
            assert (decision.limit is ProviderLimit.CONCURRENCY) == full
            return
        assert self.concurrency is None or len(self.running) < self.concurrency
        status = "reset" if decision.fault is Fault.RESET else str(decision.status)
        self.accepted[content] += 1
        self.running.append(_Running(decision.request_id, content, status, self.now, (tokens, decision.output_tokens)))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), left=st.booleans())
    def end(self, data: st.DataObject, left: bool) -> None:
        one = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.provider.end(one.request_id, self.now, left=left)
        self.statuses["left" if left else one.status] += 1
        if one.status == "200" and not left:
            self.answered[one.content] += 1
            self.tokens = (self.tokens[0] + one.tokens[0], self.tokens[1] + one.tokens[1])
            self.served_s += self.now - one.since

    @rule(gap=gaps)
    def wait(self, gap: float) -> None:
        self.now += gap
        self.busy_s += gap * len(self.running)

    @rule(concurrency=st.none() | st.integers(0, 4))
    def change(self, concurrency: int | None) -> None:
        self.provider.change(None, Capacity(concurrency=concurrency), self.now)
        self.concurrency = concurrency

    @invariant()
    def accounts_agree(self) -> None:
        if not hasattr(self, "provider"):
            return
        self.provider.check()
        stats = self.provider.stats(self.now).models["m"]
        assert stats.in_flight == len(self.running)
        assert stats.rejected == dict(self.rejected)
        assert stats.statuses == dict(self.statuses)
        assert stats.accepted == self.accepted.total()
        assert stats.requests == stats.accepted + sum(stats.rejected.values())
        assert stats.requests == stats.in_flight + sum(stats.statuses.values())
        assert (stats.input_tokens, stats.output_tokens) == self.tokens
        assert stats.accepted_again == self.accepted.total() - len(self.accepted)
        assert stats.answered_again == self.answered.total() - len(self.answered)
        assert math.isclose(stats.busy_s, self.busy_s, abs_tol=1e-6)
        assert math.isclose(stats.served_s, self.served_s, abs_tol=1e-6)
        for content, count in self.accepted.items():
            assert self.provider.count("m", content).accepted == count
            assert self.provider.count("m", content).answered == self.answered[content]


TestProviderAccounts = ProviderAccounts.TestCase
