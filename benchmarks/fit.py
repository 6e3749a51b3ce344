"""The exponent of a growth: the slope of a straight line through logarithms. Pure."""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["exponent"]


def exponent(costs: Mapping[int, float]) -> float:
    """The ``b`` of ``cost = a * size ** b`` by least squares of log cost over log size: 0 is flat, 1 is linear.

    ``costs`` by size, at least two, all above zero.
    """
    points = [(log(size), log(cost)) for size, cost in costs.items()]
    middle_x = sum(x for x, _ in points) / len(points)
    middle_y = sum(y for _, y in points) / len(points)
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    assert spread > 0, "one size says nothing about growth"
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / spread
