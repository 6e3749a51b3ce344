"""What type checkers make of the public names. Checked by mypy and by pyright in ``make check``; nothing runs it.

A line that has to be an error is marked as one. Where the error no longer comes, the mark is an error itself: of mypy
by ``warn_unused_ignores`` (part of strict), of pyright by the setting below.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, assert_type

import openai

import headgate

pipeline = headgate.Pipeline("typed")


def tokens_of(topic: str) -> int:
    return len(topic) // 4


# The decorator gives the function back as it is: a column can be called, tested and typed like any function.


@pipeline.column(model="acme/small", tokens=tokens_of, timeout=30)
async def question(topic: str, level: int = 1) -> str:
    return topic * level


@pipeline.column
def length(question: str) -> int:
    return len(question)


@pipeline.column()
def doubled(length: int) -> int:
    return 2 * length


@pipeline.column(scope="group", when=None)
def first(question: list[str]) -> list[bool]:
    return [True for _ in question]


async def columns_are_what_they_were() -> None:
    assert_type(await question("locks", level=2), str)
    assert_type(length("Why?"), int)
    assert_type(doubled(3), int)
    assert_type(first(["Why?"]), list[bool])
    as_function: Callable[[str], int] = length
    as_function("Why?")
    length(3)  # type: ignore[arg-type]


pipeline.column(length, name="again", weight=2.0)
pipeline.column(length, wieght=2.0)  # type: ignore[call-overload]
pipeline.column(model="acme/small", scope="row")  # type: ignore[call-overload]
pipeline.column("length")  # type: ignore[call-overload]


# The faces: one report for all of them, every option known by name and type.


async def faces() -> None:
    rows: list[dict[str, object]] = [{"topic": "locks"}]
    assert_type(headgate.map(length, ["Why?"], model="acme/small", max_attempts=3), headgate.RunReport)
    assert_type(await headgate.amap(question, rows, model="acme/small", store="a.db"), headgate.RunReport)
    assert_type(headgate.run(pipeline, 10, limits={"acme": {"concurrency": 8}}), headgate.RunReport)
    assert_type(await headgate.arun(pipeline, iter(rows), limits=headgate.Limits(concurrency=8)), headgate.RunReport)
    assert_type(headgate.plan(pipeline, rows, store="a.db"), headgate.RunPlan)
    headgate.map(length, 10, modle="acme/small")  # type: ignore[call-arg]
    headgate.map(length, 10, patience="1h")  # type: ignore[arg-type]
    headgate.run(length, 10)  # type: ignore[arg-type]
    headgate.run(pipeline, rows, on_failure="stop")  # type: ignore[arg-type]


async def engine() -> None:
    async with headgate.Engine(limits="limits.toml", store=headgate.MemoryStore()) as engine:
        assert_type(engine, headgate.Engine)
        run = await engine.start(pipeline, 10, deadline=60.0)
        assert_type(run, headgate.Run)
        async for row in run.rows():
            assert_type(row, headgate.FinishedRow)
        assert_type(run.statistics(), headgate.RunStatistics)
        assert_type(await run.wait(), headgate.RunReport)
    async with headgate.request("acme/small", tokens=100) as lease:
        assert_type(lease, headgate.ActiveLease)
    assert_type(headgate.current_lease(), headgate.ActiveLease | None)


def attached() -> None:
    """A client stays the type that it was."""
    assert_type(headgate.attach(openai.AsyncOpenAI()), openai.AsyncOpenAI)
    assert_type(headgate.attach(openai.OpenAI(), provider="vllm", models={"llama": "vllm/llama"}), openai.OpenAI)


# The report


def report(report: headgate.RunReport) -> None:
    assert_type(report.status, headgate.RunStatus)
    assert_type(report.exit_code, int)
    assert_type((report.accepted, report.done, report.failed), tuple[int, int, int])
    assert_type((report.seconds, report.bound_s), tuple[float, float | None])
    assert_type(report.usage, headgate.Usage)
    assert_type(report.failures[0].kind, headgate.FailureKind)
    assert_type(report.failure_counts, Mapping[tuple[str, str], int])
    assert_type(report.results(), Iterator[dict[str, object]])
    assert_type(report.export("out.jsonl"), headgate.Export)
    for column in report.columns:
        assert_type((column.column, column.done), tuple[str, int])
    for resource in report.resources:
        assert_type((resource.resource, resource.rate_limited), tuple[str, int])
    report.done = 3  # type: ignore[misc]


def classify(error: BaseException) -> headgate.FailureKind | None:
    return headgate.FailureKind.REJECTED if isinstance(error, ValueError) else None


def wrong_classifier(error: str) -> str:
    return error


classified: Awaitable[headgate.RunReport] = headgate.arun(pipeline, 10, classify=classify)
headgate.run(pipeline, 10, classify=wrong_classifier)  # type: ignore[arg-type]
anything: Any = headgate.map(length, (str(n) for n in range(3)))
