"""A live view of a run: per resource what is in flight and why it is not faster, per column what is done.

On a terminal a table that stays in place, elsewhere a plain line now and then. Needs the extra ``progress`` (rich).
It reads the run a few times a second and changes nothing.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ..engine.runs import Run
    from ..engine.statistics import RunStatistics

__all__ = ["progress_line", "watch"]

REFRESH_S = 0.25
PLAIN_LINE_EVERY_S = 2.0


async def watch(run: Run, *, total: int | None = None, console: Console | None = None) -> None:
    """Show ``run`` until it ends. ``total`` is the number of rows, if it is known; ``console`` defaults to stderr.

    Raises ImportError that says what to install where rich is missing.
    """
    try:
        from rich.console import Console
        from rich.live import Live
    except ImportError as error:
        raise ImportError("the live view needs rich: pip install 'headgate[progress]'") from error
    screen = console or Console(stderr=True)
    if not screen.is_terminal:
        await _plain(run, total, screen)
        return
    with Live(_table(run.statistics(), total), console=screen, auto_refresh=False) as live:
        while not run.done:
            await anyio.sleep(REFRESH_S)
            live.update(_table(run.statistics(), total), refresh=True)


def progress_line(now: RunStatistics, total: int | None = None) -> str:
    """One line about a run, for logs."""
    of = f" of {total}" if total is not None else ""
    held = sum(resource.held for resource in now.resources)
    flight = ", ".join(f"{r.resource} {r.in_flight}/{_limit(r.limit)}" for r in now.resources)
    return (
        f"{now.run}: {now.done}{of} rows done, {now.failed} failed, {held} held back after {now.seconds:.1f} s; "
        f"in flight: {flight}"
    )


async def _plain(run: Run, total: int | None, console: Console) -> None:
    while not run.done:
        with anyio.move_on_after(PLAIN_LINE_EVERY_S):
            await run.ended()
        console.print(progress_line(run.statistics(), total), highlight=False, markup=False, soft_wrap=True)


def _table(now: RunStatistics, total: int | None) -> Table:
    from rich.table import Table

    table = Table(title=progress_line(now, total).split(";")[0], title_justify="left", expand=False)
    for heading in ("resource", "in flight", "limit", "ready", "held", "requests", "429", "pace"):
        table.add_column(heading, justify="left" if heading in ("resource", "pace") else "right")
    for one in now.resources:
        pace = f"{one.pace} ({one.blocked_s:.0f} s)" if one.blocked_s else one.pace
        counts = (one.in_flight, _limit(one.limit), one.ready, one.held, one.requests, one.rate_limited)
        table.add_row(one.resource, *(str(count) for count in counts), pace)
    table.add_section()
    for column in now.columns:
        cells = f"{column.done} done, {column.failed} failed, {column.skipped} skipped"
        table.add_row(column.column, "", "", "", "", "", "", cells)
    return table


def _limit(limit: float) -> str:
    return "-" if limit == inf else f"{limit:.0f}"
