"""Each finished row of a run is told, whatever is killed; a resume tells what was missed, and nothing else again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headgate
from headgate.outbox import Answer, Item, MemoryDeliveries, Outbox, Reconciled, Reply, key_of
from headgate.storage import MemoryStore
from headgate.testing import run_virtual
from tests.integration.warm_children import WarmChild

if TYPE_CHECKING:
    from collections.abc import Sequence

CHILD = Path(__file__).with_name("told_child.py")
RECEIVER = Path(__file__).with_name("receiver_child.py")
THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
ROWS = 150


def start(exits: ExitStack, *command: str | Path) -> WarmChild:
    words = [sys.executable, *map(str, command)]
    child = WarmChild(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    exits.enter_context(child)
    exits.callback(child.kill)
    return child


def test_t51_a_run_and_its_outbox_are_killed_and_every_row_is_told(tmp_path: Path) -> None:
    """T51: a row that was committed when the process died, and not told yet, is told by the next one."""
    rng, taken = Random(3), tmp_path / "taken"
    with ExitStack() as exits:
        receiver = start(exits, RECEIVER, "boot 1", "0", taken)
        assert receiver.stdout is not None
        command = (CHILD, tmp_path, f"http://127.0.0.1:{json.loads(receiver.stdout.readline())}/done", str(ROWS))
        added: list[str] = []
        kills = 12 if THOROUGH else 2
        for _ in range(kills):
            child = start(exits, *command)
            assert child.stdout is not None
            assert child.stdout.readline() == "up\n"
            added += [line for line in (child.stdout.readline() for _ in range(rng.randrange(ROWS // kills))) if line]
            child.kill()
            added += [line for line in child.stdout if line.endswith("\n")]
        last, _ = start(exits, *command).communicate(timeout=100)
        added += last.splitlines(keepends=True)[1:]
    assert max(Counter(added).values()) == 1, "a key was taken twice"
    told = Counter(json.loads(line)[2] for line in taken.read_text().splitlines())
    assert {json.loads(body)["id"] for body in told} == {str(row) for row in range(ROWS)}
    assert len(told) == ROWS
    assert told.total() - ROWS <= kills * 8 * 5


class Gateway:
    """Takes all, keeps all."""

    def __init__(self) -> None:
        self.got: list[str] = []

    async def deliver(self, item: Item, body: bytes, attempt: int) -> Reply:
        await anyio.sleep(0.3)
        self.got.append(body.decode())
        return Reply(Answer.ACK)

    async def reconcile(self, destination: str, keys: Sequence[str]) -> Reconciled:
        return Reconciled(keys)


class Lives:
    """What outlives a process: a store, an outbox's items, and the gateway."""

    def __init__(self) -> None:
        self.store, self.deliveries, self.gateway = MemoryStore(), MemoryDeliveries(), Gateway()
        self.healthy = False
        self.pipeline = headgate.Pipeline("tickets")

        @self.pipeline.column
        async def square(row: int) -> int:
            await anyio.sleep(0.1 + row % 3)
            if row % 4 == 1 and not self.healthy:
                raise ValueError("a bug in one of four")
            return row * row

    async def live(self, rows: int, *, for_s: float = 1e9, retry_failed: bool = False) -> None:
        """One life, which may be killed."""
        with anyio.move_on_after(for_s):
            async with Outbox(self.deliveries, self.gateway) as outbox, headgate.Engine(store=self.store) as engine:
                run = await engine.start(self.pipeline, rows, retry_failed=retry_failed)
                async for row in run.rows():
                    body = json.dumps({"id": row.id, "status": row.status}).encode()
                    await outbox.add(key_of(run.name, row.id, body), "north", body)
                await run.wait()
                await outbox.drained()


@settings(max_examples=max(20, settings().max_examples // 3))
@given(kills=st.lists(st.floats(0.0, 6.0), max_size=4))
def test_every_outcome_is_told_and_a_later_one_too(kills: list[float]) -> None:
    """Killed at any moment; then extended; then tried again with the fault mended."""
    rows = 12

    async def main() -> Lives:
        lives = Lives()
        for for_s in kills:
            await lives.live(rows, for_s=for_s)
        await lives.live(rows + 5)
        lives.healthy = True
        await lives.live(rows + 5, retry_failed=True)
        return lives

    told = [json.loads(body) for body in run_virtual(main).gateway.got]
    ids = {str(row) for row in range(rows + 5)}
    failed = {str(row) for row in range(rows + 5) if row % 4 == 1}
    assert {one["id"] for one in told if one["status"] == "done"} == ids
    assert {one["id"] for one in told if one["status"] == "failed"} == failed
    if not kills:
        assert len(told) == len(ids) + len(failed), "and each once"


def test_what_was_told_is_not_told_again_by_a_resumed_run() -> None:
    """Nor is anything sent that the gateway has acknowledged, on record."""

    async def main() -> None:
        lives = Lives()
        await lives.live(8)
        before = list(lives.gateway.got)
        assert len(before) == 8
        for _ in range(3):
            await lives.live(8)
        assert lives.gateway.got == before

    run_virtual(main)


def test_a_key_tells_outcomes_apart() -> None:
    keys = {key_of("run", "1", body) for body in (b"a", b"b")} | {key_of("run", "2", b"a"), key_of("run", "1", b"a")}
    assert len(keys) == 3
    assert all(key.startswith("run/") for key in keys)
    with pytest.raises(TypeError):
        key_of("run", "1", "text")  # type: ignore[arg-type]
