"""One picture a case: headgate large, the others small below it, all to the same scale."""

from __future__ import annotations

# matplotlib's own annotations leave keywords without types.
# pyright: reportUnknownMemberType=false
from math import sqrt
from typing import TYPE_CHECKING, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .play import HEADGATE, KINDS, play
from .series import LOOKS, provider_curve, series, unit_of
from .svg import compact

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from matplotlib.axes import Axes

    from .cases import AdmissionCase
    from .play import Played
    from .series import Curve, Series

__all__ = ["draw", "file_name"]

PROVIDER: Final = "#9aa3ad"
ALLOWED: Final = "#e8ebee"
DONE: Final = ("#1f6fb4", "#2f8f6f")
FILL: Final = ("#c3dcf1", "#c9e8dc")
LIMIT: Final = "#e08a1e"
REFUSED: Final = "#c92a2a"
TEXT: Final = "#24292f"
HEADROOM: Final = 1.25
ROWS_LOOK_S: Final = 1.0
SHARE_TICKS: Final = (0.01, 0.25, 1.0)


def file_name(case: AdmissionCase, suffix: str = "svg") -> str:
    """Where the picture of ``case`` goes."""
    letters = "".join(letter if letter.isalnum() else " " for letter in case.name.lower())
    return f"{'-'.join(letters.split())}.{suffix}"


def draw(case: AdmissionCase, folder: Path, *, seed: int, seconds: float, suffix: str = "svg") -> Path:
    """Play ``case`` once with each client, draw it, and return the file."""
    trace_s = seconds / LOOKS if case.rows is None else ROWS_LOOK_S
    traces = {kind: play(kind, case, seed=seed, seconds=seconds, trace_s=trace_s) for kind in KINDS}
    case = case.lasting(seconds)
    if case.rows is not None:
        seconds = max(played.records[0].last_answer for played in traces.values())
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file_name(case, suffix)
    with _style():
        figure = _figure(case, traces, seconds)
        figure.savefig(path, metadata={"Date": None} if suffix == "svg" else None, dpi=110)
    if suffix == "svg":
        path.write_text(compact(path.read_text(encoding="utf-8")), encoding="utf-8")
    return path


def _style() -> AbstractContextManager[None]:
    return mpl.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "headgate",
            "font.family": "sans-serif",
            "font.size": 9,
            "path.simplify_threshold": 0.3,
            "axes.edgecolor": PROVIDER,
            "axes.labelcolor": TEXT,
            "text.color": TEXT,
            "xtick.color": TEXT,
            "ytick.color": TEXT,
        }
    )


def _figure(case: AdmissionCase, traces: dict[str, Played], seconds: float) -> Figure:
    figure = Figure(figsize=(10, 5.8), facecolor="white")
    others = [kind for kind in traces if kind != HEADGATE]
    outer = figure.add_gridspec(
        2, 1, height_ratios=(3, 1.5), hspace=0.46, left=0.065, right=0.985, top=0.88, bottom=0.055
    )
    top = outer[0].subgridspec(2, 1, height_ratios=(5, 1), hspace=0.1)
    below = outer[1].subgridspec(2, len(others), height_ratios=(4, 1), hspace=0.14, wspace=0.12)
    figure.suptitle(f"{case.name}: {case.what}", x=0.065, ha="left", fontsize=12, fontweight="bold", y=0.975)
    allowed = provider_curve(case, seconds)
    height = HEADROOM * max(value for _, value in allowed)
    main = figure.add_subplot(top[0]), figure.add_subplot(top[1])
    _panel(*main, series(case, traces[HEADGATE], seconds), allowed, seconds, height)
    _label(main[0], HEADGATE, case, traces[HEADGATE], small=False)
    main[0].set_ylabel(unit_of(case))
    main[1].set_ylabel("429s", color=REFUSED)
    main[1].set_xlabel("minutes", labelpad=1)
    main[0].legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4, fontsize=8, frameon=False, borderaxespad=0.2)
    for column, kind in enumerate(others):
        pair = figure.add_subplot(below[0, column]), figure.add_subplot(below[1, column])
        _panel(*pair, series(case, traces[kind], seconds).thinned(), allowed, seconds, height)
        _label(pair[0], kind, case, traces[kind], small=True)
        if column:
            pair[0].set_yticklabels([])
            pair[1].set_yticklabels([])
    return figure


def _panel(curves: Axes, bars: Axes, shown: Series, allowed: Curve, seconds: float, height: float) -> None:
    minutes, values = _xy(allowed)
    curves.fill_between(minutes, values, step="post", color=ALLOWED, linewidth=0)
    curves.step(minutes, values, where="post", color=PROVIDER, linewidth=1.4, label="provider's limit")
    if shown.limit and len(shown.done) == 1:
        curves.plot(*_xy(shown.limit), color=LIMIT, linewidth=2.0, label="its own limit", drawstyle="steps-post")
    floor: list[float] = [0.0] * len(shown.done[0])
    for number, (done, line, fill) in enumerate(zip(shown.done, DONE, FILL, strict=False)):
        name = shown.unit if len(shown.done) == 1 else f"client {number + 1}{' on top of it' if number else ''}"
        at, level = _xy(done)
        level = [under + more for under, more in zip(floor, level, strict=True)]
        curves.fill_between(at, level, floor, step="post", color=fill, linewidth=0)
        curves.plot(at, level, color=line, linewidth=0.9, label=name, drawstyle="steps-post")
        floor = level
    # Shares are drawn as their roots: one in a hundred is to be seen beside nine in ten.
    minutes, shares = _xy(shown.refused)
    bars.fill_between(minutes, [sqrt(share) for share in shares], step="post", color=REFUSED, linewidth=0)
    curves.set_ylim(0, height)
    curves.yaxis.set_major_locator(MaxNLocator(4))
    bars.set_ylim(0, 1)
    bars.set_yticks(
        [sqrt(share) for share in SHARE_TICKS], labels=[f"{share:.0%}" for share in SHARE_TICKS], fontsize=6
    )
    for axes in (curves, bars):
        axes.set_xlim(0, seconds / 60)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(length=2, pad=2)
    curves.set_xticklabels([])


def _label(axes: Axes, kind: str, case: AdmissionCase, played: Played, *, small: bool) -> None:
    found = played.figures
    refused = f"{found.refused:.0%}" if found.refused >= 0.1 else f"{found.refused:.1%}"
    if case.rows is not None:
        done = f"x {found.makespan:.2f} of the oracle's time"
    else:
        done = f"{found.utilisation:.1%} of the oracle's work"
    if case.clients > 1:
        refused += f", Jain {found.jain:.3f}"
    if not small:
        axes.set_title(f"{kind}: {done}, 429s {refused}", loc="left", fontsize=10, pad=5)
        return
    axes.set_title(f"{kind}\n{done.partition(' of ')[0]}, 429s {refused}", loc="left", fontsize=8, pad=4)


def _xy(curve: Curve) -> tuple[list[float], list[float]]:
    return [at / 60 for at, _ in curve], [round(value, 4) for _, value in curve]
