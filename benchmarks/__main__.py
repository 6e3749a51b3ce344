"""``python -m benchmarks --scenario overhead --scenario pressure --json out.json --markdown out.md [--quick]``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .measure import Effort, Plan
from .provenance import provenance
from .result import FORMAT, Result
from .runner import run_scenario
from .scenarios import SCENARIOS
from .writer import as_json, as_markdown, result_line

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Measure what was asked for. Returns 0, also when a goal was missed: the line and the files say which."""
    options = parse(argv)
    effort = Effort.SMOKE if options.smoke else Effort.QUICK if options.quick else Effort.FULL
    plan = Plan(
        effort=effort,
        seed=options.seed,
        runs=options.runs or effort.pick(1, 3, 5),
        only=tuple(options.case),
        clients=tuple(options.client),
        minutes=options.minutes,
        jobs=options.jobs or (1 if options.smoke else os.cpu_count() or 1),
        pictures=options.pictures,
    )
    origin = provenance(seed=options.seed, effort=effort.value, argv=argv)
    names: list[str] = options.scenario or list(SCENARIOS)
    measured = tuple(run_scenario(SCENARIOS[name], plan, tell=say) for name in dict.fromkeys(names))
    result = Result(format=FORMAT, provenance=origin, scenarios=measured)
    tables = {name: scenario.table for name, scenario in SCENARIOS.items() if scenario.table}
    markdown = as_markdown(result, tables, folder=options.markdown and options.markdown.parent)
    for path, text in ((options.json, as_json(result)), (options.markdown, markdown)):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if options.markdown is None:
        say("\n" + markdown)
    print(result_line(result), flush=True)
    return 0


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure headgate.")
    parser.add_argument(
        "--scenario", action="append", choices=list(SCENARIOS), help="several are allowed; default: all"
    )
    parser.add_argument("--json", type=Path, help="write the whole result to this file")
    parser.add_argument("--markdown", type=Path, help="write tables to this file instead of standard error")
    parser.add_argument(
        "--runs",
        "--seeds",
        type=_count,
        help="how often to measure each case (default: 5, with --quick 3); in virtual time each run has its own seed",
    )
    parser.add_argument("--seed", type=int, default=1, help="the (first) seed")
    parser.add_argument("--case", action="append", default=[], help="only cases with this in their name; several")
    parser.add_argument(
        "--client", action="append", default=[], help="only clients with this in their name, where several are compared"
    )
    parser.add_argument("--minutes", type=_minutes, help="admission: virtual minutes (default: 30, with --quick 3)")
    parser.add_argument("--jobs", type=_count, help="processes for what is not timed (default: one per CPU)")
    parser.add_argument("--pictures", type=Path, help="admission: draw each case into this folder")
    effort = parser.add_mutually_exclusive_group()
    effort.add_argument("--quick", action="store_true", help="smaller cases, a few minutes in all")
    effort.add_argument(
        "--smoke", action="store_true", help="tiny cases, to see that everything works; no numbers to quote"
    )
    return parser.parse_args(argv)


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("at least one is needed")
    return count


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0.25 <= minutes <= 1440:
        raise argparse.ArgumentTypeError("from a quarter of a minute to a day")
    return minutes


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
