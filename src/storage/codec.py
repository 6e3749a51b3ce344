"""Values to JSON bytes and back, and the digest by which a row is known in every process.

What pydantic can serialise can be stored: models, dataclasses, datetimes, UUIDs, enums, and whatever nests
them. It comes back as plain JSON data; whoever knows the column's type validates it.

NaN and the infinities are written as ``NaN``, ``Infinity`` and ``-Infinity``, which Python and pydantic read
back. A model whose own configuration would turn them into ``null`` is refused: the value would be lost
without a word.

The digest is blake2b over canonical JSON, never ``hash()``, which differs from process to process. For the
same reason sets in a row are put in order before they are written.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Set
from hashlib import blake2b
from typing import Any, Final, cast

from pydantic import BaseModel
from pydantic_core import from_json, to_json

__all__ = ["DIGEST_SIZE", "decode", "digest_of", "encode", "encode_row", "stored_form"]

DIGEST_SIZE: Final = 16
"""Bytes of a row's digest."""

_EXACT: Final = frozenset({str, int, bool, type(None)})
"""Types of which every value has one JSON form only. Floats have several, and what contains others may hold them."""
_CANONICAL: Final = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))

_MAX_DEPTH: Final = 200
"""Levels that pydantic's parser reads; it writes some more."""

_MAX_DIGITS: Final = 4300
"""Digits of a number that pydantic's parser reads; it writes any number of them."""
_TOO_MANY: Final = b"0" * (_MAX_DIGITS + 1)
_AS_ZERO: Final = bytes.maketrans(b"123456789", b"000000000")

_PLAIN: Final = (str, int, float, bool, type(None), bytes)


def encode(value: object) -> bytes:
    """Return ``value`` as JSON. Raises TypeError that names the type, or the fault, and the cure."""
    try:
        payload = to_json(value, inf_nan_mode="constants")
    except ValueError as error:  # pydantic's serialisation error is one
        raise TypeError(_complaint(value, error)) from error
    if len(payload) > 2 * _MAX_DEPTH and payload.count(b"[") + payload.count(b"{") > _MAX_DEPTH:
        _check_depth(value, payload)
    if len(payload) > _MAX_DIGITS:
        _check_digits(value, payload)
    if type(value) not in _EXACT and b"null" in payload and _non_finite(value) > _non_finite(decode(payload)):
        raise TypeError(
            f"a {type(value).__name__} holds NaN or an infinity that its model would store as null: set "
            "model_config = ConfigDict(ser_json_inf_nan='constants') on the model"
        )
    return payload


def _check_depth(value: object, payload: bytes) -> None:
    """What can be written may be too deep to be read again, and would be lost."""
    try:
        decode(payload)
    except ValueError as error:
        raise TypeError(f"a {type(value).__name__} is nested too deeply to be read again: flatten it") from error


def _check_digits(value: object, payload: bytes) -> None:
    """A number that can be written may be too long to be read again, and all that stands beside it would be lost."""
    if _TOO_MANY not in payload.translate(_AS_ZERO):
        return
    try:
        decode(payload)
    except ValueError as error:
        raise TypeError(
            f"a {type(value).__name__} holds a number of more than {_MAX_DIGITS} digits, which cannot be read again: "
            "convert it to text, e.g. with hex()"
        ) from error


def decode(payload: bytes) -> Any:
    """Return what ``payload`` holds as plain JSON data: dicts, lists, text, numbers, booleans, None."""
    return from_json(payload)


def encode_row(row: Mapping[str, object]) -> bytes:
    """Return an input row as JSON, the same bytes in every process. Raises TypeError that names the cure."""
    try:
        return encode(_ordered(row))
    except RecursionError as error:
        raise TypeError("a row contains itself or is nested too deeply: flatten it") from error


def digest_of(row: Mapping[str, object] | bytes) -> bytes:
    """Return the digest of a row, or of its JSON, which is cheaper. The order of its keys does not count."""
    data = row if isinstance(row, bytes) else encode_row(row)
    canonical = _CANONICAL.encode(decode(data)).encode()
    return blake2b(canonical, digest_size=DIGEST_SIZE).digest()


def stored_form(row: Mapping[str, object]) -> tuple[bytes, bytes]:
    """Return ``encode_row(row)`` and its ``digest_of``. Raises as they do."""
    exact = type(row) is dict
    if exact:
        for name, value in row.items():
            if type(name) is not str or type(value) not in _EXACT:
                exact = False
                break
    if not exact:
        data = encode_row(row)
        return data, digest_of(data)
    # Text, whole numbers, booleans and None are written in one way only: in the order of its keys the row is canonical.
    try:
        data = to_json(row)
        canonical = data if len(row) == 1 else to_json(dict(sorted(row.items())))
    except ValueError as error:
        raise TypeError(_complaint(row, error)) from error
    if len(data) > _MAX_DIGITS:
        _check_digits(row, data)
    return data, blake2b(canonical, digest_size=DIGEST_SIZE).digest()


def _ordered(value: object) -> object:
    """Return ``value`` with every set in it as a list in an order that does not depend on the process."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Mapping):
        mapping = cast("Mapping[object, object]", value)
        return {key: _ordered(item) for key, item in mapping.items()}
    if isinstance(value, (list, tuple)):
        return [_ordered(item) for item in cast("list[object]", value)]
    if isinstance(value, Set):
        return sorted((_ordered(item) for item in cast("Set[object]", value)), key=encode)
    parts = _parts(value)
    return value if parts is None or not _has_set(parts) else _ordered(parts)


def _parts(value: object) -> dict[str, object] | None:
    """Return the fields of a model or dataclass; None for anything else."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="python")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return None


def _has_set(value: object) -> bool:
    return isinstance(value, Set) or any(_has_set(item) for item in _items(value))


def _non_finite(value: object) -> int:
    """Count the NaNs and infinities in ``value``."""
    if isinstance(value, float):
        return not math.isfinite(value)
    return sum(_non_finite(item) for item in _items(value))


def _items(value: object) -> list[object]:
    """Return what ``value`` contains, one level down."""
    if isinstance(value, _PLAIN):
        return []
    if isinstance(value, Mapping):
        return list(cast("Mapping[object, object]", value).values())
    if isinstance(value, (list, tuple, Set)):
        return list(cast("list[object]", value))
    return list((_parts(value) or {}).values())


def _complaint(value: object, error: ValueError) -> str:
    """Say what is wrong and what helps. pydantic's own message names the type."""
    said = str(error).removeprefix("Error serializing to JSON: ")
    if "unknown type" in said:
        cure = "return plain data, a dataclass or a pydantic model, or convert it first"
    elif "ircular" in said:
        cure = "the value contains itself; return a copy without the cycle"
    elif "surrogates" in said:
        cure = "the text is not valid Unicode; clean it with text.encode('utf-8', 'replace').decode()"
    elif "utf-8" in said:
        cure = "bytes are stored as text; encode others first, e.g. with base64"
    else:
        cure = "convert it to plain data first"
    return f"a {type(value).__name__} cannot be stored as JSON: {said}: {cure}"
