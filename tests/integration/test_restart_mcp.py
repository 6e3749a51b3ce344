"""Verdicts of MCP servers: the official SDK, a server in another process, and everything a tool may do wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from mcp.server.mcpserver import MCPServer

from headgate.errors import ConfigError
from headgate.restart import (
    Action,
    Answer,
    Cause,
    Cycle,
    Failure,
    InvalidAnswer,
    McpSource,
    RestartConfig,
    RestartCoordinator,
    SourceUnreachable,
    TaskId,
    Verdict,
    configured_sources,
)
from headgate.restart import mcp as restart_mcp
from headgate.storage import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Generator

CYCLE = Cycle("tickets-1", "tickets", 1, Failure(Cause("crash", "summary")))


@pytest.fixture(scope="module")
def url() -> Generator[str]:
    command = [sys.executable, str(Path(__file__).with_name("mcp_child.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/mcp"
        process.stdin.close()


def server() -> MCPServer:
    made = MCPServer("analysis", log_level="CRITICAL")
    says: dict[str, Any] = {
        "stop": {"verdict": "stop", "reason": "full"},
        "pending": {"verdict": "pending"},
        "text": '{"verdict": "restart", "reason": "text"}',
        "chatty": "I think it should stop.",
        "contradicts": {"verdict": "quarantine"},
        "other": {"verdict": "stop", "cycle": "another"},
        "huge": {"verdict": "stop", "reason": "x" * 300_000},
        "nothing": None,
    }
    for name, said in says.items():

        async def tool(cycle: dict[str, Any], said: Any = said) -> Any:
            assert cycle["run"] == "tickets"
            return said

        made.add_tool(tool, name=name)

    async def fails(cycle: dict[str, Any]) -> dict[str, Any]:
        raise ValueError(cycle)

    made.add_tool(fails, name="fails")
    return made


@pytest.mark.parametrize(
    ("tool", "answer"),
    [
        ("stop", Answer(Verdict.STOP, reason="full")),
        ("pending", None),
        ("text", Answer(Verdict.RESTART, reason="text")),
    ],
)
async def test_a_tool_gives_a_verdict(tool: str, answer: Answer | None) -> None:
    assert await McpSource(server(), tool).read(CYCLE) == answer


@pytest.mark.parametrize(
    ("tool", "said"),
    [
        ("chatty", "no verdict"),
        ("contradicts", "0 tasks"),
        ("other", "about cycle 'another'"),
        ("huge", "more than 262144 bytes"),
        ("fails", "failed: "),
        ("missing", "Unknown tool"),
        ("nothing", "no verdict|instead of one answer"),
    ],
)
async def test_what_makes_no_sense_is_invalid(tool: str, said: str) -> None:
    with pytest.raises(InvalidAnswer, match=said):
        await McpSource(server(), tool).read(CYCLE)


async def test_nobody_there_is_unreachable() -> None:
    with pytest.raises(SourceUnreachable, match="ConnectError"):
        await McpSource("http://127.0.0.1:9/mcp").read(CYCLE)


async def test_a_server_in_another_process_is_asked_until_it_knows(url: str, anyio_backend: str) -> None:
    cycle = Cycle(f"on {anyio_backend}", "tickets", 1, Failure(Cause("crash", "summary")))
    source = McpSource(url)
    assert source.name.startswith("mcp 127.0.0.1:")
    await source.trigger(cycle)
    assert await source.read(cycle) is None
    assert await source.read(cycle) == Answer(Verdict.QUARANTINE, (TaskId(3, "summary"),), "saw it")


async def test_a_tool_that_hangs_costs_the_timeout(url: str) -> None:
    """R3: and leaves nothing behind."""
    config = RestartConfig(enable_mcp=True, mcp_url=url, mcp_tool="hangs", rules=False, timeout=0.5, late_window=0.0)
    async with (
        configured_sources(config) as sources,
        RestartCoordinator("tickets", MemoryStore(), sources=sources, config=config) as replica,
    ):
        await replica.enter()
        replica.failed(Failure(Cause("crash")))
        with anyio.fail_after(20):
            decision = await replica.decision()
        assert decision.action is Action.RESTART


def test_without_the_sdk_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(restart_mcp, "import_module", missing)
    with pytest.raises(ConfigError, match=r"headgate\[mcp\]"):
        McpSource("http://127.0.0.1:9/mcp")
