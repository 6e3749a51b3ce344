"""A run that is resumed with other columns, or to try failed rows again: what is asked anew, and what not (D7, D8)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

import headgate
from headgate.errors import FingerprintMismatch
from headgate.storage import (
    Batch,
    CellRecord,
    CellStatus,
    Durability,
    FileStore,
    MemoryStore,
    PostgresStore,
    RowRecord,
    RunStore,
    SqliteStore,
)
from headgate.values import Usage
from tests.integration.postgres_server import shared_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MODEL = "acme/large"
KEPT, RENEWED = {"kept": ("a",)}, {"renewed": ("a",)}


class Model:
    """Counts what it is asked, by column and row."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.fails: set[tuple[str, int]] = set()

    async def ask(self, column: str, row: int, answer: str) -> str:
        self.asked.append((column, row))
        await anyio.lowlevel.checkpoint()
        if (column, row) in self.fails:
            raise ValueError(f"nothing to say about {row}")
        return answer

    def taken(self) -> list[tuple[str, int]]:
        asked, self.asked = sorted(self.asked), []
        return asked


def build(model: Model, *, version: str = "1", words: str = "?", summary: bool = False) -> headgate.Pipeline:
    """question -> answer -> verdict, and title beside them."""
    pipeline = headgate.Pipeline("p")

    @pipeline.column(model=MODEL, version=version)
    async def question(row: int) -> str:
        return await model.ask("question", row, f"q{version} {row}")

    async def plain(row: int, question: str) -> str:
        return await model.ask("answer", row, f"a to {question}")

    async def edited(row: int, question: str) -> str:
        return await model.ask("answer", row, f"a to {question}" + "!")

    pipeline.column(name="answer", model=MODEL)(plain if words == "?" else edited)

    def even(row: int) -> bool:
        return row % 2 == 0

    @pipeline.column(model=MODEL, when=even)
    async def verdict(row: int, answer: str) -> str:
        return await model.ask("verdict", row, f"v of {answer}")

    @pipeline.column(model=MODEL)
    async def title(row: int) -> str:
        return await model.ask("title", row, f"t {row}")

    if summary:

        @pipeline.column(model=MODEL)
        async def extra(row: int, title: str) -> str:
            return await model.ask("extra", row, f"s of {title}")

    return pipeline


@pytest.fixture(params=["memory", "sqlite", "files", "postgres"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], RunStore]]:
    """Opens the same place again and again."""
    if request.param == "postgres":
        server = shared_server()
        with server.schema() as schema:
            yield lambda: PostgresStore(server.dsn, schema=schema, durability=Durability.PROCESS)
        return
    memory = MemoryStore()

    def make() -> RunStore:
        if request.param == "memory":
            return memory
        return SqliteStore(tmp_path / "s.db") if request.param == "sqlite" else FileStore(tmp_path / "store")

    yield make


def run(store: RunStore, pipeline: headgate.Pipeline, rows: int = 4, **options: Any) -> headgate.RunReport:
    async def main() -> headgate.RunReport:
        report = await headgate.arun(pipeline, rows, store=store, run="r", **options)
        if not isinstance(store, MemoryStore):
            await store.aclose()
        return report

    return anyio.run(main)


def planned(store: RunStore, pipeline: headgate.Pipeline, rows: int = 4, **options: Any) -> headgate.RunPlan:
    async def main() -> headgate.RunPlan:
        try:
            return await headgate.aplan(pipeline, rows, store=store, run="r", **options)
        finally:
            if not isinstance(store, MemoryStore):
                await store.aclose()

    return anyio.run(main)


def cells(columns: str, rows: int = 4) -> list[tuple[str, int]]:
    """The requests that these columns make."""
    return sorted(
        (column, row) for column in columns.split() for row in range(rows) if column != "verdict" or row % 2 == 0
    )


def test_d7_a_changed_column_and_what_reads_it_are_asked_anew(make_store: Callable[[], RunStore]) -> None:
    model = Model()
    assert run(make_store(), build(model)).done == 4
    assert model.taken() == cells("question answer verdict title")
    again = run(make_store(), build(model, version="2"))
    assert model.taken() == cells("question answer verdict")
    (notice,) = again.notices
    assert "question (version), answer (upstream), verdict (upstream) changed" in notice
    assert [row["verdict"] for row in again.results()] == ["v of a to q2 0", None, "v of a to q2 2", None]
    assert run(make_store(), build(model, version="2")).notices == ()
    assert model.taken() == []


def test_d7_taking_the_change_back_costs_nothing(make_store: Callable[[], RunStore]) -> None:
    model = Model()
    run(make_store(), build(model))
    run(make_store(), build(model, version="2"))
    model.taken()
    back = run(make_store(), build(model))
    assert model.taken() == []
    assert [row["verdict"] for row in back.results()] == ["v of a to q1 0", None, "v of a to q1 2", None]


def test_d7_an_edited_function_keeps_what_it_has_made_unless_told_otherwise(make_store: Callable[[], RunStore]) -> None:
    model = Model()
    run(make_store(), build(model))
    model.taken()
    kept = run(make_store(), build(model, words="!"), rows=5)
    assert model.taken() == [(column, 4) for column in ("answer", "question", "title", "verdict")]
    assert "answer (function), verdict (upstream) changed since the run was started: what is done is kept" in str(kept)
    assert [row["answer"] for row in kept.results()][3:] == ["a to q1 3", "a to q1 4!"]
    assert run(make_store(), build(model, words="!"), rows=5).notices == (), "said once"
    run(make_store(), build(model), rows=5, on_change="rerun")
    assert model.taken() == cells("answer verdict", 5)


def test_d7_nothing_is_asked_before_a_change_that_is_refused(make_store: Callable[[], RunStore]) -> None:
    model = Model()
    run(make_store(), build(model))
    model.taken()
    with pytest.raises(FingerprintMismatch, match=r"'question' \(version\), 'answer' \(upstream\).*on_change=\"keep\""):
        run(make_store(), build(model, version="2"), on_change="refuse")
    assert model.taken() == []
    kept = run(make_store(), build(model, version="2"), on_change="keep")
    assert model.taken() == []
    assert [row["question"] for row in kept.results()] == ["q1 0", "q1 1", "q1 2", "q1 3"]


def test_d7_a_plan_says_how_many_cells_will_run_and_changes_nothing(make_store: Callable[[], RunStore]) -> None:
    model = Model()
    model.fails = {("verdict", 2)}

    def expect(to_run: dict[str, int], changed: int, pipeline: headgate.Pipeline, **options: Any) -> None:
        for _ in range(2):
            plan = planned(make_store(), pipeline, finish_siblings=True, **options)
            assert {one.column: one.to_run for one in plan.columns if one.to_run} == to_run
            assert sum(one.changed for one in plan.columns) == changed
            assert {one.rows for one in plan.columns} == {plan.rows}
        assert model.taken() == []

    three = ["question", "answer", "verdict"]
    four = dict.fromkeys([*three, "title"], 4)
    expect(four, 0, build(model))
    run(make_store(), build(model), finish_siblings=True)
    model.taken()
    expect({}, 0, build(model))
    expect({"verdict": 1}, 0, build(model), retry_failed=True)
    expect(dict.fromkeys(four, 2), 0, build(model), rows=6)
    expect(dict.fromkeys(three, 4), 12, build(model, version="2"))
    expect({}, 0, build(model, version="2"), on_change="keep")
    expect({}, 0, build(model, words="!"))
    expect({"answer": 4, "verdict": 4}, 8, build(model, words="!"), on_change="rerun")
    expect({"extra": 4}, 0, build(model, summary=True))
    with pytest.raises(FingerprintMismatch, match="question"):
        planned(make_store(), build(model, version="2"), on_change="refuse")
    plan = planned(make_store(), build(model, version="2"))
    again = run(make_store(), build(model, version="2"))
    assert plan.notices == again.notices
    # Verdicts of odd rows are spared by their condition, which a plan does not ask.
    assert len(model.taken()) == plan.to_run - 2
    assert sum(one.conditional for one in plan.columns) == 4
    expect({}, 0, build(model))


def test_d7_a_column_that_is_new_is_all_that_is_asked(make_store: Callable[[], RunStore]) -> None:
    model = Model()
    run(make_store(), build(model))
    model.taken()
    assert run(make_store(), build(model, summary=True)).notices == ()
    assert model.taken() == cells("extra")


def test_failed_rows_are_tried_again_when_asked_for(make_store: Callable[[], RunStore]) -> None:
    model = Model()
    model.fails = {("question", 1), ("answer", 2), ("title", 3)}
    first = run(make_store(), build(model))
    assert (first.done, first.failed) == (1, 3)
    asked = model.taken()
    assert run(make_store(), build(model)).failed == 3
    assert model.taken() == [], "a failed cell stays failed"
    model.fails = {("answer", 2)}
    again = run(make_store(), build(model), retry_failed=True)
    assert (again.done, again.failed, again.restored) == (3, 1, 1)
    done = {("question", 2)} & set(asked)
    assert set(model.taken()).isdisjoint({("question", 0), *done}), "what is done is not asked again"
    model.fails = set()
    last = run(make_store(), build(model), retry_failed=True)
    assert (last.done, last.failed) == (4, 0)
    assert {column for column, row in model.taken() if row == 2} <= {"answer", "verdict", "title"}
    assert [row["verdict"] for row in last.results()] == ["v of a to q1 0", None, "v of a to q1 2", None]


def test_d8_a_run_that_is_extended_twice_has_every_row_once(make_store: Callable[[], RunStore]) -> None:
    """T53: 100 to 110 to 150 rows gave 130 elsewhere."""
    model = Model()
    for rows, new in ((100, range(100)), (110, range(100, 110)), (150, range(110, 150))):
        report = run(make_store(), build(model), rows=rows)
        assert (report.accepted, report.done) == (rows, rows)
        assert {row for _, row in model.taken()} == set(new)
    assert len(list(report.results())) == 150


def test_outcomes_under_the_same_fingerprint_are_all_on_record(make_store: Callable[[], RunStore]) -> None:
    """A column that was kept has the fingerprint of an earlier generation: the later one comes back, both were paid."""

    async def main() -> None:
        store, row = make_store(), RowRecord(0, "id0", b"d", b"{}")
        for fingerprint, how, value in (("1", {}, b"1"), ("2", KEPT, None), ("1", RENEWED, b"2"), ("2", KEPT, None)):
            handle = await store.open_run("r", {"a": fingerprint}, **how)
            if value is not None:
                cell = CellRecord(0, "a", CellStatus.DONE, value, usage=Usage(1, 1))
                await handle.commit(Batch(rows=(row,), cells=(cell,)))
        handle = await store.open_run("r", {"a": "1"}, renewed=("a",))
        assert [stored.cells for stored in await handle.load(0, 9)] == [()]
        handle = await store.open_run("r", {"a": "2"}, renewed=("a",))
        assert [cell.payload for stored in await handle.load(0, 9) for cell in stored.cells] == [b"2"]
        assert store.read_spent("r") == {"a": Usage(2, 2)}
        await store.aclose()

    anyio.run(main)


def test_a_group_is_asked_again_about_the_rows_that_failed(make_store: Callable[[], RunStore]) -> None:
    fails = {2, 5}
    asked: list[list[int]] = []

    def grouped() -> headgate.Pipeline:
        pipeline = headgate.Pipeline("groups")

        @pipeline.column(scope="group")
        def tenfold(row: list[int]) -> list[Any]:
            asked.append(row)
            return [ValueError("no") if one in fails else 10 * one for one in row]

        @pipeline.column
        def more(tenfold: int) -> int:
            return tenfold + 1

        return pipeline

    first = run(make_store(), grouped(), 8, group_size=4)
    assert (first.done, first.failed) == (6, 2)
    fails.clear()
    asked.clear()
    again = run(make_store(), grouped(), 8, group_size=4, retry_failed=True)
    assert (again.done, again.failed) == (8, 0)
    assert asked == [[2, 5]]
    assert [row["more"] for row in again.results()] == [1, 11, 21, 31, 41, 51, 61, 71]
