"""What a user's own code may give or raise where nobody expects it: a cell fails, or the run says why it ended; it
never ends otherwise, nor as if nothing had happened. In virtual time.
"""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio
from pydantic import BaseModel, field_validator

import headgate
from headgate.engine.rows import CHECKED_PER_TURN, RowSource
from headgate.errors import HeadgateError, InputError, UnknownRun
from headgate.salvage import Failure, FailureKind
from headgate.testing import run_virtual
from tests.unit.asked import Backend, asking, both

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Torn(Sequence[int]):
    """As long as a group, and without a single value."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, place: Any) -> Any:
        raise Unspeakable


class Trapped(Mapping[str, object]):
    def __getitem__(self, name: str) -> object:
        raise Unspeakable

    def __iter__(self) -> Iterator[str]:
        raise Unspeakable

    def __len__(self) -> int:
        return 1


class Checked(BaseModel):
    number: int

    @field_validator("number")
    @classmethod
    def _never(cls, _value: int) -> int:
        raise Unspeakable


class AnsweredStrangely(Exception):
    response = Trapped()
    headers = Trapped()


def nested(levels: int) -> object:
    value: object = None
    for _ in range(levels):
        value = [value]
    return value


def run_group(value: Callable[[], object]) -> headgate.RunReport:
    pipeline = headgate.Pipeline("groups")

    @pipeline.column(scope="group", output=list[int])
    async def column(row: list[int]) -> object:
        return value()

    return run_virtual(lambda: headgate.arun(pipeline, 3))


def test_a_group_may_return_any_sequence() -> None:
    report = run_group(lambda: deque([1, 2, 3]))
    assert (report.status, report.done) == ("completed", 3)


def test_a_sequence_that_raises_fails_its_group() -> None:
    report = run_group(Torn)
    assert (report.status, report.failed) == ("completed_with_failures", 3)
    assert report.failures[0].kind == "invalid_output"
    assert "returned a Torn that raised Unspeakable" in report.failures[0].message


@pytest.mark.parametrize(
    ("value", "output", "kind", "words"),
    [
        pytest.param({"number": 1}, Checked, "invalid_output", "value: Unspeakable", id="its validator raises"),
        pytest.param(nested(230), Any, "bug", "nested too deeply", id="too deep to be read again"),
    ],
)
def test_a_value_of_no_use_fails_its_cell(value: object, output: object, kind: str, words: str) -> None:
    async def column(row: int) -> object:
        return value

    pipeline = headgate.Pipeline("values")
    pipeline.column(column, name="value", output=output)
    report = run_virtual(lambda: headgate.arun(pipeline, 2, store=headgate.MemoryStore()))
    assert [entry.kind for entry in report.failures] == [kind] * 2
    assert words in report.failures[0].message


@pytest.mark.parametrize("error", [Unspeakable(), AnsweredStrangely()])
def test_an_error_that_cannot_be_looked_at_fails_its_cell(error: Exception) -> None:
    async def body(row: int) -> int:
        raise error

    report = run_virtual(lambda: headgate.arun(asking(body), 2))
    assert [(entry.kind, entry.message) for entry in report.failures] == [("bug", type(error).__name__)] * 2


def test_a_condition_whose_error_has_no_words_fails_its_cell() -> None:
    def never(row: int) -> bool:
        raise Unspeakable

    report = run_virtual(lambda: headgate.arun(asking(when=never), 2))
    assert [entry.message for entry in report.failures] == ["when= raised Unspeakable: Unspeakable"] * 2


def test_a_condition_that_gives_a_coroutine_fails_its_cell() -> None:
    """A function around an async one: what it gave counted as yes, whatever it would have come to."""

    async def no(row: int) -> bool:
        return False

    def around(row: int) -> object:
        return no(row)

    report = run_virtual(lambda: headgate.arun(asking(when=around), 2))
    assert [entry.kind for entry in report.failures] == ["bug"] * 2
    assert report.failures[0].message == "when= gave a coroutine: it has to answer at once"


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        pytest.param("rejected", "rejected", "broke", id="a kind as text"),
        pytest.param(Failure(FailureKind.REJECTED, "no"), "rejected", "no", id="a failure"),
        pytest.param("nonsense", "bug", "said 'nonsense'", id="no kind"),
        pytest.param(Failure("nonsense"), "bug", "said 'nonsense'", id="a failure of no kind"),  # type: ignore[arg-type]
        pytest.param(Failure(FailureKind.POISONED), "bug", "said 'poisoned'", id="what only salvage decides"),
        pytest.param(Failure(FailureKind.REJECTED, None), "bug", "another type", id="a failure of no words"),  # type: ignore[arg-type]
        pytest.param(Failure(FailureKind.REJECTED, "", "400"), "bug", "another type", id="a status as text"),  # type: ignore[arg-type]
    ],
)
def test_what_a_classifier_says_is_checked(said: Any, kind: str, words: str) -> None:
    async def body(row: int) -> int:
        raise ValueError("broke")

    report = run_virtual(lambda: headgate.arun(asking(body), 2, classify=lambda _error: said))
    assert [entry.kind for entry in report.failures] == [kind] * 2
    assert words in report.failures[0].message


@pytest.mark.parametrize("count", [-1, True, 10**400, "12"])
def test_a_usage_that_makes_no_sense_counts_as_absent(count: object) -> None:
    async def body(row: int) -> int:
        lease = headgate.current_lease()
        assert lease is not None
        lease.report(usage={"input_tokens": count, "output_tokens": 7})
        return row

    report = run_virtual(lambda: headgate.arun(asking(body), 2))
    assert (report.status, report.usage) == ("completed", headgate.Usage(0, 14))


def test_t62_a_source_that_awaits_what_others_cancelled_has_not_ended() -> None:
    """T62: somebody else's cancellation came out of the source of rows, and the run ended as completed, without the
    rows that were to come (asyncio only: trio cannot leak one).
    """

    async def rows() -> AsyncIterator[dict[str, int]]:
        yield {"row": 0}
        await anyio.sleep(5)
        cancelled = asyncio.get_running_loop().create_future()
        cancelled.cancel()
        await cancelled
        yield {"row": 1}

    store = headgate.MemoryStore()
    with pytest.raises(InputError, match="awaited something that was cancelled") as raised:
        run_virtual(lambda: headgate.arun(asking(), rows(), store=store))
    assert isinstance(raised.value.__cause__, asyncio.CancelledError)
    assert (store.read_info("regression").status, len(list(store.read_rows("regression")))) == ("stopped", 1)


def test_t62_a_store_that_awaits_what_others_cancelled_ends_the_run_aloud() -> None:
    """T62: the same out of a commit ended the run as held, or as completed where no row was open."""

    class Leaking:
        def __init__(self, handle: Any) -> None:
            self._handle = handle

        def __getattr__(self, name: str) -> Any:
            return getattr(self._handle, name)

        async def commit(self, batch: object) -> None:
            raise asyncio.CancelledError

    class Store(headgate.MemoryStore):
        async def open_run(self, *arguments: Any, **named: Any) -> Any:
            return Leaking(await super().open_run(*arguments, **named))

    with pytest.raises(HeadgateError, match="cancelled by somebody else"):
        run_virtual(lambda: headgate.arun(asking(), 3, store=Store()))


@pytest.mark.parametrize("raises", [True, False])
def test_a_nursery_that_a_timeout_cuts_short_is_a_timeout(raises: bool) -> None:
    """What a nursery of trio ends with holds our cancellation beside an error that a task of it raised on its way out:
    the run ended with that.
    """

    async def child() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            if raises:
                raise ValueError("on its way out")

    async def body(row: int) -> int:
        if not timed_out:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child)
                timed_out.append(row)
                await anyio.sleep_forever()
        return row

    timed_out: list[int] = []
    report = run_virtual(lambda: headgate.arun(asking(body, timeout=5), 3), backend="trio")
    assert (report.status, report.done, len(timed_out)) == ("completed", 3, 1)
    assert report.resources[0].outcomes == {"local_timeout": 1, "success": 3}


@both
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_rows_of_one_mapping_that_is_used_again_are_different_rows(kind: str, backend: Backend) -> None:
    """A source that fills the same mapping for each row: bodies were called with what it held by then, and their
    answers stood beside other inputs.
    """

    def rows() -> Iterator[dict[str, int]]:
        shared: dict[str, int] = {}
        for row in range(6):
            shared["row"] = row
            yield shared

    async def later() -> AsyncIterator[dict[str, int]]:
        for row in rows():
            yield row

    async def main() -> list[dict[str, object]]:
        report = await headgate.arun(asking(), rows() if kind == "sync" else later(), store=headgate.MemoryStore())
        return list(report.results())

    assert run_virtual(main, backend=backend) == [{"row": row, "value": row} for row in range(6)]


@both
def test_an_engine_that_was_left_starts_nothing(backend: Backend) -> None:
    """It opened the run in the store, and left it open, before it noticed."""

    async def main() -> None:
        store = headgate.MemoryStore()
        engine = headgate.Engine(store=store)
        async with engine:
            pass
        with pytest.raises(HeadgateError, match="until it is left"):
            await engine.start(asking(), 1)
        with pytest.raises(UnknownRun):
            store.read_info("regression")

    run_virtual(main, backend=backend)


@both
def test_an_engine_forgets_runs_that_have_ended(backend: Backend) -> None:
    """It kept every one of them, with its ledger and all its parts, for as long as it was there."""

    async def main() -> None:
        async with headgate.Engine() as engine:
            runs: list[weakref.ref[headgate.Run]] = []
            for number in range(5):
                run = await engine.start(asking(), 1, run=f"run{number}")
                await run.wait()
                runs.append(weakref.ref(run))
            gc.collect()
            assert [run() is None for run in runs] == [True] * 4 + [False]

    run_virtual(main, backend=backend)


@pytest.mark.parametrize("first", [True, False])
def test_a_group_of_which_some_rows_have_a_field(first: bool) -> None:
    """The run ended with a KeyError if the first row of the group had it; else nobody was given it."""
    pipeline = headgate.Pipeline("hints")

    @pipeline.column(scope="group")
    async def told(row: list[int], hint: list[str | None] | None = None, mood: str = "calm") -> list[str]:
        assert hint is not None
        return [f"{one} {mood}" for one in hint]

    rows = [{"row": 0, "hint": "a"}, {"row": 1}]
    report = run_virtual(lambda: headgate.arun(pipeline, rows if first else rows[::-1], store=headgate.MemoryStore()))
    assert (report.status, report.done) == ("completed", 2)
    assert {row["row"]: row["told"] for row in report.results()} == {0: "a calm", 1: "None calm"}


def test_the_rows_of_a_list_are_looked_at_in_turns() -> None:
    """A million of them held up the loop for more than a second, before anything else was done."""
    source = RowSource([{"row": row} for row in range(CHECKED_PER_TURN + 1)])
    turns = source.requiring(frozenset({"row"}), {})
    next(turns)
    with pytest.raises(StopIteration):
        next(turns)
    again = RowSource([*({"row": row} for row in range(CHECKED_PER_TURN)), {}])
    turns = again.requiring(frozenset({"row"}), {"value": ("row",)})
    next(turns)
    with pytest.raises(InputError, match=f"row {CHECKED_PER_TURN} has no field 'row'"):
        next(turns)
