"""The suite for stores finds what is wrong: each of these stores breaks one promise, and is found twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from headgate.errors import StoreError
from headgate.testing.store import StoreSuite

from .broken_stores import BROKEN, PLACES, SharedStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# What it looks like when a promise does not hold, or a call is refused that must not be.
FOUND = (AssertionError, pytest.fail.Exception, ExceptionGroup, StoreError)

# A failing example is enough; it need not be small, nor kept.
SEARCH = settings(
    max_examples=600,  # most are found within 60
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=False,
)


@pytest.fixture(autouse=True)
def _places() -> Iterator[None]:
    yield
    PLACES.clear()


def suite_of(make: Callable[[Any], SharedStore]) -> StoreSuite:
    class Suite(StoreSuite):
        def open_store(self, place: Path) -> Any:
            return make(place)

    return Suite()


class TestSharedStore(StoreSuite):
    """Without a fault nothing is found."""

    def open_store(self, place: Path) -> Any:
        return SharedStore(place)


@pytest.mark.parametrize(("broken", "found_by"), BROKEN.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_the_plain_test_finds_it(broken: Callable[[Any], SharedStore], found_by: str) -> None:
    test = getattr(suite_of(broken), found_by)
    with pytest.raises(FOUND):
        test()


@pytest.mark.parametrize("broken", BROKEN, ids=lambda value: value.__name__)
def test_the_machine_finds_it(broken: Callable[[Any], SharedStore]) -> None:
    machine = suite_of(broken)
    with pytest.raises(FOUND):
        machine.run_machine(SEARCH)
