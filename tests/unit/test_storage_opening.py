"""What ``store=`` may be, and what is said when it cannot be meant."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio
import pytest

from headgate.errors import ConfigError
from headgate.storage import Durability, FileStore, MemoryStore, PostgresStore, SqliteStore, find_store, open_store

if TYPE_CHECKING:
    from pathlib import Path


def test_none_is_a_store_in_memory() -> None:
    assert isinstance(open_store(None), MemoryStore)


def test_a_store_is_itself() -> None:
    store = MemoryStore()
    assert open_store(store) is store


def test_a_path_is_a_durable_store_and_nothing_is_created_yet(tmp_path: Path) -> None:
    for spec in (tmp_path / "answers.db", str(tmp_path / "answers.db")):
        store = open_store(spec)
        assert isinstance(store, SqliteStore)
        assert store.durability is Durability.HOST
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_cannot_be_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="directory: name a file in it"):
        open_store(tmp_path)
    with pytest.raises(ConfigError, match="does not exist; make it first"):
        open_store(tmp_path / "missing" / "answers.db")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="not a regular file"):
        open_store(tmp_path / "pipe")


def test_a_slash_at_the_end_means_a_directory_and_nothing_is_created_yet(tmp_path: Path) -> None:
    assert isinstance(open_store(f"{tmp_path}/runs/"), FileStore)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "answers.db").touch()
    with pytest.raises(ConfigError, match="is a file"):
        open_store(f"{tmp_path}/answers.db/")
    with pytest.raises(ConfigError, match="does not exist; make it first"):
        open_store(f"{tmp_path}/missing/runs/")


def test_a_directory_with_a_store_in_it_is_that_store(tmp_path: Path) -> None:
    anyio.run(open_store(f"{tmp_path}/runs/").probe)
    for spec in (tmp_path / "runs", f"{tmp_path}/runs"):
        assert isinstance(open_store(spec), FileStore)
        assert isinstance(find_store(spec), FileStore)


def test_a_store_that_is_looked_for_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file or directory"):
        find_store(tmp_path / "answers.db")
    with pytest.raises(ConfigError, match="a directory without a store"):
        find_store(tmp_path)
    assert list(tmp_path.iterdir()) == []
    anyio.run(open_store(tmp_path / "answers.db").probe)
    assert find_store(str(tmp_path / "answers.db")).read_runs() == ()


@pytest.mark.parametrize("spec", ["", "  ", ":memory:", "mysql://host/db"])
def test_what_is_no_path_is_refused(spec: str) -> None:
    with pytest.raises(ConfigError):
        open_store(spec)


def test_an_address_of_postgresql_is_a_store_there_and_nothing_is_connected_yet() -> None:
    for address in ("postgresql://someone:secret@nowhere.invalid/db", "postgres://nowhere.invalid"):
        assert isinstance(open_store(address), PostgresStore)


def test_a_password_in_an_address_is_never_shown() -> None:
    assert "secret" not in repr(PostgresStore("postgresql://someone:secret@host:1/db"))
    assert "secret" not in repr(PostgresStore("postgresql://someone:secret@[host:1/db"))
    with pytest.raises(ConfigError) as caught:
        open_store("mysql://someone:secret@host/db")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("schema", ["", "With Space", "1st", 'a"b', "ä", "x" * 64])
def test_a_schema_has_a_plain_name(schema: str) -> None:
    with pytest.raises(ConfigError, match="schema"):
        PostgresStore("postgresql://host/db", schema=schema)


def test_a_postgres_store_promises_no_more_than_it_knows() -> None:
    for durability in (Durability.NONE, Durability.REPLICATED):
        with pytest.raises(ConfigError, match="'process' or 'host'"):
            PostgresStore("postgresql://host/db", durability=durability)


def test_a_file_cannot_be_replicated() -> None:
    with pytest.raises(ConfigError, match="'process' or 'host', not 'replicated'"):
        SqliteStore("answers.db", durability=Durability.REPLICATED)
