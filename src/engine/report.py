"""What a run has to say at its end: who got done, who failed and why, where the time went."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from ..errors import LedgerMismatch, RowFailed
from ..reports.wording import money, one_line
from ..values import EXIT_CODES, Usage

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    from ..export import Export, RunResults
    from ..salvage.ledger import FailureEntry
    from .spending import Spent

__all__ = ["ColumnReport", "ResourceReport", "RunReport", "RunStatus"]


class RunStatus(StrEnum):
    """How a run ended."""

    COMPLETED = "completed"
    COMPLETED_WITH_FAILURES = "completed_with_failures"
    HELD = "held"
    STALLED = "stalled"
    STOPPED = "stopped"
    BUDGET_EXHAUSTED = "budget_exhausted"

    @property
    def exit_code(self) -> int:
        """The exit code that a program should end with after such a run."""
        return EXIT_CODES[self]


@dataclass(frozen=True, slots=True)
class ColumnReport:
    """The cells of one column by outcome; they add up to the accepted rows. ``cost`` is what the requests of its bodies
    cost in this life of the run, in US dollars; None where no prices were asked for.
    """

    column: str
    done: int
    failed: int
    held: int
    skipped: int
    cost: float | None = None

    @property
    def total(self) -> int:
        """All cells."""
        return self.done + self.failed + self.held + self.skipped


@dataclass(frozen=True, slots=True)
class ResourceReport:
    """One resource of the run. Times in seconds; ``seconds`` says what set the pace and adds up to the run's time.

    ``wasted`` counts attempts that went out and gained nothing. ``bound_s`` is the time that the provider's work
    takes when its mean concurrency limit is always full: no schedule is faster. ``cost`` is in US dollars, None where
    no prices were asked for.
    """

    resource: str
    requests: int
    outcomes: Mapping[str, int]
    usage: Usage
    peak_in_flight: int
    mean_limit: float | None
    busy_s: float
    queued_s: float
    wasted: int
    seconds: Mapping[str, float]
    bound_s: float | None
    cost: float | None = None

    @property
    def rate_limited(self) -> int:
        """Attempts that the provider answered with 429 or as overloaded."""
        return self.outcomes.get("rate_limited", 0) + self.outcomes.get("overloaded", 0)


@dataclass(frozen=True, slots=True)
class RunReport:
    """The result of a run. ``accepted == done + failed + held + skipped``, for rows and for every column's cells.

    ``restored`` rows had been finished by an earlier run and cost nothing now; they are counted as what they are.
    ``advice`` names the one knob that would help most, or is empty. ``failures`` is bounded; ``failure_counts``, by
    column and kind, is exact. ``spent`` is what the run has spent in all its lives, where prices or a budget were
    given. ``str(report)`` is the whole thing for people.
    """

    run: str
    status: RunStatus
    accepted: int
    done: int
    failed: int
    held: int
    skipped: int
    restored: int
    seconds: float
    columns: tuple[ColumnReport, ...]
    resources: tuple[ResourceReport, ...]
    failures: tuple[FailureEntry, ...]
    failure_counts: Mapping[tuple[str, str], int]
    advice: str
    notices: tuple[str, ...] = ()
    resume_hint: str = ""
    _results: RunResults | None = field(default=None, repr=False, compare=False)
    spent: Spent | None = None

    @property
    def exit_code(self) -> int:
        """0 completed, 3 with failures, 4 held, 5 stalled, 6 budget exhausted, 130 stopped."""
        return self.status.exit_code

    @property
    def bound_s(self) -> float | None:
        """The lower bound of the run's time that its busiest resource sets, in seconds."""
        bounds = [resource.bound_s for resource in self.resources if resource.bound_s is not None]
        return max(bounds) if bounds else None

    @property
    def cost(self) -> float | None:
        """What this life of the run cost in US dollars; None where no prices were asked for."""
        costs = [resource.cost for resource in self.resources if resource.cost is not None]
        return sum(costs) if costs else None

    @property
    def wasted(self) -> int:
        """Attempts that went out and gained nothing."""
        return sum(resource.wasted for resource in self.resources)

    @property
    def usage(self) -> Usage:
        """Tokens of all attempts, as far as they were reported."""
        return sum((resource.usage for resource in self.resources), Usage())

    def results(self) -> Iterator[dict[str, object]]:
        """The rows in which every cell is done or skipped, in order: input fields and column values in one dict.

        Read from the run's store, which must still be open or readable; it blocks, so use a thread in async code.
        Raises ResultExpired if there was no store and ``run.rows()`` has handed rows out: they are kept nowhere else.
        """
        return self._found().read()

    def export(self, out: str | os.PathLike[str]) -> Export:
        """Write the results to ``out`` (.jsonl or .parquet), and rows that are not whole beside it with the reasons.

        See :func:`headgate.export_run`, also for what is raised. It blocks, so use a thread in async code.
        """
        return self._found().export(out)

    def to_html(self, out: str | os.PathLike[str]) -> None:
        """Write a page with charts to ``out``: one file that opens offline, as ``headgate report --html`` does.

        It is about the whole run, earlier lives of it included, and read from its store; for that, and for what is
        raised, see :meth:`results`. Raises ConfigError where plotly is missing (extra ``report``). It blocks.
        """
        self._found().write_html(out)

    def to_markdown(self) -> str:
        """The same as Markdown, in tables instead of charts. It blocks."""
        return self._found().to_markdown()

    def to_json(self) -> str:
        """The same as JSON, with all that is drawn. It blocks."""
        return self._found().to_json()

    def _found(self) -> RunResults:
        assert self._results is not None, "this report was not made by a run"
        return self._results

    def raise_for_failures(self) -> None:
        """Raise RowFailed that names the first failures, if there are any."""
        if self.failed:
            first = "; ".join(f"row {e.row}, {e.column}: {e.kind} {e.message}" for e in self.failures[:3])
            raise RowFailed(f"{self.failed} of {self.accepted} rows failed: {first}")

    def check(self) -> None:
        """Raise LedgerMismatch when the counts do not add up: that is a fault in headgate."""
        if self.accepted != self.done + self.failed + self.held + self.skipped:
            raise LedgerMismatch(
                f"{self.accepted} rows accepted, but {self.done} done + {self.failed} failed + {self.held} held + "
                f"{self.skipped} skipped"
            )
        for column in self.columns:
            if column.total != self.accepted:
                raise LedgerMismatch(f"{column.column}: {column.total} cells for {self.accepted} rows: {column}")

    def __str__(self) -> str:
        return render(self)


def render(report: RunReport) -> str:
    """The report as plain text."""
    lines = [
        f"run {report.run}: {report.status.value} after {report.seconds:.2f} s",
        f"  rows: {report.accepted} accepted = {report.done} done + {report.failed} failed + {report.held} held + "
        f"{report.skipped} skipped" + (f" ({report.restored} restored)" if report.restored else ""),
    ]
    lines.extend(
        f"  {one.column}: {one.done} done, {one.failed} failed, {one.held} held, {one.skipped} skipped{_cost(one.cost)}"
        for one in report.columns
    )
    for resource in report.resources:
        lines.extend(_resource_lines(resource, report.seconds))
    if report.spent is not None:
        dollars = "" if report.spent.money is None else f"${money(report.spent.money)}, "
        lines.append(f"  spent in all lives of the run: {dollars}{report.spent.tokens} tokens")
    if report.bound_s is not None:
        ratio = f", {report.seconds / report.bound_s:.2f} x" if report.bound_s > 0 else ""
        lines.append(f"  bound by the providers' work and limits: {report.bound_s:.2f} s{ratio}")
    lines.extend(f"  notice: {one_line(notice)}" for notice in report.notices)
    if report.failure_counts:
        lines.append("  failures:")
        for (column, kind), count in sorted(report.failure_counts.items()):
            lines.append(f"    {column}: {count} x {kind}")
        for entry in report.failures[:5]:
            status = f" status {entry.status}" if entry.status is not None else ""
            lines.append(f"    row {entry.row}, {entry.column}: {entry.kind}{status}: {one_line(entry.message)}")
    if report.advice:
        lines.append(f"  advice: {report.advice}")
    if report.resume_hint:
        lines.append(f"  {report.resume_hint}")
    return "\n".join(lines)


def _cost(cost: float | None) -> str:
    return "" if cost is None else f", ${money(cost)}"


def _resource_lines(resource: ResourceReport, seconds: float) -> Iterator[str]:
    rate = resource.requests / seconds if seconds > 0 else 0.0
    mean = f", mean limit {resource.mean_limit:.1f}" if resource.mean_limit is not None else ""
    yield (
        f"  {resource.resource}: {resource.requests} requests ({rate:.1f}/s), {resource.rate_limited} rate-limited, "
        f"{resource.wasted} wasted, peak {resource.peak_in_flight} in flight{mean}"
    )
    if resource.usage != Usage():
        yield f"    tokens: {resource.usage.input_tokens} in, {resource.usage.output_tokens} out"
    total = sum(resource.seconds.values())
    if total > 0:
        shares = sorted(resource.seconds.items(), key=lambda item: -item[1])
        told = ", ".join(f"{reason} {100 * spent / total:.0f} %" for reason, spent in shares if spent >= total / 200)
        yield f"    where the time went: {told}"
