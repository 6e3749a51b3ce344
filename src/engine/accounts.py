"""Opening the account of a run: its prices, its budget, and what it has spent before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..prices.budget import budget_of
from ..prices.lookup import price_book
from .keeping import account_before
from .spending import Spending

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..storage.ports import RunHandle
    from .options import RunOptions
    from .values import ColumnPlan

__all__ = ["check_prices", "open_account"]


def check_prices(options: RunOptions, plans: Sequence[ColumnPlan]) -> None:
    """Raise ConfigError for prices that cannot be meant, and for a budget in money over models without a price."""
    budget = None if options.budget is None else budget_of(options.budget)
    in_money = budget is not None and budget.money is not None
    if options.prices is None and not in_money:
        return
    book = price_book(options.prices)
    for plan in plans:
        if in_money and plan.resource is not None:
            book.require(plan.lane)


def open_account(options: RunOptions, plans: Sequence[ColumnPlan], handle: RunHandle) -> Spending | None:
    """The account of the run that ``handle`` was opened for; None if it needs none."""
    if options.budget is None and options.prices is None:
        return None
    budget = None if options.budget is None else budget_of(options.budget)
    priced = options.prices is not None or (budget is not None and budget.money is not None)
    before = account_before(handle.learned, handle.info)
    return Spending(plans, budget, price_book(options.prices).price if priced else None, before)
