"""What every store must do, as tests: for the stores of this package, and for one of your own.

Subclass :class:`StoreSuite` in a test module and say how the store is opened; pytest does the rest::

    from headgate.testing.store import MAX_PAYLOAD, StoreSuite

    class TestMyStore(StoreSuite):
        def open_store(self, place):  # place: an empty directory, or what your new_place() gives
            return MyStore(place / "answers", max_payload=MAX_PAYLOAD)

:class:`RegisterSuite` is the same for the registers in which restarts are decided, where a store has them.

The suite holds plain tests, one promise each, and a state machine that plays any sequence of calls on the store and on
a naive one made of dicts: with several stores on one place, several handles of a run, commits at the same time, crashes
(a store is dropped without closing it) and sweeps. How much is played is up to hypothesis' settings profile.

Needs the extra ``testing``: pytest and hypothesis. No plugin for async tests is needed.
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    *(f"{__name__}.{part}" for part in ("commits", "machine", "naive", "readings", "registers", "sweeps"))
)

from .machine import StoreMachine  # noqa: E402 - its assertions are to be rewritten
from .naive import NaiveRun, NaiveStore  # noqa: E402
from .records import MAX_PAYLOAD, batches  # noqa: E402
from .registers import RegisterSuite  # noqa: E402
from .stage import Stage, StoreMaker  # noqa: E402
from .suite import StoreSuite  # noqa: E402

__all__ = [
    "MAX_PAYLOAD",
    "NaiveRun",
    "NaiveStore",
    "RegisterSuite",
    "Stage",
    "StoreMachine",
    "StoreMaker",
    "StoreSuite",
    "batches",
]
