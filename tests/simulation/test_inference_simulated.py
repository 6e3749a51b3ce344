"""Whole gates against providers that label nothing: each limit is found, whatever it is, and kept.

Short versions of the design's cases; `make bench-admission` runs them for 30 virtual minutes.
"""

from __future__ import annotations

import pytest

from benchmarks.admission.cases import case_named
from benchmarks.admission.play import HEADGATE, play

# Ten virtual minutes, of which the search takes one or two: hence looser than the design's targets for thirty.
# (least utilisation, largest share of 429s after 120 s)
BOUNDS = {
    "concurrency 32": (0.985, 0.004),
    "600 a minute, silent": (0.95, 0.008),
    "600 a minute, Retry-After": (0.93, 0.01),
    "rejected count, silent": (0.90, 0.012),
    "32 and 240 a minute": (0.94, 0.02),
    "Retry-After 5 on 32": (0.93, 0.003),
}


@pytest.mark.parametrize("case", BOUNDS)
def test_the_limit_is_found_without_a_label(case: str) -> None:
    figures = play(HEADGATE, case_named(case), seed=1, seconds=600.0).figures
    utilisation, rejections = BOUNDS[case]
    assert figures.utilisation >= utilisation
    assert figures.late <= rejections
