"""Two replicas, twenty documents, and whoever asks may ask either: 20 of 20, every time.

Two processes run ten documents each on one store; then all twenty are fetched, again and again, half the times from the
one and half from the other. An engine that keeps results in the memory of its process gives back half of them at best.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..measure import Better, Case, Effort, Sample, Scenario, Stopwatch, at_least, measured
from ..stores import durable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..measure import Plan
    from ..stores import Kind

__all__ = ["SCENARIO"]

ROOT: Final = Path(__file__).resolve().parents[2]
NAMES: Final = ("one", "two")
DOCUMENTS: Final = 20


def cases(plan: Plan) -> Iterator[Case]:
    """Each store that several processes can share."""
    times = plan.effort.pick(6, 40, 1_000)
    for kind in durable() if plan.effort is Effort.FULL else islice(durable(server=False), 1, None):
        yield Case(f"{kind.name}, {times} times", partial(_fetched, kind, times // len(NAMES)), runs=1)


def _fetched(kind: Kind, rounds: int) -> Iterable[Sample]:
    each = DOCUMENTS // len(NAMES)
    watch = Stopwatch()
    with kind.at_a_new_place() as address, ExitStack() as stack:
        replicas: list[subprocess.Popen[str]] = []
        for name, other in (NAMES, NAMES[::-1]):
            command = [sys.executable, "-m", "benchmarks.replica_child", address, name, other, str(each), str(rounds)]
            pipe = subprocess.PIPE
            child = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
            replicas.append(stack.enter_context(child))
        assert [_line(child) for child in replicas] == ["ready"] * len(replicas)
        with measured(watch):
            for child in replicas:
                assert child.stdin is not None
                child.stdin.write("fetch\n")
                child.stdin.flush()
            right = sum(int(_line(child)) for child in replicas)
    asked = DOCUMENTS * len(replicas) * rounds
    yield Sample("results fetched", "", asked)
    yield Sample("right ones", "", right, at_least(asked))
    yield Sample("fetched per second", "/s", asked / watch.wall_s, better=Better.HIGHER, noisy=True)


def _line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


SCENARIO = Scenario("replicas", "Two processes, 20 documents: is every result to be had from either?", cases)
