"""Reading token usage in whatever shape a client gives it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeGuard, cast

from ..admission.values import TOKENS_MAX
from ..values import Usage

__all__ = ["UsageLike", "cached_counts", "token_counts", "usage_of"]

UsageLike = object
"""A :class:`~headgate.values.Usage`, an object or a mapping with token counts, or None."""

_INPUT = ("input_tokens", "prompt_tokens")
_OUTPUT = ("output_tokens", "completion_tokens")
_DETAILS = ("input_tokens_details", "prompt_tokens_details")


def usage_of(usage: UsageLike) -> Usage | None:
    """Token counts of ``usage``; None when it has none that can be. Never raises: clients' shapes change."""
    if usage is None:
        return None
    if isinstance(usage, Usage):
        stated = (usage.input_tokens, usage.output_tokens, usage.cached_input_tokens)
        every = (*stated, usage.cache_read_tokens, usage.cache_write_tokens)
        return usage if all(map(_can_be, every)) else None
    read, written = token_counts(usage)
    if read is None and written is None:
        return None
    return Usage(read or 0, written or 0, *cached_counts(usage))


def token_counts(usage: object) -> tuple[int | None, int | None]:
    """Input and output tokens that ``usage`` states, each None where it does not."""
    return _first(usage, _INPUT), _first(usage, _OUTPUT)


def cached_counts(usage: object) -> tuple[int, int, int]:
    """Input tokens that were read from a cache, those among the input tokens and those that are counted apart; and
    those that were written there and are counted apart."""
    for name in _DETAILS:
        details = _get(usage, name)
        if details is not None:
            return _first(details, ("cached_tokens",)) or 0, 0, 0
    return 0, _first(usage, ("cache_read_input_tokens",)) or 0, _first(usage, ("cache_creation_input_tokens",)) or 0


def _first(usage: object, names: tuple[str, ...]) -> int | None:
    for name in names:
        value = _get(usage, name)
        if _can_be(value):
            return value
    return None


def _can_be(tokens: object) -> TypeGuard[int]:
    return isinstance(tokens, int) and not isinstance(tokens, bool) and 0 <= tokens <= TOKENS_MAX


def _get(usage: object, name: str) -> object:
    try:
        if isinstance(usage, Mapping):
            return cast("Mapping[str, object]", usage).get(name)
        return getattr(usage, name, None)
    except Exception:  # somebody else's class
        return None
