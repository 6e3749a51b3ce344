"""A 429 whose body names the limit: the label of the provider comes before every guess."""

from __future__ import annotations

import pytest

from headgate.salvage.classify import Classifier
from headgate.testing import ProviderResponseError
from headgate.values import Feedback, LimitKind


def feedback_of(body: dict[str, object], headers: dict[str, str] | None = None, status: int = 429) -> Feedback | None:
    return Classifier().classify(ProviderResponseError(status, headers or {}, body), wall_now=0.0).feedback


@pytest.mark.parametrize("kind", list(LimitKind))
def test_the_type_in_the_body_names_the_limit(kind: LimitKind) -> None:
    found = feedback_of({"error": {"type": kind.value, "code": "rate_limit_exceeded"}}, {"retry-after": "2"})
    assert found == Feedback(retry_after_s=2.0, kind=kind)


def test_the_body_speaks_where_headers_are_silent_only() -> None:
    exhausted = {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "0"}
    found = feedback_of({"error": {"type": "tokens"}}, exhausted)
    assert found is not None
    assert found.kind is LimitKind.REQUESTS


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "too many concurrent requests", "type": "rate_limit_error"}},
        {"error": {"type": "tokens", "code": "requests"}},
        {"message": "tokens"},
    ],
)
def test_free_text_and_contradictions_name_nothing(body: dict[str, object]) -> None:
    assert feedback_of(body) is None


def test_a_body_names_no_limit_for_another_failure() -> None:
    assert feedback_of({"error": {"type": "tokens"}}, status=500) is None
