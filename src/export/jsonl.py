"""Rows as JSON lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..storage.codec import encode
from .files import replacing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["write_jsonl"]


def write_jsonl(path: Path, rows: Iterable[Mapping[str, object]]) -> int:
    """Write ``rows`` to ``path`` through a temporary file beside it; returns how many. Blocks: use a thread."""
    count = 0
    with replacing(path) as file:
        for row in rows:
            file.write(encode(row))
            file.write(b"\n")
            count += 1
    return count
