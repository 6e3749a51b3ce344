"""Exports: every row ends up in one of two files, each replaced as a whole or not at all."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

import headgate
from headgate.errors import ConfigError, UnknownRun
from headgate.export import parquet
from headgate.export.shapes import MOST_FIELDS, Kind, ListShape, Shape, StructShape, merge, settle, shape_of
from headgate.storage import Batch, CellRecord, CellStatus, HeldRecord, MemoryStore, RowRecord

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COLUMNS = {"answer": "a1", "verdict": "v1"}


def record(row: int) -> RowRecord:
    data = json.dumps({"topic": f"t{row}"}).encode()
    return RowRecord(row, f"id{row}", data[:16], data)


def cell(row: int, column: str, value: object) -> CellRecord:
    return CellRecord(row, column, CellStatus.DONE, json.dumps(value).encode())


@pytest.fixture
def store() -> MemoryStore:
    """Rows: 0 whole, 1 failed, 2 held, 3 not begun, 4 whole with a skipped cell, 5 failed and held."""
    store = MemoryStore()
    failed = CellRecord(1, "verdict", CellStatus.FAILED, None, "rejected", "too long", 1, 400)
    batch = Batch(
        rows=tuple(map(record, range(6))),
        cells=(
            *(cell(0, "answer", "yes"), cell(0, "verdict", {"ok": True})),
            *(cell(1, "answer", "no"), failed),
            cell(2, "answer", ""),
            *(cell(4, "answer", None), CellRecord(4, "verdict", CellStatus.SKIPPED, None, "when")),
            replace(failed, row=5),
        ),
        held=(
            HeldRecord(2, "verdict", "rate_limited", 12.5, 3, b"{}"),
            HeldRecord(5, "answer", "overloaded", 1.5, 0, b"{}"),
        ),
    )

    async def fill() -> None:
        handle = await store.open_run("run", COLUMNS)
        await handle.commit(batch)

    anyio.run(fill)
    return store


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_row_is_in_one_of_two_files(store: MemoryStore, tmp_path: Path) -> None:
    done = headgate.export_run(store, "run", tmp_path / "out.jsonl")
    assert done == headgate.Export(tmp_path / "out.jsonl", 2, 4, tmp_path / "out.unfinished.jsonl")
    assert lines(done.path) == [
        {"topic": "t0", "answer": "yes", "verdict": {"ok": True}},
        {"topic": "t4", "answer": None, "verdict": None},
    ]
    assert done.unfinished_path is not None
    rest = lines(done.unfinished_path)
    assert [(row["row"], row["row_id"], row["status"]) for row in rest] == [
        (1, "id1", "failed"),
        (2, "id2", "held"),
        (3, "id3", "pending"),
        (5, "id5", "failed"),
    ]
    failed, held, pending, both = rest
    assert failed["problems"] == [
        {
            "column": "verdict",
            "status": "failed",
            "reason": "rejected",
            "message": "too long",
            "attempts": 1,
            "http_status": 400,
        }
    ]
    assert (failed["input"], failed["values"]) == ({"topic": "t1"}, {"answer": "no"})
    assert held["problems"] == [
        {"column": "verdict", "status": "held", "reason": "rate_limited", "attempts": 3, "not_before": 12.5}
    ]
    assert (pending["problems"], pending["values"]) == ([], {})
    assert [one["status"] for one in both["problems"]] == ["failed", "held"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.jsonl", "out.unfinished.jsonl"]


def test_what_a_run_left_at_its_end_is_held(store: MemoryStore, tmp_path: Path) -> None:
    """As its report counts it."""

    async def end() -> None:
        handle = await store.open_run("run", COLUMNS)
        await handle.finish("stopped")

    anyio.run(end)
    headgate.export_run(store, "run", tmp_path / "out.jsonl")
    statuses = [row["status"] for row in lines(tmp_path / "out.unfinished.jsonl")]
    assert statuses == ["failed", "held", "held", "failed"]


def test_fewer_columns_make_more_rows_whole(store: MemoryStore, tmp_path: Path) -> None:
    done = headgate.export_run(store, "run", tmp_path / "out.jsonl", columns=["answer"])
    assert (done.rows, done.unfinished_path) == (4, tmp_path / "out.unfinished.jsonl")
    rest = lines(tmp_path / "out.unfinished.jsonl")
    assert [(row["row"], row["status"], row["values"]) for row in rest] == [(3, "pending", {}), (5, "held", {})]
    with pytest.raises(ConfigError, match=r"no column 'answr'; it has answer, verdict"):
        headgate.export_run(store, "run", tmp_path / "out.jsonl", columns=["answr"])


def test_what_other_columns_did_is_not_told(store: MemoryStore, tmp_path: Path) -> None:
    headgate.export_run(store, "run", tmp_path / "out.jsonl", columns=["verdict"])
    _, held, _, failed = lines(tmp_path / "out.unfinished.jsonl")
    assert (held["row"], held["values"], [one["column"] for one in held["problems"]]) == (2, {}, ["verdict"])
    assert (failed["row"], [one["column"] for one in failed["problems"]]) == (5, ["verdict"])


SHAPES: list[tuple[list[object], Shape]] = [
    ([1, 2.5], Kind.FLOAT),
    ([2**53, 2.5], Kind.FLOAT),
    ([2**53 + 1, 2.5], Kind.JSON),
    ([-(2**53) - 1, 2.5], Kind.JSON),
    ([2**63 - 1, -(2**63)], Kind.WIDE),
    ([2**63], Kind.JSON),
    ([-(2**63) - 1], Kind.JSON),
    ([1, True], Kind.JSON),
    ([0.5, True], Kind.JSON),
    ([None, "x"], Kind.TEXT),
    ([{}], Kind.JSON),
    ([[{}], [{"a": 1}]], ListShape(StructShape({"a": Kind.INT}))),
    ([{str(n): 1 for n in range(MOST_FIELDS)}], StructShape({str(n): Kind.INT for n in range(MOST_FIELDS)})),
    ([{str(n): 1 for n in range(MOST_FIELDS)}, {"more": 1}], Kind.JSON),
]


@pytest.mark.parametrize(("values", "shape"), SHAPES)
def test_the_type_of_a_field_loses_nothing(values: list[object], shape: Shape) -> None:
    found: Shape = Kind.NULL
    for value in values:
        found = merge(found, shape_of(value))
    assert settle(found) == shape


def test_an_older_list_of_unfinished_rows_does_not_outlive_its_truth(store: MemoryStore, tmp_path: Path) -> None:
    (tmp_path / "out.unfinished.jsonl").write_text("{}\n")
    only = MemoryStore()

    async def fill() -> None:
        handle = await only.open_run("run", {"answer": "a1"})
        await handle.commit(Batch(rows=(record(0),), cells=(cell(0, "answer", 1),)))

    anyio.run(fill)
    assert headgate.export_run(only, "run", tmp_path / "out.jsonl").unfinished_path is None
    assert [file.name for file in tmp_path.iterdir()] == ["out.jsonl"]


def test_an_unknown_run_leaves_everything_as_it_was(store: MemoryStore, tmp_path: Path) -> None:
    with pytest.raises(UnknownRun):
        headgate.export_run(store, "other", tmp_path / "out.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_a_file_has_the_rights_of_any_new_file(store: MemoryStore, tmp_path: Path) -> None:
    """The umask belongs to the whole process: nobody sets it, not even for a moment, while other threads make files."""
    before = os.umask(0o027)
    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(os, "umask", None)
            headgate.export_run(store, "run", tmp_path / "out.jsonl")
        modes = {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(("out.jsonl", "out.unfinished.jsonl"), "0o640")


def test_a_name_as_long_as_the_system_takes(store: MemoryStore, tmp_path: Path) -> None:
    stem = "m" * (255 - len(".unfinished.jsonl"))
    headgate.export_run(store, "run", tmp_path / f"{stem}.jsonl")
    assert {path.name for path in tmp_path.iterdir()} == {f"{stem}.jsonl", f"{stem}.unfinished.jsonl"}


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
@pytest.mark.parametrize("fails", ["reading", "flushing", "renaming"])
def test_a_failure_on_the_way_leaves_the_old_files(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, fails: str
) -> None:
    (tmp_path / name).write_bytes(b"old")
    (tmp_path / "out.unfinished.jsonl").write_bytes(b"old")
    rows = store.read_rows

    def broken(*_: object, **__: object) -> Any:
        raise OSError(28, "No space left on device")

    def breaks(run: str, **_: object) -> Iterator[Any]:
        yield from list(rows(run))[:4]
        raise OSError(5, "Input/output error")

    if fails == "reading":
        monkeypatch.setattr(store, "read_rows", breaks)
    elif fails == "flushing":
        monkeypatch.setattr(os, "fsync", broken)
    else:
        monkeypatch.setattr(type(tmp_path), "replace", broken)
    with pytest.raises(OSError, match=r"Input/output|No space"):
        headgate.export_run(store, "run", tmp_path / name)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([name, "out.unfinished.jsonl"])
    assert {file.read_bytes() for file in tmp_path.iterdir()} == {b"old"}


def test_a_parquet_file_is_written_group_by_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "GROUP_BYTES", 2_000)
    _, reader = parquet.load_pyarrow()
    asked = (({"n": n, "text": "x" * 100} if n else {"first": True}) for n in range(200))
    assert headgate.write_parquet(tmp_path / "out.parquet", asked) == 200
    file = reader.ParquetFile(tmp_path / "out.parquet")
    assert file.metadata.num_row_groups >= 8
    assert file.schema_arrow.names == ["first", "n", "text"]
    assert file.read().column("n").to_pylist() == [None, *range(1, 200)]
    monkeypatch.setattr(parquet, "GROUP_ROWS", 50)
    monkeypatch.setattr(parquet, "GROUP_BYTES", 1 << 20)
    headgate.write_parquet(tmp_path / "out.parquet", ({"n": n} for n in range(200)))
    assert reader.ParquetFile(tmp_path / "out.parquet").metadata.num_row_groups == 4


def test_no_rows_make_a_file_without_rows(tmp_path: Path) -> None:
    _, reader = parquet.load_pyarrow()
    assert headgate.write_parquet(tmp_path / "out.parquet", []) == 0
    assert reader.read_table(tmp_path / "out.parquet").num_rows == 0
    assert headgate.write_jsonl(tmp_path / "out.jsonl", []) == 0
    assert (tmp_path / "out.jsonl").read_bytes() == b""


def test_without_pyarrow_the_extra_is_named_before_anything_is_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def missing(name: str) -> Any:
        raise ImportError(name)

    def count(n: int) -> None:
        calls.append(n)

    monkeypatch.setattr(parquet, "import_module", missing)
    with pytest.raises(ConfigError, match=r"pip install 'headgate\[parquet\]'"):
        headgate.map(count, [1, 2], out=tmp_path / "out.parquet")
    assert calls == []


def test_a_run_exports_where_it_is_told_to(tmp_path: Path) -> None:
    def half(n: int) -> float:
        if n == 3:
            raise ValueError("odd one out")
        return n / 2

    report = headgate.map(half, [{"n": n} for n in range(5)], out=tmp_path / "out.parquet")
    _, reader = parquet.load_pyarrow()
    assert reader.read_table(tmp_path / "out.parquet").to_pylist() == [
        {"n": n, "half": n / 2} for n in range(5) if n != 3
    ]
    (rest,) = lines(tmp_path / "out.unfinished.jsonl")
    assert (rest["row"], rest["problems"][0]["reason"]) == (3, "bug")
    assert report.export(tmp_path / "again.jsonl").rows == 4


def test_an_export_does_not_hold_up_the_loop(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The export waits in its thread until the loop has turned some times: on the loop that would never happen."""
    turned = threading.Event()
    rows = store.read_rows

    def slowly(run: str, **_: object) -> Iterator[Any]:
        assert turned.wait(30)
        yield from rows(run)

    exports: list[headgate.Export] = []

    async def turn() -> None:
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        turned.set()

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(turn)
            exports.append(await headgate.aexport_run(store, "run", tmp_path / "out.jsonl"))

    monkeypatch.setattr(store, "read_rows", slowly)
    anyio.run(main)
    assert [done.rows for done in exports] == [2]
