"""The narrowest type of a table's field that loses nothing of the values seen so far.

JSON has whole numbers of any size, lists of mixed things and objects with any keys; a column of a table has one type.
Where one type cannot hold all values exactly, the field is kept as JSON text instead: a whole number never becomes an
inexact float, nor ``true`` a 1. The one thing that a table does not tell apart is a missing key and a null.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple, TypeAlias, cast

__all__ = ["MOST_FIELDS", "Kind", "ListShape", "Shape", "StructShape", "merge", "settle", "shape_of"]

MOST_FIELDS: Final = 200
"""An object with more keys than that is a dictionary, not a record: a table would get a column for each key."""

_EXACT_IN_A_FLOAT: Final = 2**53
_WIDEST: Final = 2**63


class Kind(Enum):
    """The shapes that have no parts. ``WIDE`` is a whole number that a float cannot hold; ``JSON`` holds anything."""

    NULL = "null"
    BOOL = "bool"
    INT = "int"
    WIDE = "wide"
    FLOAT = "float"
    TEXT = "text"
    JSON = "json"


class ListShape(NamedTuple):
    """A list and the shape of all its items."""

    item: Shape


class StructShape(NamedTuple):
    """An object and the shapes of its keys, in the order in which they were seen."""

    fields: dict[str, Shape]


Shape: TypeAlias = "Kind | ListShape | StructShape"

_SCALARS: Final[dict[type[object], Kind]] = {type(None): Kind.NULL, bool: Kind.BOOL, float: Kind.FLOAT, str: Kind.TEXT}
_NUMBERS: Final = frozenset({Kind.INT, Kind.FLOAT})
_INTEGERS: Final = frozenset({Kind.INT, Kind.WIDE})


def shape_of(value: object) -> Shape:
    """The shape of one JSON value."""
    scalar = _SCALARS.get(type(value))
    if scalar is not None:
        return scalar
    if isinstance(value, int):
        if -_EXACT_IN_A_FLOAT <= value <= _EXACT_IN_A_FLOAT:
            return Kind.INT
        return Kind.WIDE if -_WIDEST <= value < _WIDEST else Kind.JSON
    if isinstance(value, list):
        item: Shape = Kind.NULL
        for one in cast("list[object]", value):
            item = merge(item, shape_of(one))
        return Kind.JSON if item is Kind.JSON else ListShape(item)
    fields = {key: shape_of(one) for key, one in cast("dict[str, object]", value).items()}
    return _struct(fields)


def merge(one: Shape, other: Shape) -> Shape:
    """The narrowest shape that holds both. Commutative but for the order of keys."""
    if one is other or other is Kind.NULL:
        return one
    if one is Kind.NULL:
        return other
    if isinstance(one, ListShape) and isinstance(other, ListShape):
        item = merge(one.item, other.item)
        return Kind.JSON if item is Kind.JSON else ListShape(item)
    if isinstance(one, StructShape) and isinstance(other, StructShape):
        fields = dict(one.fields)
        for key, shape in other.fields.items():
            fields[key] = merge(fields.get(key, Kind.NULL), shape)
        return _struct(fields)
    if isinstance(one, Kind) and isinstance(other, Kind):
        both = {one, other}
        return Kind.FLOAT if both <= _NUMBERS else Kind.WIDE if both <= _INTEGERS else Kind.JSON
    return Kind.JSON


def settle(shape: Shape) -> Shape:
    """``shape`` when all values were seen: an object that never had a key cannot be a column, so it is JSON text."""
    return Kind.JSON if _has_empty(shape) else shape


def _struct(fields: dict[str, Shape]) -> Shape:
    return Kind.JSON if Kind.JSON in fields.values() or len(fields) > MOST_FIELDS else StructShape(fields)


def _has_empty(shape: Shape) -> bool:
    if isinstance(shape, ListShape):
        return _has_empty(shape.item)
    if isinstance(shape, StructShape):
        return not shape.fields or any(map(_has_empty, shape.fields.values()))
    return False
