"""What hypothesis may choose of a provider: its moods, what it claims, and scripts of both."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import hypothesis.strategies as st

from tests.properties.lying_provider import Claim, Mood

DIALECTS = [
    "x-ratelimit-{}-requests",
    "x-ratelimit-{}-tokens",
    "x-ratelimit-{}-requests-day",
    "anthropic-ratelimit-requests-{}",
    "anthropic-ratelimit-input-tokens-{}",
    "ratelimit-{}",
]
RESETS = ["1s", "0", "6m0s", "24h0m0s", "-5", "86400", "1500000000", "soon", "2009-01-01T00:00:00Z", "768h"]
NONSENSE = ["", "-1", "NaN", "1e999", "unlimited", "9" * 15, "9" * 200, "100, 100;w=60", "0", "1", "0.000001"]

claims = st.builds(
    Claim,
    dialect=st.sampled_from(DIALECTS),
    limit=st.sampled_from([None, 1.0, 3.0, 40.0, 1000.0, 1e6, 1e12]),
    left=st.sampled_from([None, 0.0, 1.0, 0.5, 0.01]),
    reset=st.sampled_from(RESETS),
    raw=st.one_of(st.none(), st.tuples(*[st.sampled_from(NONSENSE)] * 2, st.sampled_from(RESETS + NONSENSE))),
)

RETRY_AFTER = [None, "any", "0", "1", "20", "36000", "-1", "soon", "9" * 15, "refill", "date0", "date7200", "date-7200"]
shares = st.sampled_from([0.0, 0.0, 0.0, 0.01, 0.1, 0.5, 0.95, 1.0])

plain_moods = st.builds(
    Mood,
    slots=st.sampled_from([1.0, 4.0, 16.0, 64.0]),
    per_minute=st.sampled_from([inf, inf, 30.0, 600.0]),
    latency_s=st.sampled_from([1.0, 0.1, 10.0]),
    reject_s=st.sampled_from([0.05, 1.0]),
    rejects=st.sampled_from([0.0, 0.1, 1.0]),
    retry_after=st.sampled_from([None, None, "1", "any"]),
    label=st.booleans(),
)
"""One or two faults at a time."""

wild_moods = st.builds(
    Mood,
    slots=st.sampled_from([inf, 0.0, 1.0, 2.0, 8.0, 64.0, 1000.0]),
    per_minute=st.sampled_from([inf, inf, 0.5, 6.0, 60.0, 600.0, 10_000.0]),
    burst=st.sampled_from([1.0, 10.0, 100.0]),
    fixed_window=st.booleans(),
    counts_rejected=st.booleans(),
    latency_s=st.sampled_from([1.0, 0.001, 0.1, 10.0, 90.0, 590.0]),
    spread=st.sampled_from([0.0, 1.0]),
    reject_s=st.sampled_from([0.05, 0.001, 1.0, 30.0, 300.0]),
    rejects=shares,
    overloads=shares,
    errors=shares,
    hangs=shares,
    resets=shares,
    retry_after=st.sampled_from(RETRY_AFTER),
    clock_skew_s=st.sampled_from([0.0, 3600.0, -3600.0, 36_000.0]),
    label=st.booleans(),
    account_wide=st.booleans(),
    claims=st.lists(claims, max_size=3).map(tuple),
    claimed=st.sampled_from([1.0, 0.1]),
    usage_factor=st.sampled_from([1.0, 0.0, 0.1, 10.0, 1e3, 1e9]),
)
moods = plain_moods | wild_moods


@dataclass(frozen=True, slots=True)
class Phase:
    """``mood`` for ``seconds``, in which at most ``sends`` requests are made, ``backlog`` of them waiting at a time."""

    mood: Mood
    seconds: float = 10.0
    sends: int = 200
    backlog: int = 2


phases = st.builds(
    Phase,
    mood=moods,
    seconds=st.sampled_from([1.0, 0.01, 0.2, 3.0, 10.0, 70.0, 400.0, 1500.0]),
    sends=st.sampled_from([40, 0, 1, 5, 200]),
    backlog=st.sampled_from([2, 1, 40]),
)
scripts = st.lists(phases, min_size=1, max_size=4).map(tuple)
