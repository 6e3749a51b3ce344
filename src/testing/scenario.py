"""A simulated case as plain data: a pipeline of made-up columns, its provider, and what happens meanwhile.

Only values, and the pipeline that they describe: nothing is run here. A scenario's ``repr`` is Python code that
makes it again, so a failing one can be pasted into a test.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, cast

import anyio

from ..engine.pipeline import Pipeline
from ..engine.requests import request
from ..storage.codec import encode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from ..engine.rows import Rows
    from .provider.spec import Capacity, ProviderSpec
    from .provider.virtual import VirtualProvider

__all__ = [
    "Cancel",
    "ColumnShape",
    "Interruption",
    "Leave",
    "Scenario",
    "Stop",
    "Surroundings",
    "arriving",
    "build_pipeline",
    "directly",
]

ACCOUNT = "acme"
"""The provider part of every resource name in a scenario."""


@dataclass(frozen=True, slots=True)
class Stop:
    """``run.stop(grace=grace_s)``, ``at_s`` seconds after the start of that life."""

    at_s: float
    grace_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Cancel:
    """The task that runs the engine is cancelled from outside, ``at_s`` seconds after the start of that life."""

    at_s: float


@dataclass(frozen=True, slots=True)
class Leave:
    """The engine's context is left while its run is going, ``at_s`` seconds after the start of that life."""

    at_s: float


Interruption = Stop | Cancel | Leave


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What happens around a pipeline. Times in seconds.

    ``interruptions`` end one life of the run each; the next life resumes on the same store. ``commit_s`` is how long
    the store takes for a commit. ``reader_s`` is the pause of a consumer of ``run.rows()`` after each row, None for
    nobody. ``arrival_s`` is the pause before each row of a source that is pulled; 0 has all rows at hand.
    ``healthy`` is what every model serves once faults have stopped, None for its own first capacity without faults
    and with no limit of zero.
    """

    interruptions: tuple[Interruption, ...] = ()
    commit_s: float = 0.0
    reader_s: float | None = None
    arrival_s: float = 0.0
    healthy: Capacity | None = None


@dataclass(frozen=True, slots=True)
class ColumnShape:
    """A made-up column. ``needs`` names columns, or the field ``row``.

    ``calls`` are the models that one cell asks in turn, the first being the column's own; none makes it local, and
    ``blocking`` then a plain function. ``group`` makes it a group column. ``when`` is a column and a number n: the
    cell is needed unless that column's value falls into one of n equal classes. ``local_s`` is time spent without
    any model.
    """

    name: str
    needs: tuple[str, ...] = ("row",)
    calls: tuple[str, ...] = ()
    group: bool = False
    blocking: bool = False
    when: tuple[str, int] | None = None
    timeout_s: float | None = 600.0
    local_s: float = 0.0
    weight: float = 1.0


@dataclass(frozen=True, slots=True, repr=False)
class Scenario:
    """One case for :func:`~headgate.testing.harness.check_scenario`: everything that the simulation needs."""

    columns: tuple[ColumnShape, ...]
    rows: int
    provider: ProviderSpec
    limits: Mapping[str, Mapping[str, object]] | None = None
    options: Mapping[str, object] = field(default_factory=dict[str, object])
    surroundings: Surroundings = Surroundings()
    seed: int = 0

    def __repr__(self) -> str:
        """Code that makes the scenario again. Pydantic's own text of a spec is none."""
        spec = self.provider.model_dump(mode="json", exclude_unset=True)
        return (
            f"Scenario(columns={self.columns!r}, rows={self.rows}, provider=ProviderSpec.model_validate({spec!r}), "
            f"limits={self.limits!r}, options={self.options!r}, surroundings={self.surroundings!r}, seed={self.seed})"
        )


def build_pipeline(columns: Sequence[ColumnShape], provider: VirtualProvider) -> Pipeline:
    """The pipeline of ``columns``; its bodies ask ``provider``, one :func:`headgate.request` for each call."""
    pipeline = Pipeline("scenario")
    for shape in columns:
        pipeline.column(
            _function(shape, provider),
            name=shape.name,
            model=f"{ACCOUNT}/{shape.calls[0]}" if shape.calls else None,
            scope="group" if shape.group else "cell",
            when=None if shape.when is None else _condition(*shape.when),
            weight=shape.weight,
            timeout=shape.timeout_s,
            output=list[str] if shape.group else str,
        )
    return pipeline


def mark_of(value: object) -> str:
    """A short text that stands for ``value``: the same in every process."""
    return blake2b(encode(value), digest_size=6).hexdigest()


def _function(shape: ColumnShape, provider: VirtualProvider) -> Callable[..., object]:
    async def cell(**arguments: object) -> object:
        await _ask(shape, provider, mark_of(arguments))
        return _value(shape, arguments)

    def blocking(**arguments: object) -> object:
        return _value(shape, arguments)

    function = blocking if shape.blocking else cell
    return _with_parameters(function, shape.needs)


async def _ask(shape: ColumnShape, provider: VirtualProvider, mark: str) -> None:
    if shape.local_s:
        await anyio.sleep(shape.local_s)
    for number, model in enumerate(shape.calls):
        async with request(f"{ACCOUNT}/{model}") as lease:
            answer = await provider.chat(model, f"{shape.name} {number} {mark}")
            lease.report(status=answer.status, headers=answer.headers, usage=answer.usage)


def _value(shape: ColumnShape, arguments: Mapping[str, object]) -> object:
    if not shape.group:
        return f"{shape.name} {mark_of(arguments)}"
    columns = cast("Mapping[str, list[object]]", arguments)  # a group column is given lists
    return [
        f"{shape.name} {mark_of({name: values[n] for name, values in columns.items()})}"
        for n in range(len(columns[shape.needs[0]]))
    ]


def _condition(column: str, classes: int) -> Callable[..., object]:
    def needed(**arguments: object) -> bool:
        return int(mark_of(arguments), 16) % classes != 0

    return _with_parameters(needed, (column,))


def _with_parameters(function: Callable[..., object], names: Sequence[str]) -> Callable[..., object]:
    """``function`` as one that names its parameters, as the engine reads them."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    signature = inspect.Signature([inspect.Parameter(name, keyword) for name in names])
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function


Body = Callable[..., "Awaitable[object]"]


async def directly(function: Callable[[], object]) -> object:
    """Call a blocking function right here: threads know no virtual time."""
    return function()


async def arriving(rows: Rows, pause_s: float) -> AsyncIterator[object]:
    """``rows`` one by one, each after a pause."""
    if isinstance(rows, AsyncIterable):
        async for row in rows:
            await anyio.sleep(pause_s)
            yield row
        return
    each = ({"row": index} for index in range(rows)) if isinstance(rows, int) else rows
    for row in each:
        await anyio.sleep(pause_s)
        yield row
