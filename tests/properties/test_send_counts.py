"""The ring of bins against a list of all that was sent, also after pauses that are longer than the ring."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headgate.admission.rate_counts import BIN_S, BINS, SendCounts

GAPS = st.one_of(
    st.integers(0, 3),
    st.integers(4, 2 * BINS),
    st.sampled_from((BINS - 2, BINS - 1, BINS, BINS + 1, 3 * BINS)),
)
"""Bins from one send to the next."""


@given(gaps=st.lists(GAPS, min_size=1, max_size=40), spans=st.lists(st.integers(0, BINS - 1), min_size=1, max_size=5))
def test_the_ring_counts_what_was_sent(gaps: list[int], spans: list[int]) -> None:
    counts = SendCounts()
    bins: list[int] = []
    for gap in gaps:
        bins.append((bins[-1] if bins else 0) + gap)
        now, units_before = (bins[-1] + 0.5) * BIN_S, counts.units
        counts.sent(1.0, now, idle=False)
        counts.check()
        in_bin = bins.count(bins[-1])
        assert counts.accepted(0.0, now, units_before) == in_bin - 1, "what came before it in its bin"
        for span in spans:
            first = bins[-1] - span
            assert counts.sends(span * BIN_S, now) == sum(one >= first for one in bins)
