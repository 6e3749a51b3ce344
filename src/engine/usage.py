"""Reading token usage in whatever shape a client gives it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from ..values import Usage

__all__ = ["UsageLike", "token_counts", "usage_of"]

UsageLike = object
"""A :class:`~headgate.values.Usage`, an object or a mapping with token counts, or None."""

_INPUT = ("input_tokens", "prompt_tokens")
_OUTPUT = ("output_tokens", "completion_tokens")


def usage_of(usage: UsageLike) -> Usage | None:
    """Token counts of ``usage``; None when it has none. Never raises: clients' shapes change."""
    if usage is None or isinstance(usage, Usage):
        return usage
    read, written = token_counts(usage)
    if read is None and written is None:
        return None
    return Usage(read or 0, written or 0)


def token_counts(usage: object) -> tuple[int | None, int | None]:
    """Input and output tokens that ``usage`` states, each None where it does not."""
    return _first(usage, _INPUT), _first(usage, _OUTPUT)


def _first(usage: object, names: tuple[str, ...]) -> int | None:
    for name in names:
        if isinstance(usage, Mapping):
            value = cast("Mapping[str, object]", usage).get(name)
        else:
            value = getattr(usage, name, None)
        if isinstance(value, int) and value >= 0:
            return value
    return None
