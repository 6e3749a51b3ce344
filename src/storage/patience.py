"""Asking a store again that says that it may recover: a restart of a server next door is no reason to end a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import anyio

from ..errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["patiently"]

T = TypeVar("T")

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0
PATIENCE_S: Final = 60.0
"""How long a store that says it may recover is asked again: long enough for a restart of a server next door."""


async def patiently(ask: Callable[[], Awaitable[T]], away: Callable[[StoreError, float], object] | None = None) -> T:
    """Return what ``ask`` gives, which is called again while the store is away: after 0.1 to 5 seconds, for a minute.

    ``away`` hears of each error that was not the last word, and of the seconds until the next try. Raises StoreError.
    """
    pause, since = FIRST_PAUSE_S, anyio.current_time()
    while True:
        try:
            return await ask()
        except StoreError as error:
            if not error.retryable or anyio.current_time() - since >= PATIENCE_S:
                raise
            if away is not None:
                away(error, pause)
        await anyio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)
