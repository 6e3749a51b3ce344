"""Damages the files of stores: cut short anywhere, single bits flipped, bytes overwritten. Then looks at what is read.

``store_damage.py TRIALS [SEED]`` tries so many damages of each sort on each kind of file, prints as JSON what came of
them, and fails if a read ever gave something else than a clear error or a prefix of what was committed. From the main
file of SQLite there may be less: its index has no checksum, and what it does not lead to is not read.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import anyio

from headgate.errors import StoreError
from headgate.storage import (
    Batch,
    CellRecord,
    CellStatus,
    Durability,
    FileStore,
    HeldRecord,
    RowRecord,
    SpentRecord,
    SqliteStore,
    StoredRow,
)
from headgate.values import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headgate.storage import RunStore

ROWS = 40
EARLIER = 12
COLUMNS = {"a": "1", "b": "1", "c": "1"}
CUT, FLIP, SMEAR = "cut short", "a bit flipped", "16 bytes overwritten"


def batch(row: int) -> Batch:
    """Everything about one row; some payloads are files of their own."""
    text = b'"%s"' % (b"answer %d " % row * (9_000 if row % 8 == 5 else 3))
    return Batch(
        rows=(RowRecord(row, f"id{row}", b"digest", b'{"row":%d}' % row),),
        cells=(CellRecord(row, "a", CellStatus.DONE, text), CellRecord(row, "b", CellStatus.FAILED, None, "bug")),
        held=(HeldRecord(row, "c", "rate_limited", 99.5, 1, b"[]"),),
        spent=(SpentRecord(row, "a", 1, "provider_error", Usage(1, 2)),),
    )


EXPECTED = [StoredRow(batch(row).rows[0], batch(row).cells, batch(row).held) for row in range(ROWS)]


async def fill(make: Callable[[], RunStore], leave: Callable[[], None]) -> None:
    """Commit rows in two lives; ``leave`` is called when the second one is over, and nobody has closed anything."""
    for first, last in ((0, EARLIER), (EARLIER, ROWS)):
        store = make()
        handle = await store.open_run("run", COLUMNS)
        for row in range(first, last):
            await handle.commit(batch(row))
        if last == ROWS:
            leave()
        await store.aclose()


def sqlite_at(place: Path) -> RunStore:
    return SqliteStore(place / "s.db", durability=Durability.PROCESS)


def files_at(place: Path) -> RunStore:
    return FileStore(place / "s", pack_after=8)


KINDS = {"sqlite": sqlite_at, "file": files_at}


def prepare(kind: str, place: Path) -> Path:
    """A store as a crash leaves it: of SQLite with a log that nobody has emptied."""
    made, left = place / "made", place / "left"
    made.mkdir()

    def leave() -> None:
        shutil.copytree(made, left)

    anyio.run(fill, lambda: KINDS[kind](made), leave)
    for shared_memory in left.rglob("*-shm"):
        shared_memory.unlink()
    assert read(kind, made) == (EXPECTED, "")
    return left


def sort_of(path: Path) -> str:
    """Which of a store's files it is."""
    if "-payloads" in str(path) or "payloads" in path.parts:
        return "payload file"
    if path.name.endswith("-wal"):
        return "write-ahead log"
    return "database" if path.suffix == ".db" else "pack" if path.name == "pack" else "log"


def read(kind: str, place: Path) -> tuple[list[StoredRow], str]:
    """The rows that are read, and the error that ends it."""
    rows: list[StoredRow] = []
    try:
        rows.extend(KINDS[kind](place).read_rows("run", batch=7))
    except StoreError as error:
        return rows, type(error).__name__
    return rows, ""


async def go_on(kind: str, place: Path) -> None:
    """Do the whole work again: what is there already is nothing, the rest is added (D5)."""
    store = KINDS[kind](place)
    handle = await store.open_run("run", {})
    async with anyio.create_task_group() as tasks:
        for row in range(ROWS):
            tasks.start_soon(handle.commit, batch(row))
    await store.aclose()


def damages(content: bytes, trials: int, rng: Random) -> Iterator[tuple[str, bytes]]:
    for trial in range(trials):
        yield CUT, content[: len(content) * trial // trials]
        for sort, width in ((FLIP, 1), (SMEAR, 16)):
            at, changed = rng.randrange(len(content)), bytearray(content)
            changed[at : at + width] = (
                bytes([changed[at] ^ 1 << rng.randrange(8)]) if sort is FLIP else rng.randbytes(width)
            )
            yield sort, bytes(changed[: len(content)])


def is_part(row: StoredRow) -> bool:
    """Whether all that is read of a row and its cells was written of them. What is held has no checksum."""
    whole = EXPECTED[row.record.row]
    return row.record == whole.record and all(cell in whole.cells for cell in row.cells)


def judge(kind: str, place: Path) -> str:
    """What is read from a damaged store: all, a prefix, a clear error, or something that nobody has written."""
    rows, error = read(kind, place)
    if rows != EXPECTED[: len(rows)]:
        return "fewer" if all(map(is_part, rows)) else "wrong"
    return error or ("all" if len(rows) == ROWS else "prefix")


def try_all(kind: str, trials: int, rng: Random) -> dict[str, Counter[str]]:
    """Damage one file at a time, so often for each sort of file, and count what came of it."""
    found: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as name:
        left = prepare(kind, Path(name))
        paths: dict[str, list[Path]] = {}
        for path in sorted(left.rglob("*")):
            if path.is_file() and path.stat().st_size:
                paths.setdefault(sort_of(path), []).append(path.relative_to(left))
        for sort, some in paths.items():
            counts = found[f"{kind}: {sort}"] = Counter[str]()
            each = max(1, trials // len(some))
            for path in some if len(some) <= trials else rng.sample(some, trials):
                for how, content in damages((left / path).read_bytes(), each, rng):
                    place = Path(name) / "damaged"
                    shutil.copytree(left, place)
                    (place / path).write_bytes(content)
                    came_of_it = judge(kind, place)
                    assert came_of_it != "wrong", f"{kind}, {path}, {how}: silently wrong"
                    assert came_of_it != "fewer" or sort == "database", f"{kind}, {path}, {how}: silently less"
                    counts[came_of_it] += 1
                    if came_of_it == "prefix" and counts["prefix"] % 20 == 1:
                        anyio.run(go_on, kind, place)
                        assert read(kind, place) == (EXPECTED, ""), f"{kind}, {path}, {how}: it cannot go on"
                        counts["went on"] += 1
                    shutil.rmtree(place)
    return found


def main(trials: int, seed: int) -> None:
    """Print what came of all damages, by store and sort of file."""
    found = {what: dict(n) for kind in KINDS for what, n in try_all(kind, trials, Random(seed)).items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
