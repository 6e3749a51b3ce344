"""A verdict by the tool of an MCP server, with the official SDK (the extra ``mcp``).

The tool gets the cycle as its argument ``cycle`` and returns an object, the one that analysis services over HTTP answer
with, or ``{"verdict": "pending"}`` while there is none: then it is called again. It may as well take its time. A call
has no key by which a server would know it again, so only the replica that leads makes it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from pydantic import TypeAdapter
from pydantic_core import to_json

from ..errors import ConfigError
from .http import ANSWER_MOST, parse_answer
from .ports import InvalidAnswer, SourceUnreachable
from .values import Cycle

if TYPE_CHECKING:
    from .values import Answer

__all__ = ["McpSource"]

_CYCLES: Final = TypeAdapter(Cycle)
_SAID_MOST: Final = 200


class McpSource:
    """The tool ``tool`` of the MCP server at ``server``: an address, or whatever else ``mcp.Client`` connects to.

    Raises ConfigError if the SDK is not installed.
    """

    elsewhere = False

    def __init__(self, server: object, tool: str = "restart_verdict", *, name: str | None = None) -> None:
        place = urlsplit(server).netloc.rpartition("@")[2] if isinstance(server, str) else type(server).__name__
        self.name = name or f"mcp {place} {tool}"
        self._server = server
        self._tool = tool
        self._sdk = _load_sdk()

    async def trigger(self, cycle: Cycle) -> None:
        """Need nothing: reading it is what calls the tool."""

    async def read(self, cycle: Cycle) -> Answer | None:
        """See :meth:`headgate.restart.ports.RestartSource.read`."""
        return parse_answer(_as_json(await self._call(cycle)), cycle)

    async def _call(self, cycle: Cycle) -> object:
        """What the tool returns, as data or as the text of some."""
        refused, result = None, None
        try:
            async with self._sdk.Client(self._server) as client:
                try:
                    result = await client.call_tool(self._tool, {"cycle": _CYCLES.dump_python(cycle, mode="json")})
                except self._sdk.MCPError as error:
                    refused = error  # raised outside of the client's own task groups
        except Exception as error:
            raise SourceUnreachable(f"{self.name}: {_innermost(error)}") from error
        if refused is not None:
            raise InvalidAnswer(f"{self.name}: {refused}") from refused
        return _content(self.name, result)


def _content(name: str, result: Any) -> object:
    texts = [str(part.text) for part in result.content if part.type == "text"]
    if result.is_error:
        raise InvalidAnswer(f"{name} failed: {' '.join(texts)[:_SAID_MOST]}")
    said: object = result.structured_content
    if isinstance(said, dict):
        fields = cast("dict[str, object]", said)
        said = fields["result"] if fields.keys() == {"result"} else fields  # so the SDK wraps what is no object
    if said is not None:
        return said
    if len(texts) != 1:
        raise InvalidAnswer(f"{name}: {len(texts)} texts instead of one answer")
    return texts[0]


def _as_json(said: object) -> bytes:
    data = said.encode() if isinstance(said, str) else to_json(said)
    if len(data) > ANSWER_MOST:
        raise InvalidAnswer(f"an answer of more than {ANSWER_MOST} bytes")
    return data


def _innermost(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return f"{type(error).__name__}: {error}"


def _load_sdk() -> Any:
    try:
        return import_module("mcp")
    except ModuleNotFoundError as error:
        raise ConfigError("asking an MCP server needs its SDK: pip install 'headgate[mcp]'") from error
