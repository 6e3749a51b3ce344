"""A store that is there, for as long as a command looks into it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio

from ..storage.opening import find_store

if TYPE_CHECKING:
    from collections.abc import Generator

    from ..storage.ports import RunStore

__all__ = ["store_at"]


@contextmanager
def store_at(place: str) -> Generator[RunStore]:
    """The store at ``place``, closed at the end. Raises ConfigError if there is none."""
    store = find_store(place)
    try:
        yield store
    finally:
        anyio.run(store.aclose)
