"""The clock of the running loop: that of the loop, whoever made it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import anyio

from headgate.wakeup import loop_clock

if TYPE_CHECKING:
    import pytest


class _Later(asyncio.SelectorEventLoop):
    def time(self) -> float:
        return super().time() + 1e6


def _clock(**options: Any) -> tuple[float, float]:
    async def main() -> tuple[float, float]:
        return loop_clock()(), anyio.current_time()

    return anyio.run(main, **options)


def test_it_is_the_clock_of_asyncio_and_of_trio() -> None:
    for backend in ("asyncio", "trio"):
        asked, told = _clock(backend=backend)
        assert asked <= told < asked + 1e3


def test_a_loop_with_a_clock_of_its_own_is_asked() -> None:
    asked, told = _clock(backend_options={"loop_factory": _Later})
    assert time.monotonic() + 1e5 < asked <= told


def test_a_clock_that_somebody_put_into_the_loop_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        real = loop.time
        loop.time = lambda: real() + 1e6  # type: ignore[method-assign]
        return loop_clock()(), time.monotonic()

    asked, told = anyio.run(main)
    assert asked > told + 1e5

    real = asyncio.BaseEventLoop.time

    def later(loop: asyncio.BaseEventLoop) -> float:
        return real(loop) + 1e6

    monkeypatch.setattr(asyncio.BaseEventLoop, "time", later)
    asked, told = _clock()
    assert time.monotonic() + 1e5 < asked <= told
