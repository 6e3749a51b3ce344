"""The plugin for pytest as its users have it: small test files, run by pytest with the plugin that is installed."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import trio

import headgate.testing

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

pytest_plugins = ["pytester"]

IMPORTED = (trio, headgate.testing)  # pytester forgets what is first imported in a session of its own

PROVIDERS = """
    import json
    from urllib.request import Request, urlopen

    import anyio
    import pytest

    import headgate
    from headgate.testing import Latency, ModelSpec, ProviderProcess, ProviderSpec, VirtualProvider, assert_ledger

    SLOW = ProviderSpec(models={"slow": ModelSpec(concurrency=2, latency=Latency(mean_s=60))})

    @pytest.mark.virtual_time
    async def test_a_provider_without_limits_is_there(headgate_provider: VirtualProvider) -> None:
        assert list(headgate_provider.stats().models) == ["small", "large"]

    @pytest.mark.virtual_time
    @pytest.mark.parametrize("headgate_spec", [SLOW])
    async def test_twenty_minutes(headgate_provider: VirtualProvider) -> None:
        async def ask(row: int) -> str:
            return (await headgate_provider.chat("slow", f"Row {row}?")).text

        report = await headgate.amap(ask, 40, model="acme/slow", limits={"acme/slow": {"concurrency": 2}})
        assert report.done == 40
        assert 1200 < anyio.current_time() < 1210
        assert_ledger(report)

    @pytest.mark.virtual_time
    async def test_what_fails_in_virtual_time_is_seen() -> None:
        await anyio.sleep(3600)
        assert anyio.current_time() == 0

    @pytest.mark.virtual_time
    async def test_what_waits_for_ever_is_an_error() -> None:
        await anyio.Event().wait()

    @pytest.mark.virtual_time
    def test_that_is_not_async() -> None: ...

    def ask_over_http(process: ProviderProcess, model: str) -> int:
        body = {"model": model, "messages": [{"role": "user", "content": "Why?"}]}
        headers = {"content-type": "application/json"}
        with urlopen(Request(f"{process.base_url}/chat/completions", json.dumps(body).encode(), headers)) as answer:
            assert json.load(answer)["model"] == model
        return process.stats().models[model].requests

    @pytest.mark.parametrize("time", [1, 2])
    def test_each_finds_the_server_unused(headgate_server: ProviderProcess, time: int) -> None:
        assert ask_over_http(headgate_server, "small") == 1

    class TestOfAnotherProvider:
        @pytest.fixture
        def headgate_spec(self) -> ProviderSpec:
            return ProviderSpec(models={"tiny": ModelSpec()})

        def test_the_server_is_as_this_class_wants_it(self, headgate_server: ProviderProcess) -> None:
            assert ask_over_http(headgate_server, "tiny") == 1
"""

BACKENDS = """
    import anyio
    import pytest
    import backends

    SEEN = []

    @pytest.mark.anyio
    @pytest.mark.virtual_time
    async def test_an_hour(anyio_backend: object) -> None:
        start = anyio.current_time()
        await anyio.sleep(3600)
        assert anyio.current_time() - start == 3600
        SEEN.append(backends.current())

    def test_both_were_seen() -> None:
        assert SEEN == ["asyncio", "trio"]
"""

NOTHING_OF_IT = """
    import sys

    def test_nothing_was_imported(pytestconfig) -> None:
        assert pytestconfig.pluginmanager.has_plugin("headgate")
        assert [name for name in sys.modules if name.partition(".")[0] == "headgate"] == []
"""


def test_the_plugin_is_the_one_that_is_declared() -> None:
    (ours,) = [found.value for found in entry_points(group="pytest11") if found.name == "headgate"]
    assert ours == "_headgate_pytest"


def test_fixtures_and_virtual_time(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(PROVIDERS)
    result = pytester.runpytest_inprocess("--strict-markers")
    result.assert_outcomes(passed=5, failed=3)
    result.stdout.fnmatch_lines(
        [
            "*assert 3600.0 == 0",
            "*DeadlockError: nothing is ready and no timer is set*test_what_waits_for_ever_is_an_error*",
            "*test_that_is_not_async: @pytest.mark.virtual_time is for async tests",
        ]
    )


def test_virtual_time_on_the_backend_of_anyio(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        backends="""
        import sys

        def current() -> str:
            trio = sys.modules.get("trio")
            try:
                return "trio" if trio and trio.lowlevel.current_task() else "asyncio"
            except RuntimeError:
                return "asyncio"
        """
    )
    pytester.makepyfile(BACKENDS)
    pytester.runpytest_inprocess().assert_outcomes(passed=3)


def test_a_session_that_uses_nothing_of_it_does_not_import_headgate(tmp_path: Path) -> None:
    """pytest loads the plugin at every start; the package would cost each of them a second."""
    (tmp_path / "test_nothing.py").write_text(textwrap.dedent(NOTHING_OF_IT), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-p",
        "no:anyio",
        "-p",
        "no:hypothesispytest",
    ]
    ran = subprocess.run([*command, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
