"""Profiles and fixtures for every test: quick by default, thorough with HYPOTHESIS_PROFILE=deep."""

from __future__ import annotations

import gc
import os

import pytest
from hypothesis import HealthCheck, settings

# No profile asks how long anything takes: on a busy machine that is chance.
settings.register_profile(
    "default",
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("ci", parent=settings.get_profile("default"), derandomize=True)
settings.register_profile("deep", parent=settings.get_profile("default"), max_examples=1500, stateful_step_count=120)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default"))


def pytest_collection_finish() -> None:
    """What is there for good, all tests and the libraries they import, is left out of garbage collections: a full one
    takes half a second otherwise, and some tests ask for dozens.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Every async test runs on both loops unless it names its own."""
    backend: str = request.param
    return backend
