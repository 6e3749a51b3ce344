"""The slot that an accepted request takes, for as long as a shell of the provider works on it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from .model import ProviderModel
    from .values import Accepted

__all__ = ["slot"]


@contextmanager
def slot(model: ProviderModel, accepted: Accepted, clock: Callable[[], float]) -> Generator[None]:
    """Hold the slot for the body: left normally it is served, by an exception the client has gone."""
    left = True
    try:
        yield
        left = False
    finally:
        model.end(accepted.request_id, clock(), left=left)
