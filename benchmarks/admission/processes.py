"""Doing pieces of work in several processes, in order; in this one when there is only one."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import ExitStack

__all__ = ["Piece", "spread"]

T = TypeVar("T")


class Piece(NamedTuple, Generic[T]):
    """A function of a module and what it is called with."""

    do: Callable[..., T]
    arguments: tuple[object, ...]


def spread(work: Sequence[Piece[T]], jobs: int, stack: ExitStack) -> Iterable[Callable[[], T]]:
    """One call per piece of ``work``, in order, that waits for its result. ``stack`` ends the processes."""
    if jobs == 1 or len(work) == 1:
        return [partial(piece.do, *piece.arguments) for piece in work]
    # Fresh interpreters: a fork would take along whatever threads the caller has.
    pool = ProcessPoolExecutor(min(jobs, len(work)), mp_context=get_context("spawn"))
    stack.callback(pool.shutdown, cancel_futures=True)
    return [pool.submit(piece.do, *piece.arguments).result for piece in work]
