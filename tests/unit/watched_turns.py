"""How much changes in one turn of a loop, for tests that count instead of timing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

import anyio

import headgate
from headgate.testing.clock import VirtualLoop, run_virtual

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import pytest

__all__ = ["Turns"]

T = TypeVar("T")


class Turns:
    """Looks at a run before and after every turn of the loop: ``most`` is how much it changed in one turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.most = 0
        self._look: Callable[[], int] | None = None
        turn = asyncio.SelectorEventLoop._run_once  # type: ignore[attr-defined]

        def watched(loop: VirtualLoop) -> None:
            look = self._look
            before = look() if look is not None else 0
            turn(loop)
            if look is not None:
                self.most = max(self.most, abs(look() - before))

        monkeypatch.setattr(VirtualLoop, "_run_once", watched, raising=False)

    def watch(self, main: Callable[[], Awaitable[T]], look: Callable[[], int]) -> T:
        """Run ``main`` in virtual time, and look from its first turn on."""
        self._look = look
        return run_virtual(main)

    def run(
        self,
        pipeline: headgate.Pipeline,
        rows: int,
        look: Callable[[headgate.Run], int],
        *,
        concurrency: int = 64,
        then: Callable[[headgate.Run], None] | None = None,
        **options: float,
    ) -> headgate.RunReport:
        """Run it to its end. ``then`` is called after half a virtual second."""

        async def main() -> headgate.RunReport:
            async with headgate.Engine(limits={"*": headgate.Limits(concurrency=concurrency)}, seed=1) as engine:
                run = await engine.start(pipeline, rows, **options)  # type: ignore[arg-type]
                self._look = lambda: look(run)
                if then is not None:
                    await anyio.sleep(0.5)
                    then(run)
                return await run.wait()

        return run_virtual(main)
