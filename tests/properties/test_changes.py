"""What is made anew after a change (D7): the changed columns and whatever reads them, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate import Pipeline
from headgate.engine.changes import Plan, decide
from headgate.engine.fingerprints import column_reads, fingerprints
from headgate.errors import FingerprintMismatch

if TYPE_CHECKING:
    from collections.abc import Callable

COLUMNS = 5


def function(reads: tuple[int, ...], edited: bool) -> Callable[..., object]:
    """A function that reads these columns."""
    names = ", ".join(["topic", *(f"c{one}" for one in reads)])
    scope: dict[str, Any] = {}
    exec(f"def {'edited' if edited else 'first'}({names}): ...", scope)
    made: Callable[..., object] = scope["edited" if edited else "first"]
    return made


# A column: what it reads of those before it, whether it was edited, whether its version was raised.
Columns = list[tuple[frozenset[int], bool, bool]]


@st.composite
def pipelines(draw: st.DrawFn) -> Columns:
    return [
        (
            draw(st.frozensets(st.integers(0, place - 1), max_size=2)) if place else frozenset[int](),
            draw(st.sampled_from([False, False, False, True])),
            draw(st.sampled_from([False, False, False, True])),
        )
        for place in range(COLUMNS)
    ]


def build(columns: Columns, *, now: bool) -> Pipeline:
    pipeline = Pipeline("p")
    # Those that read others come first: the order of definition does not matter.
    for place, (reads, edited, raised) in reversed(list(enumerate(columns))):
        fn = function(tuple(sorted(reads)), now and edited)
        pipeline.column(name=f"c{place}", version="2" if now and raised else "1")(fn)
    return pipeline


def below(columns: Columns, changed: set[int]) -> set[str]:
    """The changed columns and all that read them, directly or not."""
    found = set(changed)
    for place, (reads, _, _) in enumerate(columns):
        if reads & found:
            found.add(place)
    return {f"c{place}" for place in found}


@given(pipelines(), st.sampled_from(["auto", "rerun", "keep", "refuse"]))
def test_the_changed_and_what_reads_them_and_nothing_else(columns: Columns, on_change: Any) -> None:
    before = fingerprints(build(columns, now=False).columns)
    pipeline = build(columns, now=True)
    after = fingerprints(pipeline.columns)
    edited = {place for place, (_, edited, _) in enumerate(columns) if edited}
    raised = {place for place, (_, _, raised) in enumerate(columns) if raised}
    differing = below(columns, edited | raised)
    assert {name for name in before if before[name] != after[name]} == differing
    if on_change == "refuse" and differing:
        with pytest.raises(FingerprintMismatch) as refused:
            decide("run", before, after, column_reads(pipeline.columns), on_change)
        assert all(repr(name) in str(refused.value) for name in differing)
        return
    plan = decide("run", before, after, column_reads(pipeline.columns), on_change)
    anew = {"auto": raised, "rerun": edited | raised}.get(on_change, set[int]())
    assert plan.renewed.keys() == below(columns, anew)
    assert plan.kept.keys() == differing - plan.renewed.keys()
    for name, parts in {**plan.renewed, **plan.kept}.items():
        place = int(name[1:])
        assert ("version" in parts) == (place in raised)
        assert ("function" in parts) == (place in edited)


@given(pipelines())
def test_what_has_not_changed_is_no_matter(columns: Columns) -> None:
    found = fingerprints(build(columns, now=True).columns)
    for on_change in ("auto", "rerun", "keep", "refuse"):
        plan = decide("run", found, found, column_reads(build(columns, now=True).columns), on_change)
        assert plan == Plan({}, {}, found)
        assert not plan


def test_a_column_that_is_new_or_gone_changes_those_that_read_it() -> None:
    def build(*names: str) -> Pipeline:
        pipeline = Pipeline("p")
        pipeline.column(name="reader")(function((0,), edited=False))
        for name in names:
            pipeline.column(name=name)(function((), edited=False))
        return pipeline

    without, with_it = build("other"), build("other", "c0")
    for one, other in ((without, with_it), (with_it, without)):
        plan = decide(
            "run", fingerprints(one.columns), fingerprints(other.columns), column_reads(other.columns), "auto"
        )
        assert plan.renewed.keys() == {"reader"}
        assert not plan.kept


def test_another_format_is_a_question_for_the_user() -> None:
    now = fingerprints(build([(frozenset(), False, False)], now=False).columns)
    reads: dict[str, list[str]] = {"c0": []}
    with pytest.raises(FingerprintMismatch, match=r"column 'c0' of run 'run' was described in another way.*on_change="):
        decide("run", {"c0": "00ff"}, now, reads, "auto")
    assert decide("run", {"c0": "00ff"}, now, reads, "keep").kept.keys() == {"c0"}
    assert decide("run", {"c0": "00ff"}, now, reads, "rerun").renewed.keys() == {"c0"}
