"""The graph of columns: what is refused, and what the scheduler reads from it."""

from __future__ import annotations

import re
from itertools import pairwise
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.errors import PipelineError
from headgate.scheduler.graph import MAX_COLUMNS, ColumnSpec, Graph, Scope
from headgate.values import ResourceKey


def spec(name: str, *needs: str) -> ColumnSpec:
    return ColumnSpec(name, needs)


def test_columns_are_numbered_as_defined() -> None:
    graph = Graph.build([spec("verdict", "question", "topic"), spec("question", "topic")])
    assert len(graph) == 2
    assert dict(graph.index) == {"verdict": 0, "question": 1}
    assert graph.parents == ((1,), ())
    assert graph.children == ((), (0,))
    assert graph.order == (1, 0)
    assert graph.path_length == (1, 2)
    assert graph.descendants(1) == (0,)
    assert graph.input_fields == {"topic"}


def test_ties_are_broken_by_the_order_of_definition() -> None:
    """S8: the same pipeline gives the same order."""
    columns = [spec("d", "c"), spec("b", "a"), spec("a"), spec("c")]
    assert Graph.build(columns).order == (2, 1, 3, 0)


def test_conditions_are_needs_too() -> None:
    graph = Graph.build([spec("a"), ColumnSpec("b", ("x",), when_needs=("a", "flag"))])
    assert graph.parents[1] == (0,)
    assert graph.input_fields == {"x", "flag"}


def test_optional_names_are_used_if_they_are_there() -> None:
    columns = [ColumnSpec("b", ("x",), optional=("a", "style", "x"))]
    alone = Graph.build(columns, input_fields=["x"])
    assert alone.parents == ((),)
    assert alone.input_fields == {"x"}
    assert alone.optional_fields == {"a", "style"}
    assert Graph.build([*columns, spec("a")]).parents == ((1,), ())


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        ([spec("a", "a")], "'a' needs itself (a -> a)"),
        ([spec("a", "b"), spec("b", "a")], "a -> b -> a"),
        (
            [spec("root"), spec("a", "root", "c"), spec("b", "a"), spec("c", "b"), spec("leaf", "c")],
            "a -> c -> b -> a",
        ),
        ([ColumnSpec("a", when_needs=("b",)), ColumnSpec("b", optional=("a",))], "a -> b -> a"),
    ],
)
def test_a_cycle_is_shown(columns: list[ColumnSpec], names: str) -> None:
    with pytest.raises(PipelineError) as caught:
        Graph.build(columns)
    assert names in str(caught.value)


def test_a_pipeline_without_columns() -> None:
    with pytest.raises(PipelineError, match="has no columns: decorate"):
        Graph.build([])


def test_columns_are_bounded() -> None:
    columns = [spec(f"c{i}") for i in range(MAX_COLUMNS + 1)]
    assert len(Graph.build([*columns[:-1]])) == MAX_COLUMNS
    with pytest.raises(PipelineError, match=f"'c{MAX_COLUMNS}' is the first too many"):
        Graph.build(columns)


def test_the_widest_join_fits() -> None:
    width = MAX_COLUMNS - 1
    names = [f"c{i}" for i in range(width)]
    graph = Graph.build([*map(spec, names), spec("join", *names)])
    assert len(graph.parents[width]) == width


def test_one_name_twice() -> None:
    with pytest.raises(PipelineError, match=r"column 'a' is defined twice: give one .* name="):
        Graph.build([spec("a"), spec("b"), spec("a")])


def test_a_column_named_like_a_field() -> None:
    with pytest.raises(PipelineError, match="column 'topic' has the name of an input field: rename"):
        Graph.build([spec("topic", "x")], input_fields=["x", "topic"])


def test_an_unknown_parameter_with_a_suggestion() -> None:
    with pytest.raises(PipelineError, match=r"column 'q': parameter 'topc' is neither .* did you mean 'topic'"):
        Graph.build([spec("q", "topc")], input_fields=["topic"])


def test_an_unknown_parameter_without_one() -> None:
    with pytest.raises(PipelineError, match="there are: other, topic"):
        Graph.build([spec("q", "zzz"), spec("other")], input_fields=["topic"])
    with pytest.raises(PipelineError, match="there are: none"):
        Graph.build([spec("q", "zzz")], input_fields=[])


def test_an_unknown_parameter_of_a_condition() -> None:
    column = ColumnSpec("q", ("topic",), when_needs=("lenght",))
    with pytest.raises(PipelineError, match=r"'lenght' of when= is neither .* did you mean 'length'"):
        Graph.build([column], input_fields=["topic", "length"])


def test_a_condition_on_a_group_column() -> None:
    with pytest.raises(PipelineError, match="column 'dedupe': when= decides per row"):
        Graph.build([ColumnSpec("dedupe", ("q",), scope=Scope.GROUP, when_needs=("q",))])


@pytest.mark.parametrize("weight", [0.0, -1.0, nan, inf])
def test_a_weight_that_is_none(weight: float) -> None:
    with pytest.raises(PipelineError, match="column 'a': weight must be"):
        Graph.build([ColumnSpec("a", weight=weight)])


def test_specs_keep_their_resource() -> None:
    key = ResourceKey.parse("openai/gpt-x")
    assert Graph.build([ColumnSpec("a", resource=key)]).specs[0].resource == key


@st.composite
def acyclic(draw: st.DrawFn) -> list[ColumnSpec]:
    count = draw(st.integers(1, 9))
    columns = [
        spec(f"c{i}", *draw(st.lists(st.sampled_from([f"c{j}" for j in range(i)] or ["x"]), unique=True)))
        for i in range(count)
    ]
    return draw(st.permutations(columns))


@given(columns=acyclic())
def test_order_reach_and_length_agree_with_the_definition(columns: list[ColumnSpec]) -> None:
    graph = Graph.build(columns)

    def below(column: int) -> set[int]:
        name = columns[column].name
        direct = {i for i, other in enumerate(columns) if name in other.needs}
        return direct.union(*map(below, direct))

    def length(column: int) -> int:
        return 1 + max((length(child) for child in graph.children[column]), default=0)

    place = {column: position for position, column in enumerate(graph.order)}
    for column, other in enumerate(columns):
        assert {columns[parent].name for parent in graph.parents[column]} == set(other.needs) - {"x"}
        assert all(place[parent] < place[column] for parent in graph.parents[column])
        assert set(graph.descendants(column)) == below(column)
        assert list(graph.descendants(column)) == sorted(below(column), key=place.__getitem__)
        assert graph.path_length[column] == length(column)


@given(columns=acyclic(), data=st.data())
def test_an_edge_back_is_always_found(columns: list[ColumnSpec], data: st.DataObject) -> None:
    """Whatever closes a circle is refused, and the circle shown is one."""
    graph = Graph.build(columns)
    upper = data.draw(st.integers(0, len(columns) - 1))
    lower = data.draw(st.sampled_from((upper, *graph.descendants(upper))))
    closed = list(columns)
    closed[upper] = spec(columns[upper].name, *columns[upper].needs, columns[lower].name)
    with pytest.raises(PipelineError) as caught:
        Graph.build(closed)
    needs = {column.name: column.needs for column in closed}
    (shown,) = re.findall(r"\w+(?: -> \w+)+", str(caught.value))
    circle: list[str] = shown.split(" -> ")
    assert circle[0] == circle[-1]
    assert all(after in needs[before] for before, after in pairwise(circle))
