"""headgate's plugin for pytest: providers as fixtures, and tests in virtual time.

It is no part of the package ``headgate`` for one reason only: pytest imports its plugins at every start, and importing
anything of a package imports the package. So a test run that uses none of this does not import headgate.

``headgate_spec``
    What the provider of a test is like, a :class:`headgate.testing.ProviderSpec`. Override it, in a module or for one
    test with ``@pytest.mark.parametrize("headgate_spec", [...])``. Unless you do: two models, ``small`` and ``large``,
    without limits.
``headgate_provider``
    Such a provider in process, on anyio's time: a :class:`headgate.testing.VirtualProvider`.
``headgate_server``
    Such a provider over HTTP on the loopback: a :class:`headgate.testing.ProviderProcess`. One process serves all tests
    of a session, and each of them finds it as if it had just been started.
``@pytest.mark.virtual_time``
    Runs an async test by :func:`headgate.testing.run_virtual`: its clock starts at 0 and jumps from timer to timer. Its
    fixtures must be plain functions. With anyio's plugin it runs on the backend that ``anyio_backend`` names, else on
    asyncio.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Literal

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterator

    from headgate.testing import ProviderProcess, ProviderSpec, VirtualProvider

__all__ = ["headgate_process", "headgate_provider", "headgate_server", "headgate_spec"]

MARK = "virtual_time"


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line("markers", f"{MARK}: run this async test on a clock that jumps from timer to timer.")


@pytest.fixture
def headgate_spec() -> ProviderSpec:
    """What the provider of the test is like: models `small` and `large`, without limits. Override it."""
    from headgate.testing import ModelSpec, ProviderSpec

    return ProviderSpec(models={"small": ModelSpec(), "large": ModelSpec()})


@pytest.fixture
def headgate_provider(headgate_spec: ProviderSpec) -> VirtualProvider:
    """A provider in process, as `headgate_spec` describes it, on anyio's time."""
    from headgate.testing import VirtualProvider

    return VirtualProvider(headgate_spec)


@pytest.fixture(scope="session")
def headgate_process() -> Iterator[ProviderProcess]:
    """The process behind `headgate_server`, of whatever the last test asked for."""
    from headgate.testing import ProviderProcess, ProviderSpec

    with ProviderProcess(ProviderSpec(models={})) as process:
        yield process


@pytest.fixture
def headgate_server(headgate_process: ProviderProcess, headgate_spec: ProviderSpec) -> ProviderProcess:
    """A provider over HTTP on the loopback, as `headgate_spec` describes it, with empty books."""
    headgate_process.replace(headgate_spec)
    return headgate_process


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Put a plain function in the place of an async test that is to run in virtual time, before other plugins look."""
    test: Any = pyfuncitem.obj
    if pyfuncitem.get_closest_marker(MARK) is None:
        return (yield)
    if not inspect.iscoroutinefunction(test):
        pytest.fail(f"{pyfuncitem.name}: @pytest.mark.{MARK} is for async tests", pytrace=False)
    pyfuncitem.obj = _in_virtual_time(test, _backend(pyfuncitem.funcargs.get("anyio_backend", "asyncio")))
    try:
        return (yield)
    finally:
        pyfuncitem.obj = test


def _in_virtual_time(
    test: Callable[..., Coroutine[Any, Any, object]], backend: Literal["asyncio", "trio"]
) -> Callable[..., None]:
    def run(**arguments: object) -> None:
        from headgate.testing import run_virtual

        @functools.wraps(test)  # a deadlock is told by the test's name
        async def body() -> None:
            await test(**arguments)

        run_virtual(body, backend=backend)

    return run


def _backend(named: object) -> Literal["asyncio", "trio"]:
    """The backend by anyio's fixture, which names it alone or with options."""
    return "trio" if named == "trio" or (isinstance(named, tuple) and "trio" in named) else "asyncio"
