"""The configuration: unknown keys are errors, impossible values are errors, and it survives JSON."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from headgate.testing.provider import (
    Capacity,
    Change,
    Control,
    Dialect,
    Fault,
    Faults,
    Latency,
    ModelSpec,
    ProviderSpec,
    RetryAfter,
    Window,
)


def test_a_specification_survives_json() -> None:
    spec = ProviderSpec(
        models={
            "m": ModelSpec(
                concurrency=4,
                window=Window.FIXED,
                headers=Dialect.ANTHROPIC,
                retry_after=RetryAfter.DATE,
                faults=Faults(hang=0.5, poison={"BAD": Fault.ERROR_500}),
                script=(Change(at_s=1, concurrency=None), Change(at_s=2, reject=429)),
            )
        },
        seed=3,
    )
    again = ProviderSpec.model_validate_json(spec.model_dump_json(exclude_unset=True))
    assert again == spec
    assert [change.model_fields_set for change in again.models["m"].script] == [
        {"at_s", "concurrency"},
        {"at_s", "reject"},
    ]


@pytest.mark.parametrize(
    "given",
    [
        {"concurency": 3},
        {"concurrency": -1},
        {"requests_per_minute": float("inf")},
        {"latency": {"mean_s": -1}},
        {"reject": 200},
        {"faults": {"hang": 0.6, "reset": 0.6}},
        {"faults": {"hang": 1.5}},
        {"script": [{"concurrency": 3}]},
        {"script": [{"at_s": 5}, {"at_s": 4}]},
        {"script": [{"at_s": 1, "seed": 2}]},
        {"window_phase_s": 60},
    ],
)
def test_what_cannot_be_meant_is_an_error(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ModelSpec.model_validate(given)


def test_a_change_touches_only_what_it_names() -> None:
    before = ModelSpec(concurrency=8, requests_per_minute=60, latency=Latency(mean_s=2))
    after = before.changed_by(Change(at_s=3, concurrency=None, reject=500))
    assert (after.concurrency, after.requests_per_minute, after.latency, after.reject) == (
        None,
        60,
        Latency(mean_s=2),
        500,
    )
    assert before.concurrency == 8


def test_a_control_tells_no_limit_from_not_given() -> None:
    control = Control(model="m", change=Capacity(concurrency=None))
    again = Control.model_validate_json(control.model_dump_json(exclude_unset=True))
    assert again.change is not None
    assert again.change.model_fields_set == {"concurrency"}
