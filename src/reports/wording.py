"""Numbers, money, durations and times as all reports write them. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from math import floor, log10
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ..storage.overview import RunOverview
    from ..storage.sharing import SharedState

__all__ = [
    "count",
    "duration",
    "large",
    "moment",
    "money",
    "one_line",
    "plain",
    "rows_by_state",
    "share",
    "shared_among",
    "shortened",
    "standing",
    "times",
]


def count(number: float) -> str:
    """A whole number, its digits in threes: ``12 345``, with a narrow space that breaks no line."""
    return f"{number:,.0f}".replace(",", "\u202f")


def large(number: float) -> str:
    """The same in few characters: ``12.3 M`` from ten millions on."""
    for size, unit in ((10**9, "G"), (10**6, "M")):
        if number >= 10 * size:
            return f"{number / size:.1f}\u202f{unit}"
    return count(number)


def duration(seconds: float | None) -> str:
    """``0.35 s``, ``12 s``, ``3 min 20 s``, ``2 h 5 min``, ``3 d 4 h``; a dash for None."""
    if seconds is None:
        return "\u2013"
    if 0 < seconds < 0.1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 59.95:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    for size, unit, smaller, part in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {part}" if rest else "")
    return f"{whole} s"


def money(amount: float) -> str:
    """Without its currency: ``12,345.68``, ``0.50``, and three digits that say something of less: ``0.00613``."""
    if not amount or amount >= 0.9995:
        return f"{amount:,.2f}"
    places = min(12, 2 - floor(log10(amount)))  # of a dollar there is no smaller part than a millionth of a millionth
    whole, _, part = f"{amount:.{places}f}".partition(".")
    return f"{whole}.{part.rstrip('0'):0<2}"


def share(part: float, whole: float) -> str:
    """``part`` of ``whole`` in percent; a dash if there is no whole."""
    return f"{100 * part / whole:.1f}\u202f%" if whole else "\u2013"


def moment(at: float | None) -> str:
    """Wall-clock seconds as a time that means the same everywhere; a dash for None."""
    return "-" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def one_line(said: str) -> str:
    """The same without line breaks, as :func:`plain` text."""
    return plain(" ".join(said.split()))


def plain(said: str) -> str:
    """The same with characters written out that a terminal obeys instead of showing them: what a provider says is not
    to clear a screen, or to be read in another order than it has.
    """
    return said if said.isascii() and said.isprintable() else said.translate(_WRITTEN_OUT)


_WRITTEN_OUT: Final = {
    code: repr(chr(code))[1:-1]
    for code in (*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
"""Control characters, and those that change the direction of writing."""


def shortened(name: str, most: int = 40) -> str:
    """``name`` with its middle left out, if it is longer than ``most``: the ends tell models apart."""
    if len(name) <= most:
        return name
    head = (most - 1) // 2
    return f"{name[:head]}\u2026{name[len(name) - (most - 1 - head) :]}"


def standing(overview: RunOverview) -> str:
    """How the run stands, in a word or a few."""
    if overview.abandoned:
        return "not ended, and nobody works on it"
    if overview.info.status == "running":
        return "running, or killed and not resumed" if overview.shared is None else "running"
    return overview.info.status.replace("_", " ")


def times(overview: RunOverview) -> str:
    """When it began, and when it ended or was last heard of; while engines share it, also who works on it."""
    info = overview.info
    told = (
        f"begun {moment(info.created_at)}",
        f"last outcome {moment(overview.last_at)}" if overview.last_at else "",
        f"ended {moment(info.finished_at)}" if info.finished_at is not None else "",
    )
    opened = "once" if info.epoch == 1 else f"{info.epoch} times"
    shared = overview.shared if info.status == "running" else None
    return f"{', '.join(filter(None, told))}; opened {opened}" + (f"; {shared_among(shared)}" if shared else "")


def shared_among(shared: SharedState) -> str:
    """Where a run stands that engines share, and whether any of them works on it."""
    if shared.complete == shared.groups > 0:
        return f"shared: all {shared.groups} row groups complete, but nobody has ended the run: share it once more"
    told = f"shared: {shared.complete} of {shared.groups} row groups complete"
    if shared.claimed:
        return f"{told}, {shared.claimed} in hand"
    return f"{told}, nobody works on it" + ("" if shared.left_at is None else f" since {moment(shared.left_at)}")


def rows_by_state(overview: RunOverview) -> str:
    """How many rows there are, as the sum that they must come to."""
    return (
        f"rows: {overview.rows} = {overview.whole} whole + {overview.failed} failed + {overview.held} held + "
        f"{overview.pending} pending"
    )
