"""What a run has spent, as it is kept between its lives: in plain values, read with suspicion. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

from .table import Amount

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NOTHING", "Account", "account_from", "account_to"]


class Account(NamedTuple):
    """What was spent in all lives: ``total``, and the picos by column, where there were prices."""

    total: Amount
    columns: Mapping[str, int]


NOTHING = Account(Amount(), {})


def account_to(account: Account, run: str, created_at: float) -> dict[str, object]:
    """``account`` of the run that has this name and was created then."""
    money, tokens = account.total
    return {"run": run, "created_at": created_at, "money": money, "tokens": tokens, "columns": dict(account.columns)}


def account_from(plain: object, run: str, created_at: float) -> Account:
    """The account of that run; nothing was spent if ``plain`` is another one's, or makes no sense."""
    if not isinstance(plain, dict):
        return NOTHING
    found = cast("Mapping[str, object]", plain)
    if found.get("run") != run or found.get("created_at") != created_at:
        return NOTHING
    money, tokens, columns = found.get("money"), found.get("tokens"), found.get("columns")
    if not isinstance(money, int) or not isinstance(tokens, int) or min(money, tokens) < 0:
        return NOTHING
    by_column = cast("dict[object, object]", columns if isinstance(columns, dict) else {})
    told = {name: picos for name, picos in by_column.items() if isinstance(name, str) and isinstance(picos, int)}
    return Account(Amount(money, tokens), told)
