"""The store of a simulated run: in memory, as slow as was asked for, and a witness sees each commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from ..storage.memory import MemoryStore
from ..storage.ports import NOT_RENEWED, TERMINAL

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from ..storage.ports import Batch, Durability, RunHandle, RunInfo, StoredRow, Swept
    from ..values import Usage
    from .witness import Witness

__all__ = ["WitnessStore"]


class WitnessStore:
    """A :class:`~headgate.storage.MemoryStore` whose commits take ``commit_s`` seconds and are seen by the witness."""

    def __init__(self, witness: Witness, *, commit_s: float, clock: Callable[[], float]) -> None:
        self._inner = MemoryStore(clock=clock)
        self._witness = witness
        self._commit_s = commit_s
        self.durability: Durability = self._inner.durability

    async def probe(self) -> None:
        """See :meth:`headgate.storage.ports.RunStore.probe`."""
        await self._inner.probe()

    async def open_run(self, run: str, fingerprints: Mapping[str, str], **how: Collection[str]) -> RunHandle:
        """See :meth:`headgate.storage.ports.RunStore.open_run`."""
        return _WitnessRun(await self._inner.open_run(run, fingerprints, **how), self._witness, self._commit_s)

    def read_rows(self, run: str, *, batch: int = 500, renewed: Mapping[str, str] = NOT_RENEWED) -> Iterator[StoredRow]:
        """See :meth:`headgate.storage.ports.RunStore.read_rows`."""
        return self._inner.read_rows(run, batch=batch, renewed=renewed)

    def read_runs(self) -> tuple[str, ...]:
        """See :meth:`headgate.storage.ports.RunStore.read_runs`."""
        return self._inner.read_runs()

    def read_info(self, run: str) -> RunInfo:
        """See :meth:`headgate.storage.ports.RunStore.read_info`."""
        return self._inner.read_info(run)

    def read_spent(self, run: str) -> Mapping[str, Usage]:
        """See :meth:`headgate.storage.ports.RunStore.read_spent`."""
        return self._inner.read_spent(run)

    def read_learned(self, run: str) -> bytes | None:
        """See :meth:`headgate.storage.ports.RunStore.read_learned`."""
        return self._inner.read_learned(run)

    def count_outcomes(self, run: str) -> int:
        """See :meth:`headgate.storage.ports.RunStore.count_outcomes`."""
        return self._inner.count_outcomes(run)

    async def sweep(self, *, keep_s: float, statuses: Collection[str] = TERMINAL, spare: Collection[str] = ()) -> Swept:
        """See :meth:`headgate.storage.ports.RunStore.sweep`."""
        return await self._inner.sweep(keep_s=keep_s, statuses=statuses, spare=spare)

    async def aclose(self) -> None:
        """See :meth:`headgate.storage.ports.RunStore.aclose`."""
        await self._inner.aclose()


class _WitnessRun:
    """A handle whose commits the witness sees."""

    def __init__(self, inner: RunHandle, witness: Witness, commit_s: float) -> None:
        self._inner = inner
        self._witness = witness
        self._commit_s = commit_s

    @property
    def info(self) -> RunInfo:
        return self._inner.info

    @property
    def learned(self) -> bytes | None:
        return self._inner.learned

    async def commit(self, batch: Batch) -> None:
        if self._commit_s:
            await anyio.sleep(self._commit_s)
        await self._inner.commit(batch)
        self._witness.committed_batch(batch)

    async def load(self, first: int, last: int) -> list[StoredRow]:
        return await self._inner.load(first, last)

    async def find(self, row_ids: Sequence[str]) -> dict[str, int]:
        return await self._inner.find(row_ids)

    async def finish(self, status: str) -> None:
        await self._inner.finish(status)

    async def aclose(self) -> None:
        await self._inner.aclose()
