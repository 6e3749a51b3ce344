"""Playing pipelines of known durations in virtual time, and keeping when each task began and ended."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import anyio

import headgate
from headgate.testing.clock import run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Column", "Flow", "Played", "Span", "play"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column: the model whose slots it takes, and how many seconds a task of it does, by its (first) row.

    ``after`` are the columns that it needs. A ``group`` column has one task for all rows of a row group. ``when`` says
    which rows need it; the others skip it.
    """

    name: str
    model: str
    seconds: Callable[[int], float]
    after: tuple[str, ...] = ()
    group: bool = False
    weight: float = 1.0
    when: Callable[[int], bool] | None = None


@dataclass(frozen=True, slots=True)
class Flow:
    """One run: its columns over so many rows, started at a time. ``options`` are those of the engine's ``start``."""

    columns: Sequence[Column]
    rows: int
    starts_at: float = 0.0
    options: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True, slots=True)
class Span:
    """One task as it went: which flow and column, its row or rows, and from when to when it had its slot."""

    flow: int
    column: str
    rows: tuple[int, ...]
    began: float
    ended: float


@dataclass(slots=True)
class Played:
    """What happened. ``rows_out`` are the times at which rows of each flow were complete, in order."""

    spans: list[Span] = field(default_factory=list[Span])
    rows_out: list[list[float]] = field(default_factory=list[list[float]])
    open_rows_max: int = 0

    @property
    def makespan(self) -> float:
        """When the last task ended."""
        return max(span.ended for span in self.spans)

    def of(self, *columns: str) -> list[Span]:
        """The tasks of these columns."""
        return [span for span in self.spans if span.column in columns]


def play(flows: Sequence[Flow], slots: Mapping[str, int], *, seed: int) -> Played:
    """Run all ``flows`` on one engine with so many ``slots`` per model, and return what happened."""
    return run_virtual(_Stage(flows, slots, seed).run)


class _Stage:
    def __init__(self, flows: Sequence[Flow], slots: Mapping[str, int], seed: int) -> None:
        self._flows = flows
        self._limits = {_model(name): {"concurrency": count} for name, count in slots.items()}
        self._seed = seed
        self._played = Played(rows_out=[[] for _ in flows])

    async def run(self) -> Played:
        async with headgate.Engine(limits=self._limits, seed=self._seed) as engine, anyio.create_task_group() as tasks:
            for number, flow in enumerate(self._flows):
                tasks.start_soon(self._flow, engine, number, flow)
        return self._played

    async def _flow(self, engine: headgate.Engine, number: int, flow: Flow) -> None:
        await anyio.sleep(flow.starts_at)
        pipeline = headgate.Pipeline(f"flow{number}")
        for column in flow.columns:
            body = self._body(number, column)
            pipeline.column(
                body,
                name=column.name,
                model=_model(column.model),
                scope="group" if column.group else "cell",
                weight=column.weight,
                when=column.when and _condition(column.when),
                output=list[int] if column.group else int,
            )
        run = await engine.start(pipeline, flow.rows, **flow.options)  # type: ignore[arg-type]
        async for _ in run.rows():
            self._played.rows_out[number].append(anyio.current_time())
            self._played.open_rows_max = max(self._played.open_rows_max, len(run.core.rows))
        report = await run.wait()
        assert report.failed == report.held == 0, report

    def _body(self, flow: int, column: Column) -> Callable[..., object]:
        """A body that takes its time. It is given ``row``, so it needs what it is after and its own number."""

        async def body(row: object, **_: object) -> object:
            rows = cast("list[int]", row) if column.group else [cast("int", row)]
            began = anyio.current_time()
            await anyio.sleep(column.seconds(rows[0]))
            self._played.spans.append(Span(flow, column.name, tuple(rows), began, anyio.current_time()))
            return row

        names = ("row", *column.after)
        parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
        body.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return body


def _condition(when: Callable[[int], bool]) -> Callable[[int], bool]:
    def needed(row: int) -> bool:
        return when(row)

    return needed


def _model(name: str) -> str:
    return f"bench/{name}"
