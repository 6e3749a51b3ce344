"""Whose cancellation it is that came out of an await: this task's, or somebody else's."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from headgate.testing.clock import run_virtual
from headgate.wakeup import is_leaked
from tests.unit.asked import Backend, both


async def told() -> bool:
    """Whether what ends this is taken for somebody else's."""
    try:
        await anyio.sleep_forever()
    except BaseException as error:
        return is_leaked(error)
    return False


@both
@pytest.mark.parametrize("shielded", [False, True])
def test_a_scope_around_it_is_its_own(shielded: bool, backend: Backend) -> None:
    async def main() -> None:
        found: list[bool] = []

        async def one() -> None:
            with anyio.CancelScope(shield=True) as inner:
                if shielded:
                    inner.deadline = anyio.current_time() + 1.0
                else:
                    inner.shield = False
                found.append(await told())

        with anyio.move_on_after(1.0):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(one)
        assert found == [False]

    run_virtual(main, backend=backend)


def test_who_cancels_the_task_itself_means_it() -> None:
    """As Ctrl-C does with the main task: no scope knows of it, and none may swallow it."""

    async def main() -> None:
        async def shielded() -> bool:
            with anyio.CancelScope(shield=True):
                return await told()
            return True

        for one in (told, shielded):
            task = asyncio.ensure_future(one())
            asyncio.get_running_loop().call_later(1.0, task.cancel)
            assert await task is False

    run_virtual(main)


def test_what_was_awaited_and_cancelled_by_others_is_not_its_own() -> None:
    async def main() -> None:
        other = asyncio.ensure_future(asyncio.sleep(100.0))
        asyncio.get_running_loop().call_later(1.0, other.cancel)
        with pytest.raises(asyncio.CancelledError) as caught:
            await other
        assert is_leaked(caught.value)
        assert not is_leaked(ValueError())

    run_virtual(main)
