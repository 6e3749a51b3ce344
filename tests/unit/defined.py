"""Columns made of one function."""

# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# Lambdas and functions without annotations are what is tested with these.
# Bodies that raise NotImplementedError are never called: their annotations are what counts.

from __future__ import annotations

from collections.abc import Callable  # noqa: TC003  (read at run time)
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from headgate.engine.pipeline import Column, Pipeline

if TYPE_CHECKING:
    from decimal import Decimal as Nowhere  # what a column may not be annotated with


class Verdict(BaseModel):
    score: int
    note: str = ""


class Opaque:
    """Nothing that pydantic could check."""


async def ask(topic: str) -> str:
    return topic


def define(fn: Callable[..., object], **options: Any) -> Column:
    pipeline = Pipeline("tickets")
    pipeline.column(fn, **options)
    return pipeline.columns[0]


def opaque(topic: str) -> Opaque:
    raise NotImplementedError


def dangling(topic: str) -> Nowhere:
    raise NotImplementedError


def scalar(topic: list[str]) -> bool:
    raise NotImplementedError


def unannotated(topic):  # type: ignore[no-untyped-def]  # pyright: ignore
    raise NotImplementedError
