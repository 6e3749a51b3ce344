"""Many records with one statement: the same as one by one, in far fewer steps of SQLite."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from headgate.errors import PayloadTooLarge
from headgate.storage import Batch, CellRecord, CellStatus, RowRecord, SqliteStore, rules
from headgate.storage.sqlite_insert import BYTES_TOGETHER, RECORDS_TOGETHER, Insert

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VALUES_BEFORE_3_32 = 999
TABLE = "CREATE TABLE thing (id INTEGER PRIMARY KEY, word TEXT NOT NULL, data BLOB)"
INSERT = Insert("thing", 3)


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute(TABLE)
        yield connection


def things(ids: range, data: bytes | None = b"1") -> list[tuple[int, str, bytes | None]]:
    return [(number, f"w{number}", data) for number in ids]


def stored(connection: sqlite3.Connection) -> list[tuple[int, str, bytes | None]]:
    return connection.execute("SELECT id, word, data FROM thing ORDER BY id").fetchall()


@given(
    here=st.sets(st.integers(0, 1_400)),
    given_ids=st.lists(st.integers(0, 1_400), unique=True)
    | st.integers(0, 1_400).map(lambda count: list(range(count))),
    heavy=st.sets(st.integers(0, 1_400), max_size=5),
    values=st.sampled_from([12, VALUES_BEFORE_3_32, 32_766]),
)
def test_the_same_as_one_by_one(here: set[int], given_ids: list[int], heavy: set[int], values: int) -> None:
    """What exists is left as it is, and the count says how many were new, whatever the sizes and the limits."""
    records = [(number, f"w{number}", b"x" * (BYTES_TOGETHER if number in heavy else 1)) for number in given_ids]
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute(TABLE)
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, values)
        connection.executemany("INSERT INTO thing VALUES (?, 'old', NULL)", [(number,) for number in here])
        assert INSERT.into(connection, records) == len(set(given_ids) - here)
        expected: dict[int, tuple[int, str, bytes | None]] = {number: (number, "old", None) for number in here}
        expected |= {record[0]: record for record in records if record[0] not in here}
        assert stored(connection) == [expected[number] for number in sorted(expected)]


def statements(connection: sqlite3.Connection, records: list[tuple[int, str, bytes | None]]) -> int:
    """Insert them; returns how many statements that took."""
    run: list[str] = []
    connection.set_trace_callback(run.append)
    INSERT.into(connection, records)
    connection.set_trace_callback(None)
    assert stored(connection) == records
    return len(run)


def test_a_batch_takes_few_steps(connection: sqlite3.Connection) -> None:
    """For each step the thread waits for the interpreter's lock, up to 5 ms: 8,000 steps took half a second."""
    most = RECORDS_TOGETHER[0]
    assert statements(connection, things(range(10 * most))) == 10


def test_a_batch_of_any_size_takes_few_steps(connection: sqlite3.Connection) -> None:
    """Three of each kind and three single ones, at the worst."""
    worst = 2 * RECORDS_TOGETHER[0] - 1
    assert statements(connection, things(range(worst))) == 1 + 3 * len(RECORDS_TOGETHER)


def test_the_limit_of_an_older_sqlite(connection: sqlite3.Connection) -> None:
    connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, VALUES_BEFORE_3_32)
    assert statements(connection, things(range(256))) == 1  # three values each
    wide = Insert("wide", 14)
    connection.execute(f"CREATE TABLE wide ({', '.join(f'c{number}' for number in range(14))})")
    assert wide.into(connection, [(number,) * 14 for number in range(256)]) == 256


def test_values_of_many_bytes_are_not_bound_together(connection: sqlite3.Connection) -> None:
    """Binding copies them while the lock is held, and all copies would be there at once."""
    records = things(range(40), bytes(BYTES_TOGETHER // 4))
    assert statements(connection, records) == 10
    connection.execute("DELETE FROM thing")
    assert statements(connection, things(range(8), bytes(BYTES_TOGETHER))) == 8


async def test_a_commit_is_looked_at_in_the_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """T25: a batch that gathered behind a slow disk may hold a million records; the loop does nothing for each."""
    threads: list[threading.Thread] = []
    check = rules.check_sizes

    def watched(run: str, batch: Batch, limit: int) -> int:
        threads.append(threading.current_thread())
        return check(run, batch, limit)

    monkeypatch.setattr(rules, "check_sizes", watched)
    store = SqliteStore(tmp_path / "s.db", max_payload=10)
    handle = await store.open_run("run", {"a": "1"})
    await handle.commit(Batch(rows=(RowRecord(0, "x", b"d", b"{}"),)))
    with pytest.raises(PayloadTooLarge, match="column 'a'"):
        await handle.commit(Batch(cells=(CellRecord(0, "a", CellStatus.DONE, b"1" * 11),)))
    await handle.commit(Batch(cells=(CellRecord(0, "a", CellStatus.DONE, b"1"),)))
    await store.aclose()
    assert len(threads) == 3
    assert threading.current_thread() not in threads


async def test_a_commit_takes_a_statement_for_many_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way of a batch: a step for each record made batches of thousands, and they filled the memory."""
    run: list[str] = []
    connect = sqlite3.connect

    def traced(*args: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **options)
        connection.set_trace_callback(run.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    count = 4 * RECORDS_TOGETHER[0]
    store = SqliteStore(tmp_path / "s.db")
    handle = await store.open_run("run", {"a": "1"})
    run.clear()
    await handle.commit(
        Batch(
            rows=tuple(RowRecord(number, f"r{number}", b"d", b"{}") for number in range(count)),
            cells=tuple(CellRecord(number, "a", CellStatus.DONE, b"1") for number in range(count)),
        )
    )
    assert sum(statement.startswith("INSERT") for statement in run) == 8
    assert len(run) <= 16, run
    await store.aclose()
    assert len(list(store.read_rows("run"))) == count
