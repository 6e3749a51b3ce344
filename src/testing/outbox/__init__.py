"""What every place that keeps deliveries must do, as tests: for those of this package, and for one of your own.

Subclass :class:`DeliveriesSuite` in a test module and say how the place is opened; pytest does the rest::

    from headgate.testing.outbox import DeliveriesSuite

    class TestMyDeliveries(DeliveriesSuite):
        def open_deliveries(self, place):  # place: an empty directory, or what your new_place() gives
            return MyDeliveries(place / "outbox")

Needs the extra ``testing``: pytest and hypothesis. No plugin for async tests is needed.
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in ("machine", "suite")))

from .machine import DeliveriesMachine  # noqa: E402 - its assertions are to be rewritten
from .maker import DeliveriesMaker  # noqa: E402
from .suite import DeliveriesSuite  # noqa: E402

__all__ = ["DeliveriesMachine", "DeliveriesMaker", "DeliveriesSuite"]
