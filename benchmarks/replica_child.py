"""One of the two replicas: ``python -m benchmarks.replica_child ADDRESS NAME OTHER DOCUMENTS ROUNDS``.

It runs its half of the documents, says ``ready``, waits for a line, then fetches the documents of both replicas so many
times and says how many results it got that were the right ones.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import anyio

from headgate.storage import Batch, CellRecord, CellStatus, RowRecord

from .stores import open_store

if TYPE_CHECKING:
    from headgate.storage import RunStore

__all__: list[str] = []


def result(replica: str, document: int) -> bytes:
    """What a replica found out about a document."""
    return f'"{replica}: {document}"'.encode()


async def live(address: str, name: str, other: str, documents: int, rounds: int) -> None:
    """Run, wait, fetch."""
    store = open_store(address)
    handle = await store.open_run(name, {"a": "1"})
    for document in range(documents):
        row = RowRecord(document, f"{name} {document}", b"digest", b"{}")
        await handle.commit(
            Batch(rows=(row,), cells=(CellRecord(document, "a", CellStatus.DONE, result(name, document)),))
        )
    await handle.finish("completed")
    print("ready", flush=True)
    sys.stdin.readline()
    print(sum(_fetch(store, replica, documents) for _ in range(rounds) for replica in (name, other)), flush=True)
    await store.aclose()


def _fetch(store: RunStore, replica: str, documents: int) -> int:
    """How many of the documents of a replica are there, with the right result."""
    found = {cell.row: cell.payload for row in store.read_rows(replica) for cell in row.cells}
    return sum(found.get(document) == result(replica, document) for document in range(documents))


if __name__ == "__main__":
    anyio.run(live, sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
