"""Kills an outbox's process and its receiver's, again and again, at random instants; or stops it, lets another one take
over, and lets it go on. Then looks at what the receiver has got.

:func:`play` returns the numbers, and fails on the first promise that does not hold. As a program, which is run from the
root of the repository, ``-m tests.integration.outbox_crash KILLS [SEED]`` prints them as JSON.
``-m tests.integration.outbox_crash tell FILE URL START`` is one outbox: it adds documents from number START on, several
at a time, without end, and acknowledges each by its number on a line, once it is durable. With ``drain`` instead of
START it adds none, and ends once everything was delivered.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import anyio
import httpx2
import structlog

from headgate.outbox import HttpSender, Outbox, OutboxOptions, SqliteDeliveries
from tests.integration.warm_children import ROOT, WarmChild

if TYPE_CHECKING:
    from collections.abc import Sequence

RECEIVER = Path(__file__).with_name("receiver_child.py")
ADDERS = 4
SLOTS = 8
OPTIONS = OutboxOptions(slots=SLOTS, first_pause_s=0.02, longest_pause_s=0.2, timeout_s=5.0, trips_after=3)
AT_ONCE = SLOTS * 5
"""Deliveries whose end may not be on record: one for each slot, and four more for each that wait for the store."""


class Processes:
    """The receiver, and those who tell it."""

    def __init__(self, place: Path, exits: ExitStack) -> None:
        self._exits = exits
        self.file, self.taken = place / "outbox.db", place / "taken"
        self.boots = self.port = 0
        self.next = 0
        self.acknowledged: set[int] = set()
        self.start_receiver()

    def start_receiver(self) -> None:
        self.boots += 1
        command: list[str | Path] = [RECEIVER, f"boot {self.boots}", str(self.port), self.taken]
        # That its client dies in the middle of a request is no news.
        self.receiver = self._start(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self.receiver.stdout is not None
        self.port = json.loads(self.receiver.stdout.readline())

    def start(self, start: str) -> WarmChild:
        url = f"http://127.0.0.1:{self.port}/done"
        child = self._start(["-m", "tests.integration.outbox_crash", "tell", self.file, url, start])
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n", "an outbox does not come up again"
        return child

    def add_some(self, least: int) -> WarmChild:
        """Start one that adds documents, and wait for some acknowledgements."""
        child = self.start(str(self.next))
        self.next += 1_000_000
        for _ in range(least):
            self.acknowledge(child)
        return child

    def kill(self, child: WarmChild) -> None:
        child.kill()
        while self.acknowledge(child):
            pass
        assert child.wait() == -signal.SIGKILL, "it ended by itself"

    def stop(self, child: WarmChild) -> None:
        """Stop it, at a moment when it does not hold the lock of the file: else nobody can take over."""
        while True:
            child.send_signal(signal.SIGSTOP)
            connection = sqlite3.connect(self.file, timeout=0.1, isolation_level=None)
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                child.send_signal(signal.SIGCONT)
                self.acknowledge(child)
            else:
                return
            finally:
                connection.close()

    def acknowledge(self, child: WarmChild) -> bool:
        assert child.stdout is not None
        line = child.stdout.readline()
        if line.endswith("\n"):
            self.acknowledged.add(int(line))
        return bool(line)

    def _start(
        self, command: Sequence[str | Path], stdin: int = subprocess.DEVNULL, stderr: int | None = None
    ) -> WarmChild:
        words = [sys.executable, *map(str, command)]
        child = WarmChild(words, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, cwd=ROOT)
        self._exits.enter_context(child)
        self._exits.callback(child.kill)
        return child


def play(kills: int, rng: Random) -> dict[str, int]:
    """Interrupt ``kills`` lives of an outbox, then let one come to its end."""
    counts = Counter(kills=0, stops=0, receiver_kills=0)
    with tempfile.TemporaryDirectory() as place, ExitStack() as exits:
        processes = Processes(Path(place), exits)
        for turn in range(kills):
            child = processes.add_some(rng.randrange(120))
            if turn % 3 == 1:
                processes.receiver.kill()
                counts["receiver_kills"] += 1
                for _ in range(rng.randrange(40)):
                    processes.acknowledge(child)  # what is added meanwhile waits
                processes.start_receiver()
            if turn % 4 == 2:
                processes.stop(child)
                processes.kill(processes.add_some(rng.randrange(60)))
                child.send_signal(signal.SIGCONT)
                counts["stops"] += 1
                counts["kills"] += 1
                processes.acknowledge(child)  # it goes on
            processes.kill(child)
            counts["kills"] += 1
        last = processes.start("drain")
        assert last.wait(120) == 0, "not everything came to its end"
        check(processes, counts)
    return dict(counts)


def check(processes: Processes, counts: Counter[str]) -> None:
    """D1: what was acknowledged was delivered, as it was added; nothing else was, but for what was being added."""
    deliveries = [json.loads(line) for line in processes.taken.read_text().splitlines()]
    taken = Counter[int]()
    for key, _, text in deliveries:
        number = int(key.removeprefix("run/"))
        assert text.encode() == body(number), "somebody else's body"
        taken[number] += 1
    lost = processes.acknowledged - taken.keys()
    assert not lost, f"acknowledged and never delivered: {sorted(lost)}"
    unknown = taken.keys() - processes.acknowledged
    assert len(unknown) <= ADDERS * counts["kills"], "delivered, and nobody was told that it was added"
    repeated = taken.total() - len(taken)
    interruptions = counts["kills"] + counts["stops"] + counts["receiver_kills"]
    assert repeated <= AT_ONCE * interruptions, f"{repeated} deliveries were repeated"
    counts.update(acknowledged=len(processes.acknowledged), delivered=len(deliveries), repeated=repeated, lost=0)


def body(number: int) -> bytes:
    """Some of them do not fit on a page of the file."""
    return b'{"document": %d, "text": "%s"}' % (number, b"x" * (6_000 if number % 5 == 0 else 10))


async def add(outbox: Outbox, url: str, number: int) -> None:
    while True:
        assert await outbox.add(f"run/{number}", url, body(number), receiver=None if number % 2 else "boot 1")
        os.write(1, f"{number}\n".encode())
        number += ADDERS
        await anyio.sleep(0.002)


async def tell(path: str, url: str, start: str) -> None:
    async with (
        httpx2.AsyncClient(timeout=5) as client,
        Outbox(SqliteDeliveries(path), HttpSender(client), options=OPTIONS) as outbox,
    ):
        os.write(1, b"up\n")
        if start == "drain":
            await outbox.drained()
            return
        async with anyio.create_task_group() as tasks:
            for adder in range(ADDERS):
                tasks.start_soon(add, outbox, url, int(start) + adder)


if __name__ == "__main__":
    if sys.argv[1] == "tell":
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
            logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        )
        anyio.run(tell, sys.argv[2], sys.argv[3], sys.argv[4])
    else:
        print(json.dumps(play(int(sys.argv[1]), Random(int(sys.argv[2]) if len(sys.argv) > 2 else 1))))
