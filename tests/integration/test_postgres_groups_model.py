"""Handing out row groups, beside a board that says who holds what in a few lines (D4, D8).

Leases last for ever or are over at once, so that no step depends on time.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from headgate.errors import ClaimLost, FencedOut
from headgate.storage import Batch, Claim, Durability, PostgresStore, Progress
from tests.integration.postgres_child import COLUMNS, RUN, batch
from tests.integration.postgres_server import shared_server

if TYPE_CHECKING:
    from headgate.storage import SharedRun

SIZE = 3
EVER_S = 1e6

engines = st.integers(0, 1)
leases = st.sampled_from([EVER_S, EVER_S, 0.0])


@dataclass
class Group:
    """A row group as the board knows it. ``token`` belongs to the last claim; ``taken`` says that it still runs."""

    rows: int = 0
    complete: int = 0
    token: int = 0
    taken: bool = False

    @property
    def open(self) -> bool:
        return self.rows > self.complete


class Sharing(RuleBasedStateMachine):
    """Two engines on one run."""

    def __init__(self) -> None:
        super().__init__()
        self.exits = ExitStack()
        schema = self.exits.enter_context(shared_server().schema())  # first: without a server the test ends here
        self.loop = self.exits.enter_context(asyncio.Runner())
        dsn = shared_server().dsn
        self.stores = [PostgresStore(dsn, schema=schema, durability=Durability.PROCESS) for _ in range(2)]
        self.runs: list[SharedRun] = []
        self.rows = 0
        self.given = [0, 0]  # how many rows each engine has
        self.board: list[Group] = []
        self.held: list[dict[int, Claim]] = [{}, {}]  # what each engine believes to hold
        self.stored: set[int] = set()

    def teardown(self) -> None:
        with self.exits:
            for store in self.stores:
                self.loop.run(store.aclose())

    @initialize(rows=st.integers(1, 14))
    def join(self, rows: int) -> None:
        self.runs = [self.loop.run(store.join_run(RUN, COLUMNS, group_rows=SIZE)) for store in self.stores]
        self.extend(rows, 0)

    @rule(rows=st.integers(1, 20), engine=engines)
    def extend(self, rows: int, engine: int) -> None:
        self.loop.run(self.runs[engine].extend(rows))
        self.rows = max(rows, self.rows)
        self.given[engine] = max(rows, self.given[engine])
        while len(self.board) * SIZE < self.rows:
            self.board.append(Group())
        for number, group in enumerate(self.board):
            group.rows = min(SIZE, self.rows - number * SIZE)

    @rule(engine=engines, most=st.integers(1, 3), lease_s=leases)
    def claim(self, engine: int, most: int, lease_s: float) -> None:
        free = [number for number, group in self._known(engine) if group.open and not group.taken][:most]
        claims = self.loop.run(self.runs[engine].claim(most, lease_s))
        for number in free:
            group = self.board[number]
            group.token += 1
            group.taken = lease_s > 0
        assert claims == [self._claim(number) for number in free]
        self.held[engine].update((claim.group, claim) for claim in claims)

    @rule(engine=engines, row=st.integers(0, 19))
    def commit(self, engine: int, row: int) -> None:
        held = self.held[engine].get(row // SIZE)
        if held is None or held.token != self.board[held.group].token:
            with pytest.raises(ClaimLost, match=f"row group {row // SIZE}"):
                self.loop.run(self.runs[engine].commit(batch(row)))
        else:
            self.loop.run(self.runs[engine].commit(batch(row)))
            self.stored.add(row)

    @rule(engine=engines, lease_s=leases)
    def renew(self, engine: int, lease_s: float) -> None:
        claims = list(self.held[engine].values())
        lost = [claim for claim in claims if claim.token != self.board[claim.group].token]
        assert self.loop.run(self.runs[engine].renew(claims, lease_s)) == lost
        for claim in claims:
            if claim in lost:
                del self.held[engine][claim.group]
            else:
                self.board[claim.group].taken = lease_s > 0

    @rule(engine=engines, which=st.integers(0, 6))
    def complete(self, engine: int, which: int) -> None:
        claim = self.held[engine].pop(which, None)
        if claim is None:
            return
        group = self.board[which]
        if claim.token != group.token:
            with pytest.raises(ClaimLost):
                self.loop.run(self.runs[engine].complete([claim]))
            return
        self.loop.run(self.runs[engine].complete([claim]))
        group.complete, group.taken = claim.last - claim.first, False

    @rule(engine=engines, which=st.integers(0, 6))
    def give_back(self, engine: int, which: int) -> None:
        claim = self.held[engine].pop(which, None)
        if claim is None:
            return
        self.loop.run(self.runs[engine].give_back([claim]))
        group = self.board[which]
        if claim.token == group.token:
            group.token, group.taken = group.token + 1, False

    @rule()
    def somebody_opens_it_alone(self) -> None:
        """All who share are fenced out, and their claims are over."""
        self.loop.run(self.stores[0].open_run(RUN, {}))
        for run in self.runs:
            with pytest.raises(FencedOut):
                self.loop.run(run.claim(1, EVER_S))
            with pytest.raises(FencedOut):
                self.loop.run(run.commit(Batch()))
        for group in self.board:
            if group.open:
                group.token, group.taken = group.token + 1, False
        self.held = [{}, {}]
        self.runs = [self.loop.run(store.join_run(RUN, COLUMNS, group_rows=99)) for store in self.stores]
        self.given = [0, 0]

    @invariant()
    def the_board_agrees(self) -> None:
        if not self.runs:
            return
        known = self._known(0)
        opened = [group for _, group in known if group.open]
        free = any(not group.taken for group in opened)
        found: Progress = self.loop.run(self.runs[0].progress())
        taken = sum(group.taken for group in opened)
        assert found[:3] == (len(known), len(known) - len(opened), taken)
        assert (found.free_in_s is None) == (not opened)
        assert (found.free_in_s == 0) == free
        assert {stored.record.row for stored in self.stores[1].read_rows(RUN)} == self.stored

    def _known(self, engine: int) -> list[tuple[int, Group]]:
        """The groups that the engine has rows of; all, until it says how many it has."""
        groups = [*enumerate(self.board)]
        return groups[: -(-self.given[engine] // SIZE)] if self.given[engine] else groups

    def _claim(self, number: int) -> Claim:
        group = self.board[number]
        return Claim(number, number * SIZE, number * SIZE + group.rows, group.token)


TestSharing = Sharing.TestCase
TestSharing.settings = settings(max_examples=max(10, settings().max_examples // 6), stateful_step_count=30)
