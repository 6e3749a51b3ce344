"""Lengths of time as people write them: ``90``, ``30s``, ``1.5h``, ``7d``, ``1h30m``."""

from __future__ import annotations

import re
from math import inf
from typing import Final

__all__ = ["seconds"]

_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhdw])")


def seconds(text: str) -> float:
    """Return the seconds that ``text`` means, which it gives itself if it has no unit. Raises ValueError."""
    said = text.strip().lower()
    if said == "inf":
        return inf
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", said):
        return float(said)
    parts = _PART.findall(said)
    units = [unit for _, unit in parts]
    if not parts or "".join(number + unit for number, unit in parts) != said or len(set(units)) < len(units):
        raise ValueError(f"{text!r} is not a length of time: write seconds, or 30s, 5m, 1.5h, 7d, 2w, 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
