"""Keeping a budget: what may be begun, when what is under way has to fit into it too.

A task is let out only if what was spent, what the tasks under way are expected to cost, and its own estimate fit under
the cap together. What a task reports is taken from what was reserved for it first. So the cap is never passed while
estimates are upper bounds; else by no more than what was under way has cost beyond its estimates.

Does not estimate, and does not wait: who is refused asks again when something has ended. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Generic, TypeVar

from ..errors import ConfigError
from ..values import is_number, shown
from .table import PICO, Amount

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["Budget", "BudgetGate", "BudgetSource", "budget_of"]

K = TypeVar("K", bound="Hashable")


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that a run may spend in all its lives: ``money`` in US dollars, ``tokens`` read and written together."""

    money: float | None = None
    tokens: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("money", self.money), ("tokens", self.tokens)):
            if value is not None and (not is_number(value) or not isfinite(value) or value < 0):
                raise ConfigError(f"budget: {name} must be zero or more, not {shown(value)}")
        if self.money is None and self.tokens is None:
            raise ConfigError("budget: give money, tokens or both")


BudgetSource = Budget | float
"""A :class:`Budget`, or US dollars."""


def budget_of(source: object) -> Budget:
    """The budget that ``source`` means. Raises ConfigError."""
    if isinstance(source, Budget):
        return source
    if isinstance(source, bool) or not isinstance(source, (int, float)):
        raise ConfigError(f"budget must be dollars or a headgate.Budget, not {source!r}")
    return Budget(money=source)


class BudgetGate(Generic[K]):
    """What was ``spent``, and what is ``reserved`` for all under way; both are to be read only."""

    __slots__ = ("_holds", "_money", "_tokens", "reserved", "spent")

    def __init__(self, budget: Budget, spent: Amount) -> None:
        self._money = None if budget.money is None else round(budget.money * PICO)
        self._tokens = budget.tokens
        self.spent = spent
        self.reserved = Amount()
        self._holds: dict[K, Amount] = {}

    def reserve(self, key: K, amount: Amount) -> bool:
        """Whether ``key`` may begin, which is expected to cost ``amount``. One that holds a reservation keeps it."""
        if key in self._holds:
            return True
        if not self._fits(amount, self.reserved):
            return False
        self._holds[key] = amount
        self.reserved = self.reserved.plus(amount)
        return True

    def may_fit(self, amount: Amount) -> bool:
        """Whether ``amount`` would fit if nothing that is under way cost anything more."""
        return self._fits(amount, Amount())

    def spend(self, key: K | None, amount: Amount) -> None:
        """``amount`` was spent, by ``key`` or somebody without a reservation."""
        self.spent = self.spent.plus(amount)
        held = None if key is None else self._holds.get(key)
        if key is not None and held is not None:
            left = Amount(max(0, held.money - amount.money), max(0, held.tokens - amount.tokens))
            self._holds[key] = left
            self._free(held, left)

    def release(self, key: K) -> Amount:
        """``key`` is over, or will not begin. Returns what was still reserved for it."""
        held = self._holds.pop(key, Amount())
        self._free(held, Amount())
        return held

    def share(self, before: Amount, now: Amount) -> float:
        """Which part of the budget was spent between the two."""
        shares = [0.0]
        if self._money is not None:
            shares.append((now.money - before.money) / max(1, self._money))
        if self._tokens is not None:
            shares.append((now.tokens - before.tokens) / max(1, self._tokens))
        return max(shares)

    @property
    def holds(self) -> int:
        """How many reservations there are."""
        return len(self._holds)

    def check(self) -> None:
        """Assert the invariants."""
        assert self.reserved.money == sum(held.money for held in self._holds.values())
        assert self.reserved.tokens == sum(held.tokens for held in self._holds.values())
        assert min(self.reserved) >= 0

    def _fits(self, amount: Amount, reserved: Amount) -> bool:
        after = self.spent.plus(reserved).plus(amount)
        money, tokens = self._money, self._tokens
        # Somebody who costs nothing disturbs nobody: local work goes on when the budget is used up.
        return (money is None or not amount.money or after.money <= money) and (
            tokens is None or not amount.tokens or after.tokens <= tokens
        )

    def _free(self, held: Amount, left: Amount) -> None:
        self.reserved = Amount(
            self.reserved.money - held.money + left.money, self.reserved.tokens - held.tokens + left.tokens
        )
