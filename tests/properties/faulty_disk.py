"""A disk whose k-th operation fails, or is done and reported as failed, as a server does whose answer is lost."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class FaultyDisk:
    """``inner`` with a fault: operation number ``fails_at`` (from 1; 0: none), or each of the kind ``fails``, raises
    ``error``, an errno. ``done`` is whether it has been performed all the same.
    """

    if TYPE_CHECKING:
        make_dir: Any
        create: Any
        write: Any
        sync: Any
        close: Any
        sync_dir: Any
        link: Any
        rename: Any
        remove: Any
        remove_dir: Any
        read: Any
        names: Any
        size: Any
        changed_at: Any
        same: Any

    def __init__(self, inner: Any, error: int, *, fails_at: int = 0, fails: str = "", done: bool = False) -> None:
        self.inner = inner
        self.error = error
        self.fails_at = fails_at
        self.fails = fails
        self.done = done
        self.operations = 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        operation = getattr(self.inner, name)

        def perform(*arguments: Any) -> Any:
            self.operations += 1
            if name != self.fails and self.operations != self.fails_at:
                return operation(*arguments)
            if self.done:
                operation(*arguments)
            raise OSError(self.error, os.strerror(self.error), str(arguments[0]))

        return perform
