"""A program that is killed at any instant and run again ends up with what one undisturbed run gives (D1, D2, D5)."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from headgate.admission.memory_plain import from_plain
from headgate.storage import CellStatus, SqliteStore
from headgate.testing.provider import Latency, ModelSpec, OutputTokens, ProviderProcess, ProviderSpec
from tests.integration.engine_child import CAP, RUN, messages
from tests.integration.warm_children import WarmChild
from tests.integration.warm_servers import WarmProvider

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headgate.testing.provider import ContentCount

PROGRAM = Path(__file__).with_name("engine_child.py")
THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
ROWS = 120
COLUMNS = ("answer", "verdict")


@pytest.fixture
def provider() -> Iterator[ProviderProcess]:
    served = ModelSpec(latency=Latency(mean_s=0.05, sigma=0.3), output_tokens=OutputTokens(mean=5))
    with WarmProvider(ProviderSpec(models={"m": served}, seed=5)) as running:
        yield running


def run_child(
    provider: ProviderProcess, store: Path, *, kill_after_s: float | None = None, at: str = "done"
) -> tuple[bool, list[int]]:
    """Run the program; return whether it was killed, and the rows that it said were done.

    It is killed the moment that it says ``at`` of something, ``kill_after_s`` after its first word.
    """
    command = [sys.executable, str(PROGRAM), "stream", provider.base_url, str(store), str(ROWS)]
    done: list[int] = []
    deadline: float | None = None
    with WarmChild(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        killed = False
        for line in child.stdout:
            what, row = line.split()
            if what == "done":
                done.append(int(row))
            if kill_after_s is None or killed:
                continue
            deadline = deadline or time.monotonic() + kill_after_s
            if what == at and time.monotonic() >= deadline:
                child.kill()
                killed = True
        status = child.wait()
    assert killed or status == 0, f"the child ended with {status}"
    return killed, done


def counts(provider: ProviderProcess, rows: Iterator[int] | list[int] | range) -> dict[tuple[str, int], ContentCount]:
    return {(column, row): provider.count("m", messages(column, row)) for row in rows for column in COLUMNS}


def test_d5_killed_at_random_instants_and_run_again(provider: ProviderProcess, tmp_path: Path) -> None:
    """D5: nothing that was reported as done is lost or asked again; a kill repeats only what was in flight.

    A cell is in flight until its result is committed, so each of the CAP slots may repeat one request and, rarely, one
    answer that had just come.
    """
    seed = random.SystemRandom().randrange(2**32)
    rng = random.Random(seed)
    store = tmp_path / "s.db"
    reported: set[int] = set()
    asked: dict[tuple[str, int], int] = {}
    kills = known = 0
    for life in range(20 if THOROUGH else 4):
        at = ("done", "answered")[life % 2]
        killed, done = run_child(provider, store, kill_after_s=rng.uniform(0.0, 0.5), at=at)
        for cell, count in asked.items():
            assert provider.count("m", messages(*cell)).requests == count, f"{cell} was asked again (seed {seed})"
        fresh = set(done) - reported
        reported |= fresh
        asked.update({cell: count.requests for cell, count in counts(provider, list(fresh)).items()})
        kills += killed
        known = check_what_was_learned(store, known)
        if not killed:
            break
    killed, done = run_child(provider, store)
    assert not killed
    assert sorted(done) == list(range(ROWS)), f"each row once, those of earlier lives too (seed {seed})"
    assert kills >= 2, f"the kills came too late (seed {seed})"
    for cell, count in asked.items():
        assert provider.count("m", messages(*cell)).requests == count, f"{cell} was asked again (seed {seed})"
    repeats = sum(count.requests - 1 for count in counts(provider, range(ROWS)).values())
    assert repeats <= kills * 2 * CAP, f"{repeats} requests were repeated after {kills} kills (seed {seed})"
    check_what_is_there(provider, store)
    assert check_what_was_learned(store, known) == len(COLUMNS)


def check_what_was_learned(store: Path, known: int) -> int:
    """The record that was committed last is whole; a later life knows at least as much. Returns the columns known."""

    async def look() -> bytes | None:
        opened = SqliteStore(store)
        learned = (await opened.open_run(RUN, {})).learned
        await opened.aclose()
        return learned

    record = anyio.run(look)
    if record is None:
        assert known == 0, "what was learned is gone"
        return 0
    tokens = from_plain(json.loads(record)["learned"])["openai/m"].tokens
    assert tokens is not None
    assert len(tokens.flows) >= known
    for name, flow in tokens.flows.items():
        assert name in {f"{RUN}/{column}" for column in COLUMNS}
        assert flow.output is not None
        assert flow.output.mean == 5, "what the provider's answers have"
    return len(tokens.flows)


def check_what_is_there(provider: ProviderProcess, store: Path) -> None:
    """Every row once, in order, with what an undisturbed run gives."""
    stored = list(SqliteStore(store).read_rows(RUN))
    assert [row.record.row for row in stored] == list(range(ROWS))
    for row in stored:
        assert sorted(cell.column for cell in row.cells) == sorted(COLUMNS)
        assert all(cell.status is CellStatus.DONE for cell in row.cells)
        for cell in row.cells:
            assert cell.payload is not None
            assert json.loads(cell.payload).split()[1:] == f"{cell.column} number {row.record.row} now".split()
    before = provider.stats().models["m"].requests
    killed, done = run_child(provider, store)
    assert not killed
    assert sorted(done) == list(range(ROWS))
    assert provider.stats().models["m"].requests == before, "a finished run asked for something"
