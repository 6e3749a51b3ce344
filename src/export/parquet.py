"""Rows as a Parquet file, by pyarrow (extra ``parquet``).

The rows are read once: they are spooled to a temporary file while their types are found out, then written in groups,
so memory holds one group at a time however long the run is.
"""

from __future__ import annotations

import tempfile
from importlib import import_module
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, Final

from ..errors import ConfigError
from ..storage.codec import decode, encode
from .files import replacing
from .shapes import Kind, ListShape, Shape, StructShape, merge, settle, shape_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

__all__ = ["JSON_MARK", "load_pyarrow", "write_parquet"]

GROUP_BYTES: Final = 32 << 20
GROUP_ROWS: Final = 20_000
"""What one row group holds at most, in bytes of JSON and in rows."""

JSON_MARK: Final = {b"headgate": b"json"}
"""The metadata of a field that is JSON text because no single type holds its values."""


def load_pyarrow() -> tuple[Any, Any]:
    """``pyarrow`` and ``pyarrow.parquet``. Raises ConfigError that names the extra to install."""
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise ConfigError("Parquet needs pyarrow, which is not installed: pip install 'headgate[parquet]'") from error


def write_parquet(path: Path, rows: Iterable[Mapping[str, object]]) -> int:
    """Write ``rows`` to ``path`` through a temporary file beside it; returns how many. Blocks: use a thread.

    Fields keep the order in which they are first seen and get the narrowest type that holds every value exactly; where
    there is none, the field is JSON text, and its metadata has ``headgate: json``. Raises ConfigError without pyarrow.
    """
    arrow, parquet = load_pyarrow()
    with tempfile.TemporaryFile(dir=path.parent) as spool:
        fields, count = _spooled(spool, rows)
        schema = arrow.schema([_field(arrow, name, shape) for name, shape in fields.items()])
        spool.seek(0)
        with replacing(path) as file, parquet.ParquetWriter(file, schema, compression="zstd") as writer:
            for group in _groups(spool):
                arrays = [_array(arrow, name, shape, group) for name, shape in fields.items()]
                writer.write_table(arrow.Table.from_arrays(arrays, schema=schema), row_group_size=len(group))
    return count


def _spooled(spool: IO[bytes], rows: Iterable[Mapping[str, object]]) -> tuple[dict[str, Shape], int]:
    fields: dict[str, Shape] = {}
    count = 0
    for row in rows:
        line = encode(row)
        for name, value in decode(line).items():
            fields[name] = merge(fields.get(name, Kind.NULL), shape_of(value))
        spool.write(line + b"\n")
        count += 1
    return {name: settle(shape) for name, shape in fields.items()}, count


def _groups(spool: IO[bytes]) -> Iterator[list[dict[str, object]]]:
    while lines := _some(spool):
        yield [decode(line) for line in lines]


def _some(spool: IO[bytes]) -> list[bytes]:
    lines: list[bytes] = []
    size = 0
    for line in islice(spool, GROUP_ROWS):
        lines.append(line)
        size += len(line)
        if size >= GROUP_BYTES:
            break
    return lines


def _field(arrow: Any, name: str, shape: Shape) -> Any:
    return arrow.field(name, _type(arrow, shape), metadata=JSON_MARK if shape is Kind.JSON else None)


def _type(arrow: Any, shape: Shape) -> Any:
    if isinstance(shape, ListShape):
        return arrow.list_(_type(arrow, shape.item))
    if isinstance(shape, StructShape):
        return arrow.struct([arrow.field(name, _type(arrow, one)) for name, one in shape.fields.items()])
    return getattr(arrow, _TYPES[shape])()


_TYPES: Final = {
    Kind.NULL: "null",
    Kind.BOOL: "bool_",
    Kind.INT: "int64",
    Kind.WIDE: "int64",
    Kind.FLOAT: "float64",
    Kind.TEXT: "string",
    Kind.JSON: "string",
}


def _array(arrow: Any, name: str, shape: Shape, group: list[dict[str, object]]) -> Any:
    if shape is not Kind.JSON:
        return arrow.array([row.get(name) for row in group], type=_type(arrow, shape))
    # A key that the row lacks is null, a value None is the text "null": JSON text can tell them apart.
    return arrow.array([encode(row[name]).decode() if name in row else None for row in group], type=arrow.string())
