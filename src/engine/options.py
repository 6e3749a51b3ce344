"""How a run behaves: bounds, patience, what a failure does. Checked once, before anything is spent."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import inf
from typing import TYPE_CHECKING, Literal, TypedDict, get_args

from ..errors import ConfigError
from ..prices.budget import budget_of
from ..values import is_number, shown
from .changes import OnChange

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ..prices import BudgetSource, PricesSource

__all__ = ["OnFailure", "RunKeywords", "RunOptions"]

OnFailure = Literal["continue", "raise"]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of one run; times are in seconds.

    ``patience`` bounds how long one task may be held back before its row is left for a later run, ``deadline`` the
    whole run, ``stall_timeout`` the time in which no cell finishes anywhere; ``grace`` is what requests in flight get
    when a run is stopped or its source of rows breaks. ``max_attempts`` counts attempts that reached a provider and
    failed there; pressure costs none. Open rows, finished ones that nobody has taken yet included, are bounded by
    ``max_open_rows`` and ``max_open_bytes``, which the row that crosses it may pass; ``group_size`` rows open
    together and are the unit of group columns. About twice as many rows are open as the resources can carry at once,
    but not fewer than ``min_open_rows``.

    When a run is resumed, ``on_change`` says what becomes of columns that have changed since: see
    :data:`~headgate.engine.changes.OnChange`. With ``retry_failed`` the cells that failed are tried again, and with
    them those that were skipped on their account; what is done stays. The cells in ``set_aside``, each a row from 0 and
    a column, are not tried: they fail as ``set_aside``, unless they are done; of a group column the group that the row
    is in, as a whole.

    ``budget`` is the most that the run may spend in all its lives: US dollars, or a :class:`~headgate.Budget` in money,
    tokens or both. A task begins only if it fits under it with all that is under way. ``prices`` says what models cost:
    ``"genai-prices"`` for what that library knows, or a mapping or TOML file of one's own prices, which go first.
    """

    patience: float = 3600.0
    deadline: float = inf
    stall_timeout: float = 7200.0
    grace: float = 10.0
    max_attempts: int = 5
    max_output_attempts: int = 3
    on_failure: OnFailure = "continue"
    on_change: OnChange = "auto"
    retry_failed: bool = False
    finish_siblings: bool = False
    group_size: int = 32
    min_open_rows: int = 16
    max_open_rows: int = 20_000
    max_open_bytes: int = 256 * 1024 * 1024
    max_workers: int = 2048
    local_workers: int = 64
    thread_workers: int = 32
    set_aside: Collection[tuple[int, str]] = ()
    budget: BudgetSource | None = None
    prices: PricesSource | None = None

    def __post_init__(self) -> None:
        for name in ("patience", "deadline", "stall_timeout", "grace"):
            value: object = getattr(self, name)
            if not is_number(value) or not value >= 0:  # NaN is not, either
                raise ConfigError(f"{name} must be zero or more seconds, not {shown(value)}")
        if not self.stall_timeout:
            raise ConfigError("stall_timeout must be more than zero seconds: a cell takes time")
        for name in (
            "max_attempts", "max_output_attempts", "group_size", "min_open_rows", "max_open_rows", "max_open_bytes",
            "max_workers", "local_workers", "thread_workers",
        ):  # fmt: skip
            count: object = getattr(self, name)
            if not isinstance(count, int) or not is_number(count) or count < 1:
                raise ConfigError(f"{name} must be a whole number from 1 on, not {shown(count)}")
        if self.budget is not None:
            budget_of(self.budget)
        if self.on_failure not in get_args(OnFailure):
            raise ConfigError(f'on_failure must be "continue" or "raise", not {self.on_failure!r}')
        if self.on_change not in get_args(OnChange):
            known = ", ".join(f'"{one}"' for one in get_args(OnChange))
            raise ConfigError(f"on_change must be one of {known}, not {self.on_change!r}")
        if self.group_size > self.max_open_rows:
            raise ConfigError(
                f"group_size {self.group_size} is more than max_open_rows {self.max_open_rows}: no group could open"
            )

    @classmethod
    def of(cls, options: Mapping[str, object]) -> RunOptions:
        """Options by name; ConfigError names an unknown one."""
        known = {field.name for field in fields(cls)}
        for name in options:
            if name not in known:
                raise ConfigError(f"unknown option {name!r} (known: {', '.join(sorted(known))})")
        return cls(**options)  # type: ignore[arg-type]


class RunKeywords(TypedDict, total=False):
    """The fields of :class:`RunOptions` as keyword arguments."""

    patience: float
    deadline: float
    stall_timeout: float
    grace: float
    max_attempts: int
    max_output_attempts: int
    on_failure: OnFailure
    on_change: OnChange
    retry_failed: bool
    finish_siblings: bool
    group_size: int
    min_open_rows: int
    max_open_rows: int
    max_open_bytes: int
    max_workers: int
    local_workers: int
    thread_workers: int
    set_aside: Collection[tuple[int, str]]
    budget: BudgetSource | None
    prices: PricesSource | None
