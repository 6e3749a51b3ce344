"""Stores of one kind beside the naive one: the same calls to both, and after every step they must agree.

Several stores look at the same place, as several processes would; runs are opened again and again, so that most handles
are old ones. Commits come alone, several at a time, twice, while somebody sweeps, and at the moment of a crash: then
each of them may be there or not, but as a whole, and the next step must find a state that some order of them explains.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import permutations
from typing import TYPE_CHECKING, Any, ClassVar, Final

import anyio
import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ...errors import FencedOut, FingerprintMismatch, ResultExpired, StoreError, UnknownRun
from ...storage.ports import RUNNING
from .naive import NaiveStore
from .records import batches, rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ...storage.ports import Batch, RunHandle, RunStore
    from .suite import StoreSuite

__all__ = ["StoreMachine"]

_RUNS: Final = ("tickets", "t\u00e4glich/2")
_IDS: Final = st.lists(st.integers(0, 4).map("id{}".format))
_LONG_S: Final = 1e9
_WHOLE_EVERY: Final = 3  # prime to the number of stores, so that each has its turn

_which_store = st.integers(0, 1)
# The newest opening more often than the others.
_which_opening = st.sampled_from([0] * 12 + [1, 2, 3])
# What was learned cannot be read before the next opening, so the order of those that tell it must be known.
_some_batches = st.lists(batches(), min_size=1, max_size=3).map(
    lambda given: [given[0], *(replace(batch, learned=None) for batch in given[1:])]
)
_some_columns = st.frozensets(st.sampled_from("abcd"), max_size=3)
_statuses = st.sampled_from([{"completed"}, {"completed", "held"}])


@dataclass
class _Opening:
    """A handle, and what is known about it."""

    handle: RunHandle
    store: int
    run: str
    epoch: int
    open: bool = True  # as far as its owner knows


class StoreMachine(RuleBasedStateMachine):
    """Drives the stores of ``suite``, which a subclass has to name."""

    suite: ClassVar[StoreSuite]

    def __init__(self) -> None:
        super().__init__()
        self.exits = ExitStack()
        self.portal = self.exits.enter_context(start_blocking_portal(self.suite.backend))
        self.place: Any = self.exits.enter_context(self.suite.new_place())
        self.model = NaiveStore()
        self.openings: list[_Opening] = []
        self.abandoned: list[RunStore] = []
        self.turn = 0
        self.stores = [self._make_store() for _ in range(self.suite.openers)]

    def teardown(self) -> None:
        """Compare everything, and leave nothing behind, whatever comes."""
        with self.exits:
            try:
                self._compare_all()
            finally:
                for store in (*self.stores, *self.abandoned):
                    self.portal.call(store.aclose)

    @initialize()
    def first_runs(self) -> None:
        """A run begins with most of its rows: without them little would ever get stored."""
        for run in _RUNS:
            self.open_run(0, run, {"a": "1", "b": "1"})
            self.commit([rows(3, 1, 2, 0)], 0)
            self.open_run(1, run, {"c": "1"})

    @rule(
        store=_which_store,
        run=st.sampled_from(_RUNS),
        wanted=st.dictionaries(st.sampled_from("abcd"), st.sampled_from("1111112"), max_size=2),
        renewed=_some_columns,
        kept=_some_columns,
    )
    def open_run(
        self,
        store: int,
        run: str,
        wanted: dict[str, str],
        renewed: frozenset[str] = frozenset(),
        kept: frozenset[str] = frozenset(),
    ) -> None:
        """Each opening has a higher epoch, and is refused if a column has changed about which nothing is said (D7)."""
        store %= len(self.stores)
        open_run = partial(self.stores[store].open_run, run, wanted, renewed=renewed, kept=kept - renewed)
        if self.model.changed(run, wanted) - renewed - kept:
            with pytest.raises(FingerprintMismatch):
                self.portal.call(open_run)
            return
        handle = self.portal.call(open_run)
        self._opened(handle, store, run, wanted, renewed)

    @rule(store=_which_store, run=st.sampled_from(_RUNS), column=st.sampled_from("ab"))
    def open_run_changed(self, store: int, run: str, column: str) -> None:
        """Whoever comes with another column, and says nothing about it, is refused and disturbs nobody (D7)."""
        self.open_run(store, run, {column: "3"})

    @rule(given=_some_batches, which=_which_opening)
    def commit(self, given: list[Batch], which: int) -> None:
        """Commit batches at the same time: each has its own fate."""
        self._commit(self._opening(which), given)

    @rule(batch=batches(), which=_which_opening)
    def commit_twice(self, batch: Batch, which: int) -> None:
        """A batch that is there changes nothing when it comes again (D3)."""
        self.commit([batch], which)
        before = self.model.copy()
        self.commit([batch], which)
        assert before.runs == self.model.runs

    @rule(which=_which_opening, status=st.sampled_from(["completed", "held"]))
    def finish(self, which: int, status: str) -> None:
        """A run ends by the word of its newest handle only (D4)."""
        opening = self._opening(which)
        model = self.model.runs[opening.run]
        if not opening.open or opening.epoch != model.epoch or model.swept:
            with pytest.raises(FencedOut if opening.open else StoreError):
                self.portal.call(opening.handle.finish, status)
            return
        self.portal.call(opening.handle.finish, status)
        model.status = status

    @rule(which=_which_opening, first=st.integers(0, 4), last=st.integers(0, 6), ids=_IDS)
    def look(self, which: int, first: int, last: int, ids: list[str]) -> None:
        """Any handle that is open reads what is committed now, by whomsoever."""
        opening = self._opening(which)
        model = self.model.runs[opening.run]
        if not opening.open or model.swept:
            for ask in (lambda: opening.handle.load(first, last), lambda: opening.handle.find(ids)):
                with pytest.raises(ResultExpired if opening.open else StoreError):
                    self.portal.call(ask)
            return
        known = {record.row_id: row for row, record in model.rows.items()}
        assert self.portal.call(opening.handle.load, first, last) == model.stored(first, last)
        assert self.portal.call(opening.handle.find, ids) == {one: known[one] for one in ids if one in known}

    @rule(
        store=_which_store,
        statuses=_statuses,
        keep_s=st.sampled_from([0.0, 0.0, _LONG_S]),
        spare=st.sampled_from([(), (), _RUNS]),
        first=st.sampled_from([None, "completed", "held"]),
    )
    def sweep(
        self, store: int, statuses: set[str], keep_s: float, spare: tuple[str, ...], first: str | None = None
    ) -> None:
        """Exactly the runs go that ended so, and long enough ago, and that nobody spares. The newest may end first."""
        if first is not None:
            self.finish(0, first)
        swept = self.portal.call(_sweep, self.stores[store % len(self.stores)], keep_s, statuses, spare)
        assert set(swept) == (set() if keep_s else self.model.sweep(statuses, spare))

    @rule(given=_some_batches, store=_which_store)
    def commit_while_somebody_sweeps(self, given: list[Batch], store: int) -> None:
        """A sweep never touches a run that goes on."""
        opening = self.openings[-1]
        statuses = {"completed"} if self.model.runs[opening.run].status == RUNNING else set[str]()
        sweeper = self.stores[store % len(self.stores)]
        swept = self.portal.start_task_soon(_sweep, sweeper, 0.0, statuses)
        self._commit(opening, given)
        assert set(swept.result()) == self.model.sweep(statuses)

    @rule(which=st.integers(1, 4))
    def close_handle(self, which: int) -> None:
        """Who gave a handle up has none."""
        opening = self._opening(which)
        self.portal.call(opening.handle.aclose)
        opening.open = False

    @precondition(lambda self: self.suite.durable)
    @rule(store=_which_store)
    def reopen_store(self, store: int) -> None:
        """What was acknowledged is there after closing, also for those who look at the same place (D1)."""
        store %= len(self.stores)
        self.portal.call(self.stores[store].aclose)
        self.stores[store] = self._make_store()
        for opening in self.openings:
            opening.open &= opening.store != store
        self.open_run(store, self.openings[-1].run, {})

    @precondition(lambda self: self.suite.durable)
    @rule(given=_some_batches)
    def crash(self, given: list[Batch]) -> None:
        """The process of the newest handle dies while it commits (D2): nobody closes anything, nobody is answered."""
        opening = self.openings[-1]
        run, store = opening.run, self.stores[opening.store]
        given = given if opening.open else []
        commits = [self.portal.start_task_soon(_commit, opening.handle, batch) for batch in given]
        self.abandoned.append(store)
        self.suite.abandon(store)
        for commit in commits:
            commit.cancel()
        self.stores[opening.store] = self._make_store()
        self.openings = [each for each in self.openings if each.store != opening.store]  # nobody has them any more
        handle = self.portal.call(self.stores[opening.store].open_run, run, dict[str, str]())
        reader = self.stores[-1]
        for model in self._possible(opening, given):
            model.open(run, {}, handle.info.epoch)
            if handle.learned == model.latest_learned(run) and self._sees(model, run):
                self.model = model
                break
        else:
            pytest.fail(f"a crash during {given} left what none of them explains: {list(reader.read_rows(run))}")
        self.openings.append(_Opening(handle, opening.store, run, handle.info.epoch))

    @invariant()
    def stores_agree_with_the_model(self) -> None:
        """Look through one of the stores, each in its turn, at the run that was touched last: at its rows, status and
        tokens each time, at everything every third time and at the end.
        """
        self.turn += 1
        if self.openings:
            store, run = self.stores[self.turn % len(self.stores)], self.openings[-1].run
            self._compare(store, run, whole=self.turn % _WHOLE_EVERY == 0)

    def _make_store(self) -> RunStore:
        return self.suite.open_store(self.place)

    def _opening(self, which: int) -> _Opening:
        return self.openings[-1 - which % len(self.openings)]

    def _opened(self, handle: RunHandle, store: int, run: str, wanted: dict[str, str], renewed: frozenset[str]) -> None:
        self.model.open(run, wanted, handle.info.epoch, renewed)
        assert handle.info.fingerprints == self.model.runs[run].fingerprints
        assert handle.learned == self.model.latest_learned(run)
        self.openings.append(_Opening(handle, store, run, handle.info.epoch))

    def _commit(self, opening: _Opening, given: Sequence[Batch]) -> None:
        """Commit all of them at the same time, and find the order that explains what came of it."""
        outcomes = self.portal.call(_commit_all, opening.handle, given)
        if not opening.open:
            assert all(isinstance(outcome, StoreError) for outcome in outcomes)
            return
        for order in permutations(range(len(given))):
            model = self.model.copy()
            as_said = [_agree(outcomes[i], model.commit(opening.run, given[i], opening.epoch)) for i in order]
            if all(as_said) and (len(given) == 1 or self._sees(model, opening.run)):
                self.model = model
                return
        pytest.fail(f"no order of {given} explains the outcomes {outcomes} and what is there")

    def _sees(self, model: NaiveStore, run: str) -> bool:
        there, store = model.runs[run], self.stores[-1]
        return there.swept or (list(store.read_rows(run)) == there.stored() and store.read_spent(run) == there.usage())

    def _possible(self, opening: _Opening, given: Sequence[Batch]) -> Iterator[NaiveStore]:
        """Every state that some of the batches can have led to, in some order."""
        for many in range(len(given), -1, -1):
            for order in permutations(given, many):
                model = self.model.copy()
                if not any(model.commit(opening.run, batch, opening.epoch) for batch in order):
                    yield model

    def _compare_all(self) -> None:
        for store in self.stores:
            for run in self.model.runs:
                self._compare(store, run)
            with pytest.raises(UnknownRun):
                store.read_rows("never opened")

    def _compare(self, store: RunStore, run: str, *, whole: bool = True) -> None:
        assert store.read_runs() == tuple(sorted(name for name, one in self.model.runs.items() if not one.swept))
        model = self.model.runs[run]
        if model.swept:
            readers = (store.read_rows, store.read_info, store.read_spent, store.count_outcomes, store.read_learned)
            for read in readers:
                with pytest.raises(ResultExpired):
                    read(run)
            return
        assert list(store.read_rows(run, batch=3)) == model.stored()
        info = store.read_info(run)
        assert (info.run, info.epoch, info.status, info.rows) == (run, model.epoch, model.status, len(model.rows))
        assert list(info.fingerprints.items()) == list(model.fingerprints.items())
        assert (info.finished_at is None) == (model.status == RUNNING)
        assert store.read_spent(run) == model.usage()
        if not whole:
            return
        assert store.read_learned(run) == self.model.learned.get(run)
        assert store.count_outcomes(run) >= len(model.cells)
        assert model.aside.keys() <= {(name, mark) for name, marks in info.aside.items() for mark in marks}
        column, fingerprint = next(reversed(model.aside), next(iter(model.fingerprints.items()), ("none", "")))
        for renewed in ({column: fingerprint}, {column: "never had"}):
            assert list(store.read_rows(run, renewed=renewed)) == model.as_if(renewed).stored()


async def _sweep(store: RunStore, keep_s: float, statuses: set[str], spare: tuple[str, ...] = ()) -> tuple[str, ...]:
    return (await store.sweep(keep_s=keep_s, statuses=statuses, spare=spare)).runs


def _agree(outcome: StoreError | None, refusals: set[type[StoreError]]) -> bool:
    return type(outcome) in refusals if refusals else outcome is None


async def _commit(handle: RunHandle, batch: Batch) -> StoreError | None:
    try:
        await handle.commit(batch)
    except StoreError as error:
        return error
    return None


async def _commit_all(handle: RunHandle, given: Sequence[Batch]) -> list[StoreError | None]:
    outcomes: list[StoreError | None] = [None] * len(given)

    async def one(place: int) -> None:
        outcomes[place] = await _commit(handle, given[place])

    async with anyio.create_task_group() as tasks:
        for place in range(len(given)):
            tasks.start_soon(one, place)
    return outcomes
