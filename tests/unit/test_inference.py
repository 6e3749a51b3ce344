"""Which limit was it: what makes the inference suspect a rate, try it, establish it, and give it up."""

from __future__ import annotations

from headgate.admission.inference import Inference, Judgement, Rejection, Stage, Suspect
from headgate.values import LimitKind

CONCURRENCY, REQUESTS, TOKENS = LimitKind.CONCURRENCY, LimitKind.REQUESTS, LimitKind.TOKENS


def rejection(others: int, sent_at: float, *, transit: float = 0.3, news: bool = True) -> Rejection:
    return Rejection(others, sent_at, transit, news)


def suspect(spent: float = 0.0, *, record: bool = True, probing: bool = False, kind: LimitKind = REQUESTS) -> Suspect:
    return Suspect(kind, record, probing, spent, 1.0)


def accept(inference: Inference, others: int, sent_at: float, times: int = 30) -> None:
    for _ in range(times):
        inference.accepted(others, sent_at)


def tried(now: float = 0.0) -> Inference:
    """One whose rate went on trial 20 s after ``now``: twice rejected where as many in flight had been accepted."""
    inference = Inference()
    inference.judge(rejection(40, now), [suspect(0.0)], now + 0.1)
    for number in (1, 2):
        accept(inference, 39, now + 10.0 * number - 1.0)
        inference.judge(rejection(39, now + 10.0 * number), [suspect(100.0 * number)], now + 10.0 * number + 0.1)
    assert inference.stage is Stage.TRIAL
    return inference


def test_the_first_rejection_is_taken_for_concurrency() -> None:
    inference = Inference()
    assert inference.judge(rejection(32, 5.0), [suspect()], 5.1) == Judgement(CONCURRENCY)
    assert inference.stage is Stage.NONE


def test_what_concurrency_does_not_explain_twice_puts_the_rate_on_trial() -> None:
    inference = Inference()
    inference.judge(rejection(40, 5.0), [suspect(0.0)], 5.1)
    accept(inference, 39, 10.0)
    assert inference.judge(rejection(39, 15.0), [suspect(100.0)], 15.1).kind is CONCURRENCY
    accept(inference, 39, 20.0)
    # All that was learned since the first of them is taken back.
    assert inference.judge(rejection(39, 25.0), [suspect(200.0)], 25.1) == Judgement(REQUESTS, retract_since=5.1)
    assert inference.stage is Stage.TRIAL


def test_without_a_record_of_the_rate_there_is_no_trial() -> None:
    """Others use the same slots: rejections come at any number in flight, and at any rate."""
    inference, spent = Inference(), 0.0
    for number in range(20):
        now = 10.0 * number
        spent += (50.0, 71.0, 62.0, 83.0, 44.0)[number % 5]
        accept(inference, 39, now - 1.0)
        assert inference.judge(rejection(39, now), [suspect(spent, record=False)], now + 0.1).kind is CONCURRENCY
    assert inference.stage is Stage.NONE


def test_spans_that_let_through_the_same_put_the_rate_on_trial_without_any_record() -> None:
    """A bucket of a large burst was full at first, so no later span is a record; but each refill is the same."""
    inference, now, spent = Inference(), 0.0, 0.0
    for seconds in (10.0, 7.0, 23.0, 12.0, 31.0, 9.0):
        now += seconds
        spent += 4.0 * seconds
        accept(inference, 19, now - 1.0)
        judged = inference.judge(rejection(19, now), [suspect(spent, record=False)], now + 0.1)
    assert judged.kind is REQUESTS
    assert inference.stage is Stage.TRIAL


def test_that_concurrency_explains_every_rejection_is_enough() -> None:
    """Requests that all take the same time make a concurrency limit let through exactly the same, too."""
    inference, now = Inference(), 0.0
    for number in range(12):
        now += 10.0
        accept(inference, 31, now - 1.0)
        assert inference.judge(rejection(32, now), [suspect(64.0 * number)], now + 0.1).kind is CONCURRENCY
    assert inference.stage is Stage.NONE


def strange(inference: Inference, times: int, *, others: int = 39, shared: bool = False) -> None:
    """So many rejections that a rate explains and concurrency does not, with no two spans alike."""
    spent = 0.0
    for number in range(times):
        now = 10.0 * (number + 1)
        spent += 50.0 + 30.0 * (number % 2)
        accept(inference, others, now - 1.0)
        inference.judge(Rejection(others, now, 0.3, True, shared), [suspect(spent)], now + 0.1)


def test_where_others_use_the_same_slots_it_takes_more() -> None:
    """As many in flight may have been accepted just now: the others had less."""
    alone, shared = Inference(), Inference()
    strange(alone, 5)
    strange(shared, 5, shared=True)
    assert alone.stage is Stage.TRIAL
    assert shared.stage is Stage.NONE


def test_with_few_in_flight_two_are_enough() -> None:
    many, few = Inference(), Inference()
    strange(many, 3)
    strange(few, 3, others=5)
    assert many.stage is Stage.NONE
    assert few.stage is Stage.TRIAL


def test_a_recovery_is_no_trial() -> None:
    """More is accepted than was measured, and the next rejection is at more than ever: the slots came back."""
    inference = Inference()
    strange(inference, 2)
    inference.judge(rejection(32, 100.0), [suspect(700.0)], 100.1)
    accept(inference, 50, 190.0)
    assert inference.judge(rejection(64, 200.0), [suspect(2000.0)], 200.1).kind is CONCURRENCY


def test_a_window_that_is_used_up_is_tried_at_its_second_end() -> None:
    """Nothing more is accepted until the next one, however few are in flight."""
    inference, spent = Inference(), 0.0
    for end in (30.0, 90.0):
        accept(inference, 29, end - 20.0)
        spent += 40.0
        for number, others in enumerate((30, 26, 19, 8, 3)):
            at = end + number
            inference.judge(rejection(others, at, news=number == 0), [suspect(spent, record=number == 0)], at + 0.1)
        assert (inference.stage is Stage.TRIAL) == (end == 90.0)


def test_a_measurement_that_more_is_accepted_than_it_allows_is_evidence_too() -> None:
    inference = Inference()
    inference.judge(rejection(30, 0.0), [suspect(0.0)], 0.1)
    accept(inference, 40, 5.0)
    inference.judge(rejection(41, 10.0), [suspect(100.0)], 10.1)
    assert inference.stage is Stage.NONE
    accept(inference, 50, 15.0)
    assert inference.judge(rejection(51, 20.0), [suspect(200.0)], 20.1).kind is REQUESTS


def test_of_two_rates_the_one_that_explains_more_is_tried() -> None:
    inference = Inference()
    kinds = [(True, True), (True, True), (False, True), (True, True)]
    for number, (requests, tokens) in enumerate(kinds):
        now = 10.0 * number
        accept(inference, 39, now - 1.0)
        both = [suspect(record=requests), suspect(record=tokens, kind=TOKENS)]
        inference.judge(rejection(39, now), both, now + 0.1)
    assert (inference.stage, inference.kind) == (Stage.TRIAL, TOKENS)


def test_a_burst_is_one_piece_of_evidence() -> None:
    """All were sent before the first answer came, however late theirs come."""
    inference = Inference()
    inference.judge(rejection(40, 0.0), [suspect()], 0.1)
    for number in range(1, 20):
        accept(inference, 39, 3.0 * number - 1.0)
        assert inference.judge(rejection(39, 0.05), [suspect()], 3.0 * number).kind is CONCURRENCY
    assert inference.stage is Stage.NONE


def test_a_trial_with_ever_fewer_accepted_fails_and_the_next_takes_more() -> None:
    inference = tried()
    spent, dropped = 200.0, None
    for number in range(1, 5):
        now = 20.0 + 10.0 * number
        spent += 60.0 / number
        accept(inference, 39, now - 1.0)
        judged = inference.judge(rejection(20, now), [suspect(spent)], now + 0.1)
        assert dropped is None, "too early"
        dropped = judged.dropped
    assert dropped is REQUESTS
    assert inference.stage is Stage.NONE
    for number in (1, 2, 3):
        now = 100.0 + 10.0 * number
        accept(inference, 39, now - 1.0)
        assert inference.judge(rejection(30, now), [suspect(spent)], now + 0.1).kind is CONCURRENCY


def test_a_trial_that_goes_on_as_before_establishes_the_rate() -> None:
    inference = tried()
    for number in (1, 2, 3):
        now = 20.0 + 10.0 * number
        accept(inference, 45, now - 1.0)
        judged = inference.judge(rejection(30, now), [suspect(200.0 + 100.0 * number)], now + 0.1)
        assert judged == Judgement(REQUESTS)
    assert inference.stage is Stage.ESTABLISHED


def test_with_an_established_rate_more_in_flight_than_ever_is_still_a_matter_of_concurrency() -> None:
    """A provider may have both limits."""
    inference = tried()
    for number in (1, 2, 3):
        now = 20.0 + 10.0 * number
        accept(inference, 30, now - 1.0)
        inference.judge(rejection(20, now), [suspect(200.0 + 100.0 * number)], now + 0.1)
    accept(inference, 44, 45.0, times=2)
    assert inference.judge(rejection(45, 60.0), [suspect(600.0)], 60.1) == Judgement(CONCURRENCY)
    assert inference.stage is Stage.ESTABLISHED
    # Unless the rate was just raised, and never was more accepted.
    assert inference.judge(rejection(45, 70.0), [suspect(700.0, probing=True)], 70.1) == Judgement(REQUESTS)


def test_what_is_rejected_alone_is_no_matter_of_concurrency() -> None:
    inference = Inference()
    for number in range(3):
        inference.judge(rejection(0, 10.0 * number), [suspect(record=False)], 10.0 * number + 0.1)
    assert inference.stage is Stage.TRIAL


def test_a_rate_that_is_known_needs_no_trial() -> None:
    """An earlier process learned it, or the provider labelled its rejections until now."""
    inference = Inference()
    known = Suspect(TOKENS, record=True, probing=False, spent=0.0, cost=1.0, known=True)
    inference.judge(rejection(32, 5.0), [suspect(), known], 5.1)
    assert (inference.stage, inference.kind) == (Stage.ESTABLISHED, TOKENS)


def test_a_rate_is_not_reached_at_the_same_number_in_flight_twice() -> None:
    """Both explain a rejection that ends a probe at a height never seen before. The first time it is the rate's; if it
    comes at exactly that height again, the slots are used up, and the rate may rise on.
    """
    inference = tried()
    ends = suspect(1_000.0, probing=True)
    assert inference.judge(rejection(50, 60.0), [ends], 60.1).kind is REQUESTS
    accept(inference, 30, 90.0)
    assert inference.judge(rejection(53, 120.0), [suspect(2_000.0, probing=True)], 120.1).kind is REQUESTS
    accept(inference, 30, 150.0)
    assert inference.judge(rejection(53, 180.0), [suspect(3_000.0, probing=True)], 180.1).kind is CONCURRENCY
