"""``python -m benchmarks --scenario overhead --json out.json --markdown out.md [--quick] [--compare old.json]``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .compare import NotComparable, as_table, compare, read_result, share_scenarios
from .measure import Effort, Plan
from .provenance import provenance
from .result import FORMAT, Result
from .runner import run_scenario
from .scenarios import BY_DEFAULT, SCENARIOS
from .writer import as_json, as_markdown, result_line

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Measure what was asked for.

    Returns 0, also when a goal was missed: the line and the files say which. With ``--compare`` it returns 1 if
    something got worse by more than the tolerance, and 2 if there was nothing to compare.
    """
    options = parse(argv)
    names: list[str] = list(dict.fromkeys(options.scenario or [name for name in SCENARIOS if name in BY_DEFAULT]))
    try:
        old = options.compare and read_result(_text(options.compare), options.compare.name)
        if options.result is not None:
            result = read_result(_text(options.result), options.result.name)
        else:
            if old:
                share_scenarios(old, names)
            result = measure(options, names, argv)
        found = compare(old, result, tolerance=options.tolerance) if old else None
    except NotComparable as error:
        say(f"python -m benchmarks: {error}")
        return 2
    if options.result is None:
        print(result_line(result), flush=True)
    if found is None:
        return 0
    say("\n" + as_table(found))
    return 1 if found.worse else 0


def measure(options: argparse.Namespace, names: Sequence[str], argv: Sequence[str]) -> Result:
    """Run the scenarios, and write the files that were asked for."""
    effort = Effort.SMOKE if options.smoke else Effort.QUICK if options.quick else Effort.FULL
    plan = Plan(
        effort=effort,
        seed=options.seed,
        runs=options.runs or effort.pick(1, 1, 5),
        only=tuple(options.case),
        clients=tuple(options.client),
        minutes=options.minutes,
        jobs=options.jobs or (1 if options.smoke else os.cpu_count() or 1),
        pictures=options.pictures,
    )
    origin = provenance(seed=options.seed, effort=effort.value, argv=argv)
    measured = tuple(run_scenario(SCENARIOS[name], plan, tell=say) for name in names)
    result = Result(format=FORMAT, provenance=origin, scenarios=measured)
    tables = {name: scenario.table for name, scenario in SCENARIOS.items() if scenario.table}
    markdown = as_markdown(result, tables, folder=options.markdown and options.markdown.parent)
    for path, text in ((options.json, as_json(result)), (options.markdown, markdown)):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if options.markdown is None:
        say("\n" + markdown)
    return result


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise NotComparable(f"{path} cannot be read: {error}") from error


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure headgate.")
    parser.add_argument(
        "--scenario",
        action="append",
        choices=list(SCENARIOS),
        help=f"several are allowed; default: all but {', '.join(sorted(SCENARIOS.keys() - BY_DEFAULT))}",
    )
    parser.add_argument("--json", type=Path, help="write the whole result to this file")
    parser.add_argument("--markdown", type=Path, help="write tables to this file instead of standard error")
    parser.add_argument(
        "--runs",
        "--seeds",
        type=_count,
        help="how often to measure each case (default: 5, with --quick 1); in virtual time each run has its own seed",
    )
    parser.add_argument("--seed", type=int, default=1, help="the (first) seed")
    parser.add_argument("--case", action="append", default=[], help="only cases with this in their name; several")
    parser.add_argument(
        "--client", action="append", default=[], help="only clients with this in their name, where several are compared"
    )
    parser.add_argument("--minutes", type=_minutes, help="admission: virtual minutes (default: 30, with --quick 3)")
    parser.add_argument("--jobs", type=_count, help="processes for what is not timed (default: one per CPU)")
    parser.add_argument("--pictures", type=Path, help="admission: draw each case into this folder")
    parser.add_argument(
        "--compare", type=Path, metavar="OLD.json", help="then say what got better or worse; 1 if anything got worse"
    )
    parser.add_argument(
        "--result", type=Path, metavar="NEW.json", help="with --compare: measure nothing, take this result"
    )
    parser.add_argument(
        "--tolerance", type=_share, default=0.15, help="with --compare: what is still the same (default: 0.15)"
    )
    effort = parser.add_mutually_exclusive_group()
    effort.add_argument("--quick", action="store_true", help="smaller cases, less than a minute in all")
    effort.add_argument(
        "--smoke", action="store_true", help="tiny cases, to see that everything works; no numbers to quote"
    )
    options = parser.parse_args(argv)
    if options.result is not None and options.compare is None:
        parser.error("--result needs --compare")
    return options


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("at least one is needed")
    return count


def _share(text: str) -> float:
    share = float(text)
    if not 0.0 <= share <= 10.0:
        raise argparse.ArgumentTypeError("a share, such as 0.15")
    return share


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0.25 <= minutes <= 1440:
        raise argparse.ArgumentTypeError("from a quarter of a minute to a day")
    return minutes


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
