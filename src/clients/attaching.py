"""``headgate.attach``: the attempts of a client that somebody else wrote, counted and admitted one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from ..errors import ConfigError
from .aiohttp_sessions import attach_session, is_session
from .httpx_clients import attach_httpx, is_httpx
from .naming import naming

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["attach"]

C = TypeVar("C")

SDKS: Final = frozenset({"anthropic", "groq", "mistralai", "openai", "together"})
"""SDKs that are made for one provider. Others may speak its dialect, so an address that is known says more."""


def attach(client: C, *, provider: str | None = None, models: Mapping[str, str] | None = None) -> C:
    """Make every attempt of ``client`` one lease: admitted, and credited to the cell that makes it. Returns ``client``.

    ``client`` is a client of the openai or anthropic SDK, or of another one that is built on httpx in the same way; an
    ``httpx.AsyncClient``, ``httpx.Client`` or a transport, of httpx or httpx2; or an ``aiohttp.ClientSession``. It is
    changed in place. Every attempt waits in admission before it is sent, retries that the SDK makes by itself included;
    its answer's status, rate-limit headers and token usage are read as they pass by; the lease is given back when the
    answer's body is over, also a streamed one, or when nobody reads it any more. The first attempt of a column with
    ``model=`` uses the lease that the engine holds for it. Requests that ask no model pass, as does everything outside
    of a run and an engine. A blocking client belongs into a column that is a plain function. Time in the queue counts
    for the total time-out of aiohttp, and for no other.

    An attempt is for the column's own model if that is what it asks for, else for the model in its body, of the
    ``provider`` named here or known by its address. ``models`` maps the names of models in requests to resources, where
    they differ: ``{"meta-llama/Llama-3-8B": "vllm/llama"}``.

    Attaching again replaces ``provider`` and ``models``. Raises ConfigError for what is no such client. Attempts raise
    AdmissionTimeout and AdmissionDenied, and HeadgateError where nobody said whose model it is.
    """
    root = type(client).__module__.partition(".")[0]
    said = naming(provider, models, root if root in SDKS else None)
    if is_session(client):
        attach_session(client, said)
        return client
    inner = client if is_httpx(client) else getattr(client, "_client", None)
    if not is_httpx(inner):
        raise ConfigError(
            f"headgate.attach() knows clients that are built on httpx, httpx2 or aiohttp, and no "
            f"{type(client).__module__}.{type(client).__qualname__}: attach the HTTP client that it uses, or make "
            "attempts in 'async with headgate.request(...)'"
        )
    attach_httpx(inner, said)
    return client
