"""What one run spends, by column and resource, and whether a task may still begin under its budget.

The cost of a task is expected to be what its column states of it (``tokens``, ``max_output_tokens``), and what earlier
tasks of the column cost beyond that in all their requests. A column of which neither is known begins with one task, and
goes on when that has ended; local work of which nothing is known begins whatever was spent. A task that reports no
usage counts with what was reserved for it. The fee for a request is due when its answer is there. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..admission.moments import Moments
from ..errors import ConfigError
from ..prices.account import Account
from ..prices.budget import BudgetGate
from ..prices.table import FREE, Amount, Price
from ..values import Outcome, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..prices.budget import Budget
    from ..prices.lookup import PriceBook
    from ..scheduler.tasks import Task
    from .values import ColumnPlan

__all__ = ["Spending", "Spent"]

KEPT_SHARE = 0.01
"""Of the budget: what a crash may make a run forget. So there are a hundred records more at most."""

_UNKNOWN = Amount(1, 1)
"""What a task with a model is expected to cost of which nothing is known: it counts, as little as possible."""

_NONE = Usage()
_ONE_TOKEN_EACH = Usage(1, 1)

_HOW_TO_TELL = "headgate.attach(client), or lease.report(usage=...)"

_ANSWERED = frozenset({Outcome.SUCCESS, Outcome.INVALID_OUTPUT})
"""How a request ends that a provider has answered, and charges a fee for."""


class Spent(NamedTuple):
    """What a run has spent in all its lives: ``money`` in US dollars, None where no prices were asked for; ``tokens``
    read and written together.
    """

    money: float | None
    tokens: int


class _Learned:
    """What the tasks of one column cost beyond what it states of them, in picos and tokens; ``trying``: the first one
    is under way."""

    __slots__ = ("known", "money", "tokens", "trying")

    def __init__(self) -> None:
        self.money = Moments()
        self.tokens = Moments()
        self.known = False
        self.trying: Task | None = None


class Spending:
    """The account of one run. ``book`` is None where prices are not asked for; ``before`` is what earlier lives of the
    run spent.
    """

    def __init__(
        self,
        plans: Sequence[ColumnPlan],
        budget: Budget | None,
        book: PriceBook | None,
        before: Account,
    ) -> None:
        self._plans = plans
        self._book = book
        self.price_of: Callable[[str], Price | None] | None = None if book is None else book.price
        self._must_be_priced = budget is not None and budget.money is not None
        self._picos: dict[tuple[int, str], int] = {}  # by column and resource, in this life
        self._tasks: dict[Task, Amount] = {}  # under way, and what they have spent
        self._reported: set[Task] = set()  # those of them that have reported usage
        self._stated: dict[Task, Amount] = {}  # under way with a budget, and what their columns state of them
        self._learned = [_Learned() for _ in plans]
        self._assumed = [0] * len(plans)  # picos of tasks that reported no usage, by column
        self.budget = budget
        """The cap, if there is one. To be read only."""
        self.gate: BudgetGate[Task] | None = None if budget is None else BudgetGate(budget, before.total)
        self._total = self._kept = before.total
        self._columns = dict(before.columns)
        self._unpriced: dict[str, None] = {}
        self._silent: dict[str, bool] = {}  # of resources that answered: whether none of the answers told its usage

    @property
    def account(self) -> Account:
        """What was spent in all lives."""
        return Account(self._total, self._columns)

    @property
    def unkept(self) -> bool:
        """Whether so much of the budget was spent since ``kept`` that it should be on record."""
        return self.gate is not None and self.gate.share(self._kept, self._total) >= KEPT_SHARE

    def kept(self) -> None:
        """What was spent is on record."""
        self._kept = self._total

    # Usage

    def check_price(self, resource: str) -> None:
        """Raise ConfigError if a request to ``resource`` may not go out: it is to be paid for, and has no price."""
        if self._must_be_priced and self.price_of is not None and self.price_of(resource) is None:
            raise ConfigError(
                f"a budget in money needs the price of {resource}, which is not known: give it in prices=, or a budget "
                "in tokens"
            )

    def note(self, task: Task, resource: str, usage: Usage) -> None:
        """A request of ``task`` used ``usage``."""
        apart = usage.cache_read_tokens + usage.cache_write_tokens
        self._reported.add(task)
        self._spend(
            task, resource, Amount(self._money(resource, usage), usage.input_tokens + usage.output_tokens + apart)
        )

    def answered(self, task: Task, resource: str, outcome: Outcome, usage: Usage | None) -> None:
        """A request of ``task`` has ended so, with all that it reported: its fee is due if it was answered."""
        if self.price_of is None or (usage is None and outcome not in _ANSWERED):
            return
        self._silent[resource] = usage is None and self._silent.get(resource, True)
        price = self.price_of(resource)
        if price is None:
            self._unpriced[resource] = None
        elif fee := price.fee(usage or _NONE):
            self._spend(task, resource, Amount(fee))

    def _spend(self, task: Task, resource: str, amount: Amount) -> None:
        key = (task.column, resource)
        self._picos[key] = self._picos.get(key, 0) + amount.money
        self._total = self._total.plus(amount)
        if self.price_of is not None and self.price_of(resource) is not None:
            name = self._plans[task.column].name
            self._columns[name] = self._columns.get(name, 0) + amount.money
        self._tasks[task] = self._tasks.get(task, Amount()).plus(amount)
        if self.gate is not None:
            self.gate.spend(task, amount)

    # Tasks, where there is a budget

    def afford(self, task: Task, input_tokens: int | None) -> bool:
        """Whether ``task`` may begin; what it is expected to cost is reserved then."""
        assert self.gate is not None
        plan, learned = self._plans[task.column], self._learned[task.column]
        stated = self._states(plan, input_tokens)
        expected = self._expected(plan, input_tokens, stated)
        trying = expected is None
        if expected is None:
            if learned.trying not in (None, task):
                return False
            expected = Amount() if plan.resource is None else _UNKNOWN.plus(Amount(self._fee(plan.lane)))
        if not self.gate.reserve(task, expected):
            return False
        self._stated[task] = stated
        if trying:
            learned.trying = task
        return True

    def is_beyond(self, task: Task, input_tokens: int | None) -> bool:
        """Whether ``task`` is expected to cost more than is left even if nothing that is under way cost anything."""
        assert self.gate is not None
        plan = self._plans[task.column]
        expected = self._expected(plan, input_tokens, self._states(plan, input_tokens))
        return expected is not None and not self.gate.may_fit(expected)

    def withdrawn(self, task: Task) -> None:
        """``task`` does not begin."""
        if self.gate is not None:
            self.gate.release(task)
            self._stated.pop(task, None)
            learned = self._learned[task.column]
            if learned.trying == task:
                learned.trying = None

    def ended(self, task: Task, succeeded: bool) -> None:
        """``task``, which had begun, is over."""
        spent, reported = self._tasks.pop(task, Amount()), task in self._reported
        self._reported.discard(task)
        if self.gate is None:
            return
        left, stated = self.gate.release(task), self._stated.pop(task, Amount())
        learned = self._learned[task.column]
        tried = learned.trying == task
        if tried:
            learned.trying = None
        if reported:
            learned.known = True
            learned.money.add(float(max(0, spent.money - stated.money)))
            learned.tokens.add(float(max(0, spent.tokens - stated.tokens)))
        elif succeeded:
            learned.known = True
            if left != Amount() and not tried:
                self.gate.spend(None, left)
                self._total = self._total.plus(left)
                if left.money:
                    name = self._plans[task.column].name
                    self._columns[name] = self._columns.get(name, 0) + left.money
                    self._assumed[task.column] += left.money

    # The report

    def cost(self, *, column: int | None = None, resource: str | None = None) -> float | None:
        """Dollars that a column, or a resource, took in this life; None without prices."""
        if self.price_of is None:
            return None
        picos = sum(
            picos
            for (of, at), picos in self._picos.items()
            if (column is None or of == column) and (resource is None or at == resource)
        )
        picos += sum(
            assumed
            for plan, assumed in zip(self._plans, self._assumed, strict=True)
            if (column is None or plan.index == column) and (resource is None or plan.lane == resource)
        )
        return Amount(picos).dollars

    def spent(self) -> Spent:
        """What was spent in all lives, at the end of this one."""
        assert self.gate is None or not self.gate.holds, "somebody still holds a part of the budget"
        return self.so_far

    @property
    def notices(self) -> tuple[str, ...]:
        """What is to be said of the prices."""
        if self._book is None:
            return ()
        free = ", ".join(self._unpriced)
        unpriced = f"the price of {free} is not known: it counts as free; give it in prices=" if free else ""
        silent = ", ".join(filter(self._is_silent, self._silent))
        untold = f"no request to {silent} told its tokens, so they cost nothing here: {_HOW_TO_TELL}" if silent else ""
        return tuple(filter(None, (unpriced, untold, self._book.notice)))

    @property
    def so_far(self) -> Spent:
        """What was spent in all lives until now."""
        return Spent(None if self.price_of is None else self._total.dollars, self._total.tokens)

    def _money(self, resource: str, usage: Usage) -> int:
        if self.price_of is None:
            return 0
        price = self.price_of(resource)
        if price is None:
            self._unpriced[resource] = None
        return (price or FREE).of(usage)

    def _is_silent(self, resource: str) -> bool:
        """Whether tokens of ``resource`` have a price, and none were priced: neither told nor assumed."""
        if self.price_of is None or not self._silent[resource]:
            return False
        price = self.price_of(resource)
        assumed = any(self._assumed[plan.index] for plan in self._plans if plan.lane == resource)
        return price is not None and not assumed and price.of(_ONE_TOKEN_EACH) > 0

    def _fee(self, resource: str, usage: Usage = _NONE) -> int:
        price = None if self.price_of is None else self.price_of(resource)
        return 0 if price is None else price.fee(usage)

    def _expected(self, plan: ColumnPlan, input_tokens: int | None, stated: Amount) -> Amount | None:
        """What a task of which so much is stated will cost, as far as that can be said; None if nothing is known."""
        learned = self._learned[plan.index]
        if not learned.known:
            return stated if input_tokens and plan.column.max_output_tokens else None
        return stated.plus(Amount(round(learned.money.usual), round(learned.tokens.usual)))

    def _states(self, plan: ColumnPlan, input_tokens: int | None) -> Amount:
        """What a column states of a task that reads so many tokens, and the fee for its first request."""
        if plan.resource is None:
            return Amount()
        usage = Usage(input_tokens or 0, plan.column.max_output_tokens or 0)
        money = self._money(plan.lane, usage) + self._fee(plan.lane, usage)
        return Amount(money, usage.input_tokens + usage.output_tokens)
