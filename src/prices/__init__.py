"""What calls cost, and how much a run may spend: price tables, and the machine that keeps a budget."""

from __future__ import annotations

from .budget import Budget, BudgetGate, BudgetSource, budget_of
from .lookup import GENAI_PRICES, PriceBook, PricesSource, price_book, priced_model
from .table import MICRO, PICO, Amount, Price

__all__ = [
    "GENAI_PRICES",
    "MICRO",
    "PICO",
    "Amount",
    "Budget",
    "BudgetGate",
    "BudgetSource",
    "Price",
    "PriceBook",
    "PricesSource",
    "budget_of",
    "price_book",
    "priced_model",
]
