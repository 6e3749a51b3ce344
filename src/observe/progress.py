"""A live view of a run: per model what is in flight and why it is not faster, per column what is done, and the end.

On a terminal, and in a notebook, a table that stays in place; elsewhere a plain line now and then. A terminal shows one
such table at a time: who watches another run on it meanwhile gets lines above the table. A notebook shows each below
the cell that asked for it. Needs the extra ``progress`` (rich). It reads the run twice a second and changes nothing.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, cast

import anyio

from ..log import logger
from .rates import Rates
from .view import progress_line, view_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from rich.console import Console
    from rich.text import Text

    from ..engine.runs import Run

__all__ = ["live", "progress_line", "watch"]

REFRESH_S: Final = 0.5
"""Drawing takes some 2 ms: this keeps it below a hundredth of a core."""

NOTEBOOK_REFRESH_S: Final = 1.0
PLAIN_LINE_EVERY_S: Final = 2.0
PLAIN_LINES_QUICK: Final = 5
PLAIN_LINE_SLOW_S: Final = 30.0
"""The first few lines come quickly, then ever more rarely: a log of a long run is not to be full of them."""


async def watch(run: Run, *, total: int | None = None, console: Console | None = None) -> None:
    """Show ``run`` until it ends. ``total`` is the number of rows, if it is known; ``console`` defaults to stderr.

    Raises ImportError that says what to install where rich is missing.
    """
    try:
        from rich.console import Console
    except ImportError as error:
        raise ImportError("the live view needs rich: pip install 'headgate[progress]'") from error
    screen = console or Console(stderr=True)
    display = _display() if screen.is_jupyter else None
    if display is not None:
        await _cell(run, total, screen, display)
        return
    if not screen.is_terminal:
        await _plain(run, total, screen)
        return
    with _taken(screen) as taken_by:
        if taken_by is None:
            await _table(run, total, screen)
        else:
            await _plain(run, total, taken_by)


def live(*, total: int | None = None, console: Console | None = None) -> Callable[[Run], None]:
    """A view for ``started=``: ``headgate.run(pipeline, rows, started=headgate.observe.live(total=len(rows)))``.

    The run goes on without it when it cannot be shown any more, a terminal that went away say; where rich is missing,
    that is said in its log.
    """

    def begin(run: Run) -> None:
        run.attend(_unharmed, run, total, console)

    return begin


async def _unharmed(run: Run, total: int | None, console: Console | None) -> None:
    with suppress(Exception):
        try:
            await watch(run, total=total, console=console)
        except ImportError as error:
            logger(run=run.name).warning("no live view", reason=str(error))


async def _table(run: Run, total: int | None, screen: Console) -> None:
    from rich.live import Live

    picture = _picture(run, total, screen)
    # What the program prints goes above the table, unless it goes somewhere else anyway: to a file, say.
    shared = sys.stdout.isatty()
    with Live(picture(), console=screen, auto_refresh=False, redirect_stdout=shared) as shown:
        await _repeat(run, REFRESH_S, lambda: shown.update(picture(), refresh=True))


async def _cell(run: Run, total: int | None, screen: Console, display: Callable[..., Any]) -> None:
    """One output of a notebook's cell, replaced again and again, so that it is saved as it was at the end."""
    picture = _picture(run, total, screen)
    shown = display(picture(), display_id=True)
    await _repeat(run, NOTEBOOK_REFRESH_S, lambda: shown.update(picture()))


def _display() -> Callable[..., Any] | None:
    """How a notebook shows things; None where what looks like one has no IPython."""
    try:
        return cast("Callable[..., Any]", import_module("IPython.display").display)
    except ImportError:
        return None


def _picture(run: Run, total: int | None, screen: Console) -> Callable[[], Text]:
    from rich.text import Text

    rates = Rates(total)

    def picture() -> Text:
        now = run.statistics()
        rates.look(now)
        lines = view_lines(now, total, rates, width=screen.width, height=screen.height)
        ended = ((f"{line.text}\n", line.style) for line in lines[:-1])
        return Text.assemble(*ended, lines[-1], no_wrap=True, overflow="crop")

    return picture


async def _repeat(run: Run, every_s: float, draw: Callable[[], object]) -> None:
    """Draw until the run has ended, and once more then, or when the engine is left before."""
    try:
        while not run.done:
            with anyio.move_on_after(every_s):
                await run.ended()
                break
            draw()
    finally:
        draw()


async def _plain(run: Run, total: int | None, console: Console) -> None:
    rates, lines = Rates(total), 0

    def say() -> None:
        now = run.statistics()
        rates.look(now)
        console.print(progress_line(now, total, rates), highlight=False, markup=False, soft_wrap=True)

    try:
        while not run.done:
            with anyio.move_on_after(_pause_s(lines)):
                await run.ended()
                break
            say()
            lines += 1
    finally:  # also when the engine is left first: the last line says how it ended
        say()


def _pause_s(lines: int) -> float:
    return PLAIN_LINE_EVERY_S if lines < PLAIN_LINES_QUICK else min(lines * PLAIN_LINE_EVERY_S, PLAIN_LINE_SLOW_S)


_TABLES: dict[int, Console] = {}
"""Who draws a table on which file. A terminal is one for the whole process, however many engines there are in it."""


@contextmanager
def _taken(screen: Console) -> Generator[Console | None]:
    """Take the screen until the end of the block; or who has taken it, through whom all else has to be said."""
    place = id(screen.file)
    other = _TABLES.get(place)
    if other is not None:
        yield other
        return
    _TABLES[place] = screen
    try:
        yield None
    finally:
        del _TABLES[place]
