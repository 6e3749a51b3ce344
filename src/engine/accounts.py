"""Opening the account of a run: its prices, its budget, and what it has spent before.

Prices are read, and the library that knows some of them is imported, in a thread before the run begins: that takes a
tenth of a second, and no step of the loop is to wait for it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ..log import logger
from ..prices.budget import budget_of
from ..prices.lookup import PriceBook, price_book
from .jobs import worker_threads
from .keeping import account_before
from .spending import Spending

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..prices.lookup import PricesSource
    from ..storage.ports import RunHandle
    from .jobs import ThreadRunner
    from .options import RunOptions
    from .values import ColumnPlan

__all__ = ["check_prices", "open_account", "open_book"]


async def open_book(options: RunOptions, threads: ThreadRunner | None) -> PriceBook | None:
    """The prices of a run; None if it needs none. Raises ConfigError for what cannot be meant."""
    if options.prices is None and not _in_money(options):
        return None
    book = await (threads or worker_threads(1))(partial(_ready_book, options.prices))
    assert isinstance(book, PriceBook)
    return book


def check_prices(run: str, book: PriceBook | None, options: RunOptions, plans: Sequence[ColumnPlan]) -> None:
    """Raise ConfigError for a budget in money over models without a price. Own prices that look misspelt are told of
    aloud, before anything is spent: what a wrong name costs is known at the end only.
    """
    if book is None:
        return
    find = book.require if _in_money(options) else book.price
    for plan in plans:
        if plan.resource is not None:
            find(plan.lane)  # also one that no request of this life will go to: its price is in use
    if book.doubt:
        logger(run=run).warning("prices not used", notice=book.doubt)


def open_account(
    book: PriceBook | None, options: RunOptions, plans: Sequence[ColumnPlan], handle: RunHandle
) -> Spending | None:
    """The account of the run that ``handle`` was opened for; None if it needs none."""
    if options.budget is None and book is None:
        return None
    budget = None if options.budget is None else budget_of(options.budget)
    before = account_before(handle.learned, handle.info)
    return Spending(plans, budget, book, before)


def _in_money(options: RunOptions) -> bool:
    return options.budget is not None and budget_of(options.budget).money is not None


def _ready_book(source: PricesSource | None) -> PriceBook:
    book = price_book(source)
    book.warm_up()
    return book
