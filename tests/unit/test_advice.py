"""The sentence at the end of a report: the knob that would help, and no knob where none does."""

from __future__ import annotations

import pytest

from headgate import Usage
from headgate.engine.advice import advice_of
from headgate.engine.meter import Pace
from headgate.engine.report import ResourceReport


def resource(
    *paces: tuple[Pace, float], name: str = "acme/small", busy: float = 1.0, refused: int = 0, peak: int = 4
) -> ResourceReport:
    return ResourceReport(
        resource=name,
        requests=100,
        outcomes={"success": 100 - refused, "rate_limited": refused},
        usage=Usage(),
        peak_in_flight=peak,
        mean_limit=8.0,
        busy_s=busy,
        queued_s=0.0,
        wasted=refused,
        seconds={pace.value: seconds for pace, seconds in paces},
        bound_s=None,
    )


@pytest.mark.parametrize(
    ("pace", "knob"),
    [
        (Pace.CONCURRENCY_LIMIT, "raise its concurrency"),
        (Pace.REQUEST_LIMIT, "requests_per_minute"),
        (Pace.TOKEN_LIMIT, "tokens-per-minute"),
        (Pace.COOLDOWN, "the provider allows less"),
        (Pace.HELD_BACK, "see the failures"),
        (Pace.STORE, "a faster disk"),
        (Pace.WORKERS, "max_workers"),
        (Pace.BUDGET, "the budget"),
        (Pace.NO_READY_WORK, "rows come too slowly"),
        (Pace.LATENCY, ""),
    ],
)
def test_what_took_half_of_the_time_names_its_knob(pace: Pace, knob: str) -> None:
    others = [(other, 0.1) for other in Pace if other is not pace]
    advice = advice_of((resource((pace, 1.0), *others),))
    assert knob in advice
    assert bool(advice) == bool(knob)


def test_nothing_with_half_of_the_time_is_no_reason_for_advice() -> None:
    assert advice_of((resource((Pace.STORE, 4.0), (Pace.WORKERS, 3.0), (Pace.COOLDOWN, 3.0)),)) == ""
    assert advice_of((resource(),)) == ""
    assert advice_of(()) == ""


def test_the_busiest_resource_is_the_one_that_is_spoken_of() -> None:
    idle = resource((Pace.NO_READY_WORK, 9.0), name="acme/idle", busy=0.5)
    assert "acme/small" in advice_of((idle, resource((Pace.WORKERS, 9.0), busy=8.0)))


def test_a_limit_that_was_learned_from_refusals_is_not_to_be_raised() -> None:
    learned = advice_of((resource((Pace.CONCURRENCY_LIMIT, 9.0), refused=12, peak=30),))
    assert "12 beyond that were refused" in learned
    assert "8 requests at once" in learned
    assert "raise its concurrency" not in learned
    # Stated: never more in flight than the limit, whatever the refusals were about.
    assert "raise its concurrency" in advice_of((resource((Pace.CONCURRENCY_LIMIT, 9.0), refused=12, peak=8),))
    # Adaptive, and its peak was when the limit was higher: nobody refused anything.
    assert "raise its concurrency" in advice_of((resource((Pace.CONCURRENCY_LIMIT, 9.0), peak=30),))
