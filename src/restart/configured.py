"""From a configuration to the sources that it names."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from .http import HttpSource, http_client
from .mcp import McpSource
from .rules import Rules
from .sources import RulesSource

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .config import RestartConfig
    from .http import StreamingClient
    from .ports import RestartSource

__all__ = ["configured_sources"]


@asynccontextmanager
async def configured_sources(
    config: RestartConfig, *, client: StreamingClient | None = None
) -> AsyncGenerator[tuple[RestartSource, ...]]:
    """The sources that ``config`` names, for the length of the block; services are asked through ``client``.

    Without one, a client of the extra ``http`` is made. Raises ConfigError if an extra is not installed.
    """
    own: tuple[RestartSource, ...] = (RulesSource(Rules(poison_cycles=config.poison_cycles)),) if config.rules else ()
    if config.enable_mcp:
        own = (*own, McpSource(config.mcp_url, config.mcp_tool))
    urls = [*([config.service_url] if config.service_url else []), *config.http_urls]
    if not urls:
        yield own
    elif client is not None:
        yield (*own, *(HttpSource(url, client) for url in urls))
    else:
        async with http_client() as made:
            yield (*own, *(HttpSource(url, made) for url in urls))
