"""Several engines on one run: what a store promises that hands out row groups, and the values that cross its border.

A run is shared by joining it. Joining gives each engine an epoch of its own and fences out whoever had the run for
himself; opening the run alone (:meth:`~headgate.storage.ports.RunStore.open_run`) fences out all who share it.

The rows of a shared run are cut into groups of the same size. An engine claims some, works on their rows, and says when
they are complete. A claim runs out unless it is renewed, by the clock of the store; then anybody may take the group
over. Who holds it is decided by its token, which grows with each claim: a commit is checked, in its own transaction, to
touch no group that somebody else has claimed since. So an engine that was stopped for an hour changes nothing, however
late it goes on, while one whose claim ran out and was wanted by nobody may commit in peace.

Any store may offer this; nothing else in headgate depends on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from .ports import RunHandle, RunStore

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

__all__ = ["Claim", "Progress", "SharedRun", "SharedState", "SharingStore", "read_shared"]


class Claim(NamedTuple):
    """A row group that an engine holds: the rows with ``first <= row < last``."""

    group: int
    first: int
    last: int
    token: int


class Progress(NamedTuple):
    """How many row groups the run has, and how many of these are complete and claimed.

    ``free_in_s`` is when the next claim of somebody runs out, in seconds; 0 if a group is free, None if none is open.
    """

    groups: int
    complete: int
    claimed: int
    free_in_s: float | None


class SharedState(NamedTuple):
    """How a run that engines share stands, for who takes no part in it: its row groups, complete and claimed ones.

    ``left_at`` is when the last claim ran out that nobody has renewed, in wall-clock seconds of the store; None if
    there is no such. An engine that is killed keeps its claims until then.
    """

    groups: int
    complete: int
    claimed: int
    left_at: float | None


class SharedRun(RunHandle, Protocol):
    """One engine's part in a run. ``commit`` takes batches about claimed rows only, and raises ClaimLost for others.

    ``finish`` changes nothing while a group is open, and says ``completed_with_failures`` for ``completed`` if a cell
    of any engine failed: the others may be dead by then, and nobody else knows. A run whose groups are all complete is
    ``running`` until an engine has called it, if need be one that joins later and finds nothing to do.
    """

    async def extend(self, rows: int) -> None:
        """Let the run have ``rows`` input rows. If it has as many already nothing changes. Raises FencedOut.

        A group that was complete and has got more rows is open again, and so the run goes on. These are the rows that
        the engine has: of a run with more it is offered no group that begins behind them, nor told of its progress.
        """
        ...

    async def claim(self, most: int, lease_s: float) -> list[Claim]:
        """Take up to ``most`` groups that nobody works on for ``lease_s`` seconds, the first ones first.

        Engines that ask at the same time never wait for each other. Raises FencedOut.
        """
        ...

    async def renew(self, claims: Sequence[Claim], lease_s: float) -> list[Claim]:
        """Hold the claims for another ``lease_s`` seconds from now, and return those that were lost."""
        ...

    async def complete(self, claims: Sequence[Claim]) -> None:
        """Everything about the rows of ``claims`` is committed: nobody is to work on them. Raises ClaimLost."""
        ...

    async def give_back(self, claims: Sequence[Claim]) -> None:
        """Let others have the groups at once."""
        ...

    async def progress(self) -> Progress:
        """Return how far the run has got, all engines together."""
        ...


class SharingStore(RunStore, Protocol):
    """A store that hands out the row groups of a run."""

    async def join_run(
        self,
        run: str,
        fingerprints: Mapping[str, str],
        *,
        group_rows: int,
        renewed: Collection[str] = (),
        kept: Collection[str] = (),
    ) -> SharedRun:
        """Take part in the run, which is created if it is not there.

        The size of its groups is what the first one to join says. ``renewed`` and ``kept`` columns may have changed, as
        for ``open_run``; if one of them has, all who share the run are fenced out, and it begins to be shared anew:
        there are never two descriptions of a column at work. Who joins with the fingerprints that the run has by then
        joins in peace. Raises as ``open_run``, and FingerprintMismatch if others share the run with other columns;
        those are fenced out by whoever names all of its own in ``renewed`` and ``kept``.
        """
        ...

    def read_shared(self, run: str) -> SharedState | None:
        """Return how the run stands, without joining it; None if it was opened alone last. It blocks.

        Raises UnknownRun, ResultExpired.
        """
        ...


def read_shared(store: RunStore, run: str) -> SharedState | None:
    """The same of any store; None from one that hands out no row groups, or tells nothing of them."""
    read = getattr(store, "read_shared", None)
    return None if read is None else read(run)
