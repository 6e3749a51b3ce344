"""Making the SVG files of matplotlib small: a tenth of a point is enough, and straight runs need no points between."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["compact"]

PATH: Final = re.compile(r' d="(M [^"CQA]*)"')
STEP: Final = re.compile(r"([ML]) (\S+) (\S+)|(z)")

Point = tuple[float, float]


def compact(text: str) -> str:
    """``text`` with every path of straight lines rounded and thinned; it looks the same."""
    return PATH.sub(lambda found: f' d="{_path(found[1])}"', text)


def _path(commands: str) -> str:
    out: list[str] = []
    run: list[Point] = []
    for letter, x, y, close in STEP.findall(commands):
        if letter == "M" or close:
            out.extend(_lines(run))
            run = []
        if close:
            out.append("z")
        else:
            run.append((round(float(x), 1), round(float(y), 1)))
    out.extend(_lines(run))
    return "".join(out)


def _lines(run: list[Point]) -> Iterable[str]:
    kept: list[Point] = []
    for point in run:
        if len(kept) > 1 and _straight(kept[-2], kept[-1], point):
            kept.pop()
        if not kept or kept[-1] != point:
            kept.append(point)
    for number, (x, y) in enumerate(kept):
        before = kept[number - 1] if number else None
        if before is None:
            yield f"M{x:g} {y:g}"
        elif before[1] == y:
            yield f"H{x:g}"
        elif before[0] == x:
            yield f"V{y:g}"
        else:
            yield f"L{x:g} {y:g}"


def _straight(first: Point, middle: Point, last: Point) -> bool:
    """Whether ``middle`` only lies between the others, on a horizontal or vertical line."""
    for across in (0, 1):
        if first[across] == middle[across] == last[across]:
            low, high = sorted((first[1 - across], last[1 - across]))
            return low <= middle[1 - across] <= high
    return False
