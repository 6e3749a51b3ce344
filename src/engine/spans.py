"""Lengths of time as people read them: ``48 ms``, ``12.5 s``, ``4 min 10 s``, ``3 h 20 min``, ``2 d 4 h``."""

from __future__ import annotations

from math import isfinite

__all__ = ["span"]

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def span(seconds: float) -> str:
    """``seconds`` in the two largest units that say something; ``?`` for what has no end."""
    if not isfinite(seconds):
        return "?"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    left = round(seconds) if seconds < 3_600 else round(seconds / 60) * 60
    parts: list[str] = []
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count} {unit}" if count else "")
        if len(parts) == 2:
            break
    return " ".join(filter(None, parts))
