"""Whatever JSON the values of a field are, a Parquet file gives back exactly them: the narrowest type or JSON text."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

import headgate
from headgate.export.parquet import JSON_MARK, load_pyarrow
from headgate.export.shapes import Kind, Shape, merge, settle, shape_of

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.integers(-9, 9)
    | st.sampled_from([2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1])
    | st.floats(allow_nan=False)
    | st.text(max_size=4)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
ONE_KIND = st.sampled_from(
    [st.integers(-9, 9) | st.floats(-5, 5), st.booleans() | st.none(), st.lists(st.text(max_size=3)), VALUES]
).flatmap(lambda values: st.lists(values, min_size=1, max_size=6))


def same(read: object, meant: object) -> bool:
    """Equal and of the same kind, but that an object's missing key may have become a null."""
    if isinstance(meant, dict) and isinstance(read, dict):
        found, wanted = cast("dict[str, object]", read), cast("dict[str, object]", meant)
        return all(same(found[key], wanted.get(key)) for key in found) and wanted.keys() <= found.keys()
    if isinstance(meant, list) and isinstance(read, list):
        one, other = cast("list[object]", read), cast("list[object]", meant)
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(meant, bool) or isinstance(read, bool):
        return read is meant
    return read == meant


def read_back(path: Path) -> list[dict[str, object]]:
    _, parquet = load_pyarrow()
    table = parquet.read_table(path)
    texts = {field.name for field in table.schema if field.metadata == JSON_MARK}
    rows: list[dict[str, Any]] = table.to_pylist()
    return [
        {name: json.loads(value) if name in texts and value is not None else value for name, value in row.items()}
        for row in rows
    ]


@given(ONE_KIND, st.integers(0, 5))
def test_a_parquet_file_gives_back_what_was_written(values: list[object], without: int) -> None:
    rows = [{"n": n} if n == without else {"n": n, "field": value} for n, value in enumerate(values)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.parquet"
        assert headgate.write_parquet(path, rows) == len(rows)
        found = read_back(path)
    assert [row["n"] for row in found] == list(range(len(rows)))
    for row, meant in zip(found, rows, strict=True):
        assert same(row.get("field"), meant.get("field")), (row, meant)


@given(st.lists(VALUES, min_size=1, max_size=6), st.randoms())
def test_the_order_of_the_values_does_not_change_their_type(values: list[object], rng: Any) -> None:
    def of(values: list[object]) -> Shape:
        shape: Shape = Kind.NULL
        for value in values:
            shape = merge(shape, shape_of(value))
        return settle(shape)

    shuffled = list(values)
    rng.shuffle(shuffled)
    assert of(values) == of(shuffled)


@given(VALUES, VALUES, VALUES)
def test_merging_is_associative(one: object, other: object, third: object) -> None:
    a, b, c = shape_of(one), shape_of(other), shape_of(third)
    assert merge(merge(a, b), c) == merge(a, merge(b, c))
