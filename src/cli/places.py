"""A store that is there, for as long as a command looks into it."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, cast

import anyio

from ..errors import ConfigError
from ..restart import read_record, reopen
from ..storage.opening import find_store, without_secrets

if TYPE_CHECKING:
    from collections.abc import Generator

    from ..restart import DecisionStore, RunRecord
    from ..storage.ports import RunStore

__all__ = ["check_open", "open_again", "restarts_of", "store_at"]


@contextmanager
def store_at(place: str) -> Generator[RunStore]:
    """The store at ``place``, closed at the end. Raises ConfigError if there is none."""
    store = find_store(place)
    try:
        yield store
    finally:
        anyio.run(store.aclose)


def restarts_of(store: RunStore, run: str) -> RunRecord | None:
    """All that is on record about the restarts of ``run``; None if it never had any."""
    return anyio.run(partial(read_record, cast("DecisionStore", store), run))


def open_again(place: str, run: str) -> None:
    """Open ``run`` again if it is closed. Raises ConfigError if there is no such store."""
    with store_at(place) as store:
        anyio.run(partial(reopen, cast("DecisionStore", store), run))


def check_open(place: str, run: str) -> None:
    """Raise ConfigError if ``run`` was told to stop by a decision."""
    try:
        find_store(place)
    except ConfigError:
        return  # what is not there yet closes nothing
    with store_at(place) as store:
        record = restarts_of(store, run)
    if record is not None and record.closed:
        decision = record.decisions[-1]
        raise ConfigError(
            f"run {run!r} was closed by the decision on cycle {decision.cycle}, {decision.action.value}: --reopen goes "
            f"on with it; headgate status {without_secrets(place)} --run {run} --decisions says why"
        )
