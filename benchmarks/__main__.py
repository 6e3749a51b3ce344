"""``python -m benchmarks --scenario overhead --scenario pressure --json out.json --markdown out.md [--quick]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .measure import Effort
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
    runs = options.runs or effort.pick(1, 3, 5)
    origin = provenance(seed=options.seed, effort=effort.value, argv=argv)
    names: list[str] = options.scenario or list(SCENARIOS)
    measured = tuple(
        run_scenario(SCENARIOS[name], effort=effort, seed=options.seed, runs=runs, tell=say)
        for name in dict.fromkeys(names)
    )
    result = Result(format=FORMAT, provenance=origin, scenarios=measured)
    for path, text in ((options.json, as_json(result)), (options.markdown, as_markdown(result))):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if options.markdown is None:
        say("\n" + as_markdown(result))
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
    parser.add_argument("--runs", type=_runs, help="how often to measure each case (default: 5, with --quick 3)")
    parser.add_argument("--seed", type=int, default=1)
    effort = parser.add_mutually_exclusive_group()
    effort.add_argument("--quick", action="store_true", help="smaller cases, a few minutes in all")
    effort.add_argument(
        "--smoke", action="store_true", help="tiny cases, to see that everything works; no numbers to quote"
    )
    return parser.parse_args(argv)


def _runs(text: str) -> int:
    runs = int(text)
    if runs < 1:
        raise argparse.ArgumentTypeError("at least one run is needed")
    return runs


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
