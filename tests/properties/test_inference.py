"""What the inference promises, whatever is accepted and rejected."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headgate.admission.inference import Inference, Rejection, Stage, Suspect
from headgate.values import LimitKind

flags = st.booleans()
accepted = st.tuples(st.just("accepted"), st.integers(0, 300), st.floats(0.0, 30.0))
rejected = st.tuples(
    st.just("rejected"), st.integers(0, 300), st.floats(0.0, 30.0), st.floats(0.0, 50.0), flags, flags, flags
)  # fmt: skip


@given(events=st.lists(st.one_of(accepted, rejected), max_size=60), pauses=st.lists(st.floats(0.0, 100.0), min_size=60))
def test_any_history_keeps_its_invariants(events: list[tuple[object, ...]], pauses: list[float]) -> None:
    """A rate is dropped only if it was on trial or established, and only a new trial takes anything back."""
    inference, now, spent = Inference(), 0.0, 0.0
    for event, pause in zip(events, pauses, strict=False):
        now += pause
        match event:
            case ("accepted", int(others), float(age)):
                inference.accepted(others, now - age)
                spent += 1.0
            case (
                "rejected", int(others), float(age), float(transit), bool(news), bool(record), bool(probing)
            ):  # fmt: skip
                before = inference.stage
                suspect = Suspect(LimitKind.REQUESTS, record, probing, spent, 1.0)
                judged = inference.judge(Rejection(others, now - age, transit, news), [suspect], now)
                assert judged.kind in (LimitKind.CONCURRENCY, LimitKind.REQUESTS)
                assert judged.dropped is None or (before is not Stage.NONE and inference.stage is Stage.NONE)
                began = before is Stage.NONE and inference.stage is Stage.TRIAL
                assert (judged.retract_since is not None) == began
                assert judged.retract_since is None or judged.retract_since <= now
                if before is Stage.NONE and not began:
                    assert judged.kind is LimitKind.CONCURRENCY
            case _:
                raise AssertionError(event)
        inference.check()


@given(
    slots=st.integers(2, 300),
    over=st.lists(st.integers(0, 2), min_size=5, max_size=40),
    gap_s=st.floats(0.5, 300.0),
    record=st.booleans(),
)
def test_a_provider_with_slots_alone_is_never_suspected_of_a_rate(
    slots: int, over: list[int], gap_s: float, record: bool
) -> None:
    """It accepts below its slots and rejects from there on, whatever the rate at which it happens to do so."""
    inference, now = Inference(), 0.0
    for number, above in enumerate(over):
        now += gap_s
        for others in range(max(0, slots - 20), slots):
            inference.accepted(others, now - gap_s / 2)
        suspect = Suspect(LimitKind.REQUESTS, record or number % 2 == 0, False, 10.0 * number, 1.0)
        judged = inference.judge(Rejection(slots + above, now, 1.0, True), [suspect], now + 0.1)
        assert judged.kind is LimitKind.CONCURRENCY
    assert inference.stage is Stage.NONE
