"""Hypothesis strategies for simulations: pipelines, limits, misbehaving providers, interruptions.

They need the extra ``testing``. :func:`scenarios` makes up whole cases for
:func:`headgate.testing.check_scenario`; :func:`provider_specs` and :func:`surroundings` are for pipelines of your own::

    @given(provider_specs(("small", "large")), surroundings())
    def test_my_pipeline(spec, around):
        check_pipeline(my_pipeline, 50, spec, surroundings=around)

Numbers are small and shapes are simple first, because that is what a failing case is shrunk to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from .provider.dialects import Dialect, RetryAfter
from .provider.spec import Capacity, Change, Faults, Latency, ModelSpec, OutputTokens, ProviderSpec
from .provider.values import Window
from .scenario import ACCOUNT, Cancel, ColumnShape, Interruption, Leave, Scenario, Stop, Surroundings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["column_shapes", "faults", "limits", "model_specs", "provider_specs", "scenarios", "surroundings"]

MODELS = ("m0", "m1", "m2")
SHARE_MAX = 0.2
"""Largest share of requests that meet one kind of fault by chance."""


def faults() -> st.SearchStrategy[Faults]:
    """Faults of single requests, by chance; mostly few of them."""
    share = st.sampled_from((0.0, 0.0, 0.0, 0.01, 0.05, SHARE_MAX))
    rarely = st.sampled_from((0.0, 0.0, 0.0, 0.02))
    every = {"error_500": share, "overloaded": share, "reset": share, "malformed": share}
    some = {"hang": rarely, "bad_request": rarely, "unauthorized": rarely, "slow": rarely}
    chances = st.fixed_dictionaries({**every, **some})
    return chances.map(Faults.model_validate)


@st.composite
def spells(draw: st.DrawFn, usual: Capacity) -> tuple[Change, ...]:
    """Up to three spells of bad weather, one after the other; some outlast any patience."""
    changes: list[Change] = []
    at_s = 0.0
    for _ in range(draw(st.integers(0, 3))):
        at_s += draw(st.sampled_from((0.5, 3.0, 20.0)))
        changes.append(draw(_bad_weather(at_s)))
        at_s += draw(st.sampled_from((0.5, 5.0, 60.0, 600.0, 20_000.0)))
        back = {name: getattr(usual, name) for name in changes[-1].model_fields_set - {"at_s"}}
        changes.append(Change(at_s=at_s, **back))
    return tuple(changes)


def _bad_weather(at_s: float) -> st.SearchStrategy[Change]:
    """One change for the worse: 429 for all, 500 for all, overload, another capacity, hangs, a hint that lies."""
    return st.one_of(
        st.builds(Change, at_s=st.just(at_s), reject=st.sampled_from((429, 500, 503, 529))),
        st.builds(
            Change,
            at_s=st.just(at_s),
            reject=st.just(429),
            retry_after=st.just(RetryAfter.SECONDS),
            retry_after_s=st.sampled_from((1.0, 30.0)),
        ),
        st.builds(Change, at_s=st.just(at_s), concurrency=st.sampled_from((0, 1, 2, 16))),
        st.builds(Change, at_s=st.just(at_s), faults=st.builds(Faults, hang=st.sampled_from((0.3, 1.0)))),
        st.builds(Change, at_s=st.just(at_s), requests_per_minute=st.sampled_from((0.0, 30.0))),
    )


@st.composite
def model_specs(draw: st.DrawFn) -> ModelSpec:
    """One model: what it serves, how it says no, and its script of bad weather."""
    usual = Capacity(
        concurrency=draw(st.sampled_from((None, 1, 2, 4, 16))),
        requests_per_minute=draw(st.sampled_from((None, None, 120.0, 1200.0))),
        request_burst=draw(st.sampled_from((None, 5.0))),
        tokens_per_minute=draw(st.sampled_from((None, None, 20_000.0))),
        window=draw(st.sampled_from(Window)),
        latency=Latency(mean_s=draw(st.sampled_from((0.0, 0.05, 1.0, 5.0))), sigma=draw(st.sampled_from((0.0, 1.0)))),
        output_tokens=OutputTokens(mean=8, sigma=draw(st.sampled_from((0.0, 1.0)))),
        headers=draw(st.sampled_from(Dialect)),
        retry_after=draw(st.sampled_from(RetryAfter)),
        vague=draw(st.booleans()),
        faults=draw(st.just(Faults()) | faults()),
    )
    # Written down is only what differs from a plain model, so that a failing case is short.
    given = {name: getattr(usual, name) for name in usual.model_fields_set}
    plain = Capacity()
    given = {name: value for name, value in given.items() if value != getattr(plain, name)}
    return ModelSpec(**given, script=draw(spells(usual)))


def provider_specs(models: Sequence[str] = MODELS) -> st.SearchStrategy[ProviderSpec]:
    """A provider of ``models``, each with limits, faults and bad weather of its own."""
    served = st.fixed_dictionaries({name: model_specs() for name in models})
    return st.builds(ProviderSpec, models=served, seed=st.integers(0, 2**16))


def surroundings() -> st.SearchStrategy[Surroundings]:
    """Interruptions and restarts, a slow store, a slow reader, rows that come slowly."""
    at_s = st.sampled_from((0.0, 0.05, 0.7, 3.0, 11.0, 60.0))
    interruption: st.SearchStrategy[Interruption] = st.one_of(
        st.builds(Stop, at_s, st.sampled_from((0.0, 0.5, 10.0))), st.builds(Cancel, at_s), st.builds(Leave, at_s)
    )
    return st.builds(
        Surroundings,
        interruptions=st.lists(interruption, max_size=3).map(tuple),
        commit_s=st.sampled_from((0.0, 0.0, 0.02, 1.0)),
        reader_s=st.sampled_from((None, None, 0.0, 0.3)),
        arrival_s=st.sampled_from((0.0, 0.0, 0.2)),
    )


@st.composite
def column_shapes(draw: st.DrawFn, models: Sequence[str] = MODELS, *, most: int = 5) -> tuple[ColumnShape, ...]:
    """A random pipeline: cell, group and local columns in a random acyclic graph, some with conditions."""
    shapes: list[ColumnShape] = []
    for number in range(draw(st.integers(1, most))):
        earlier = tuple(shape.name for shape in shapes)
        needs = tuple(draw(st.lists(st.sampled_from(earlier), max_size=2, unique=True))) if earlier else ()
        group = draw(st.sampled_from((False, False, False, True)))
        calls = tuple(draw(st.lists(st.sampled_from(tuple(models)), max_size=2)))
        shapes.append(
            ColumnShape(
                f"c{number}",
                needs or ("row",),
                calls,
                group=group,
                blocking=not calls and draw(st.booleans()),
                when=draw(st.none() | _conditions(earlier)) if earlier and not group else None,
                timeout_s=draw(st.sampled_from((600.0, 600.0, 20.0))),
                local_s=0.0 if calls else draw(st.sampled_from((0.0, 0.5))),
                weight=draw(st.sampled_from((1.0, 3.0))),
            )
        )
    return tuple(shapes)


def _conditions(columns: Sequence[str]) -> st.SearchStrategy[tuple[str, int]]:
    return st.tuples(st.sampled_from(tuple(columns)), st.integers(1, 4))


@st.composite
def limits(
    draw: st.DrawFn, models: Sequence[str] = MODELS, *, queue_timeouts: Sequence[float] = (5.0, 60.0)
) -> Mapping[str, Mapping[str, object]] | None:
    """What the user states: nothing, or limits of the account and of some models, right or wrong.

    Where a cell makes several requests, a queue timeout below the time that one more takes to be let out means that
    the cell can never be done: whoever adds shorter ones takes cells of one request.
    """
    if draw(st.booleans()):
        return None
    stated: dict[str, Mapping[str, object]] = {"*": {}}
    for scope in (ACCOUNT, *(f"{ACCOUNT}/{model}" for model in models)):
        if draw(st.booleans()):
            stated[scope] = draw(_one_limit(queue_timeouts))
    return stated


def _one_limit(queue_timeouts: Sequence[float]) -> st.SearchStrategy[Mapping[str, object]]:
    return st.fixed_dictionaries(
        {"concurrency": st.sampled_from((1, 3, 8, "1-2-4", "auto"))},
        optional={
            "requests_per_minute": st.sampled_from((60, 600)),
            "queue_timeout": st.sampled_from(tuple(queue_timeouts)),
            "startup_ramp": st.sampled_from((2.0, 10.0)),
        },
    )


@st.composite
def scenarios(draw: st.DrawFn, *, rows: int = 40, columns: int = 5) -> Scenario:
    """A whole case: up to ``rows`` rows and ``columns`` columns, and everything else."""
    shapes = draw(column_shapes(most=columns))
    one_request_a_cell = all(len(shape.calls) <= 1 for shape in shapes)
    return Scenario(
        columns=shapes,
        rows=draw(st.integers(0, rows)),
        provider=draw(provider_specs()),
        limits=draw(limits(queue_timeouts=(0.02, 5.0) if one_request_a_cell else (5.0, 60.0))),
        options={
            "group_size": draw(st.sampled_from((1, 4, 32))),
            "max_open_rows": draw(st.sampled_from((32, 64, 20_000))),
            "min_open_rows": draw(st.sampled_from((1, 16))),
            "max_workers": draw(st.sampled_from((1, 2, 8, 2048))),
            "local_workers": draw(st.sampled_from((1, 64))),
            "patience": draw(st.sampled_from((30.0, 3600.0))),
            "finish_siblings": draw(st.booleans()),
        },
        surroundings=draw(surroundings()),
        seed=draw(st.integers(0, 2**16)),
    )
