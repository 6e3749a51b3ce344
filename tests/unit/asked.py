"""Pipelines of one column that asks a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import anyio
import pytest

import headgate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


Backend = Literal["asyncio", "trio"]
BACKENDS: tuple[Backend, ...] = ("asyncio", "trio")
both = pytest.mark.parametrize("backend", BACKENDS)


async def echo(row: int) -> int:
    await anyio.sleep(1 + row / 100)
    return row


def asking(fn: Callable[..., Awaitable[object]] = echo, **options: Any) -> headgate.Pipeline:
    """One column ``value`` that asks ``x/a``."""
    pipeline = headgate.Pipeline("regression")
    pipeline.column(fn, name="value", model="x/a", output=Any, **options)
    return pipeline
