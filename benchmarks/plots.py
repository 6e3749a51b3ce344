"""Small pictures of results: curves over a size, and what happened over time. The same data gives the same file."""

from __future__ import annotations

# matplotlib's own annotations leave keywords without types.
# pyright: reportUnknownMemberType=false
from itertools import cycle
from typing import TYPE_CHECKING, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from .admission.svg import compact

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

__all__ = ["Curve", "over_size", "over_time"]

Curve = tuple["Sequence[float]", "Sequence[float]"]

COLOURS: Final = ("#1f6fb4", "#e08a1e", "#2f8f6f", "#8250a8", "#9aa3ad", "#b5651d", "#d16ba5")
BOUND: Final = "#c92a2a"
TEXT: Final = "#24292f"


def over_size(
    path: Path, title: str, across: str, up: str, curves: Mapping[str, Curve], bound: float | None = None
) -> Path:
    """``curves`` over a logarithmic size, with ``bound`` as a line that they are to stay below."""
    with _style():
        figure = Figure(figsize=(6.4, 3.4), facecolor="white")
        axes = figure.add_subplot()
        for colour, (name, (xs, ys)) in zip(cycle(COLOURS), curves.items(), strict=False):
            axes.plot(xs, ys, color=colour, marker="o", markersize=4, linewidth=1.6, label=name)
        if bound is not None:
            axes.axhline(bound, color=BOUND, linewidth=1.0, linestyle=(0, (4, 3)), label=f"to reach: {bound:g}")
        axes.set_xscale("log")
        sizes = sorted({x for xs, _ in curves.values() for x in xs})
        axes.set_xticks(sizes, labels=[f"{size:,.0f}" for size in sizes])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return _save(figure, path)


def over_time(path: Path, title: str, up: str, panels: Mapping[str, Mapping[str, Curve]], most: float) -> Path:
    """Steps over seconds, one panel below the other on one scale, of which ``most`` is the top."""
    with _style():
        figure = Figure(figsize=(8, 1.4 * len(panels) + 0.7), facecolor="white")
        end = max(xs[-1] for curves in panels.values() for xs, _ in curves.values())
        shared = figure.subplots(len(panels), 1, sharex=True, squeeze=False)
        for axes, (name, curves) in zip(shared[:, 0], panels.items(), strict=True):
            for colour, (label, (xs, ys)) in zip(cycle(COLOURS), curves.items(), strict=False):
                first = label == next(iter(curves))  # broad, so that one on top of it hides nothing
                axes.step(xs, ys, where="post", color=colour, linewidth=4.0 if first else 1.2, label=label)
            axes.set_xlim(0, end)
            axes.set_ylim(0, 1.15 * most)
            axes.set_title(name, loc="left", fontsize=8, pad=3)
            axes.set_ylabel(up, fontsize=8)
            axes.spines[["top", "right"]].set_visible(False)
        shared[-1, 0].set_xlabel("seconds")
        shared[0, 0].legend(fontsize=8, frameon=False, ncols=4, loc="lower right", bbox_to_anchor=(1.0, 0.95))
        figure.suptitle(title, x=0.02, ha="left", fontsize=10, fontweight="bold")
        figure.tight_layout()
        return _save(figure, path)


def _style() -> AbstractContextManager[None]:
    return mpl.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "headgate",
            "font.family": "sans-serif",
            "font.size": 9,
            "axes.labelcolor": TEXT,
            "text.color": TEXT,
            "xtick.color": TEXT,
            "ytick.color": TEXT,
        }
    )


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    path.write_text(compact(path.read_text(encoding="utf-8")), encoding="utf-8")
    return path
