"""Which resource an outbound attempt is for. Decides from the request's method, address and body; does no I/O.

In this order: a request that asks no model to do anything (no POST, an upload) is nobody's; a name that the user
mapped; the column's own model, if that is what is asked for; else provider and model as the request shows them.
Where the model cannot be read (a form that is uploaded), it is taken to be the column's.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import unquote

from ..errors import ConfigError, HeadgateError
from ..values import ResourceKey

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Asked", "Naming", "model_in", "naming", "resource_of"]

HOSTS: Final[Mapping[str, str]] = {
    "api.openai.com": "openai",
    "api.anthropic.com": "anthropic",
    "api.cerebras.ai": "cerebras",
    "api.cohere.com": "cohere",
    "api.deepseek.com": "deepseek",
    "api.fireworks.ai": "fireworks",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral",
    "api.perplexity.ai": "perplexity",
    "api.together.xyz": "together",
    "api.x.ai": "xai",
    "generativelanguage.googleapis.com": "google",
    "openrouter.ai": "openrouter",
}
"""Whose API a host is. Hosts below these count too (``eu.api.openai.com``)."""

DOMAINS_BY_PATH: Final = (
    ("/embeddings", "embedding"),
    ("/images/", "image"),
    ("/audio/speech", "speech"),
    ("/audio/", "audio"),
    ("/moderations", "moderation"),
    ("/rerank", "rerank"),
    ("/chat/completions", "chat"),
    ("/completions", "completion"),
    ("/messages", "chat"),
    ("/responses", "chat"),
)
"""The kind of call by a piece of the path, the first that fits."""

NO_MODEL: Final = ("/batches", "/count_tokens", "/files", "/uploads", "/vector_stores")
"""Pieces of paths that ask no model anything: such requests pass."""

MODEL_IN_PATH: Final = re.compile(r"/(?:deployments|models|model)/([^/:]+)[/:]")
"""Azure's deployments, and APIs that name the model in the path."""

TOKEN: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]]', re.DOTALL)
"""All of JSON that matters to find a field of the outermost object."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One outbound request, as far as it says what it asks for. ``model`` is what its body names."""

    method: str
    host: str
    path: str
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Naming:
    """What the user said when attaching: the ``provider``, and resources by the model names that requests carry.

    ``guess`` is the provider that the client is made for; others may speak its dialect.
    """

    provider: str | None = None
    models: Mapping[str, ResourceKey] = field(default_factory=dict[str, ResourceKey])
    guess: str | None = None


def naming(provider: str | None, models: Mapping[str, str] | None, guess: str | None) -> Naming:
    """Check what the user said. Raises ConfigError."""
    if provider is not None and (not provider.strip() or "/" in provider):
        raise ConfigError(f"provider={provider!r}: write the part of a model's name before the slash, e.g. 'openai'")
    try:
        known = {name: ResourceKey.parse(resource) for name, resource in (models or {}).items()}
    except ValueError as error:
        raise ConfigError(f"models=: {error}") from error
    return Naming(provider, known, guess)


def resource_of(asked: Asked, said: Naming, own: ResourceKey | None) -> ResourceKey | None:
    """The resource that ``asked`` is for; None if it asks no model. ``own`` is the asking column's.

    Raises HeadgateError for a model whose provider nobody named: an attempt that is not counted would break limits.
    """
    if asked.method.upper() != "POST" or any(piece in asked.path for piece in NO_MODEL):
        return None
    model = asked.model or _model_in_path(asked.path)
    if model is not None and model in said.models:
        return said.models[model]
    provider = said.provider or _provider_of(asked.host)
    domain = _domain_of(asked.path)
    if own is not None and provider in (None, own.provider) and model in (None, own.model):
        if model is None or domain in (None, own.domain):
            return own
        return ResourceKey(own.provider, own.model, domain)
    if model is None:
        return None
    provider = provider or said.guess or (None if own is None else own.provider)
    if provider is None:
        raise HeadgateError(
            f"a request for the model {model!r} went to {asked.host}, and nobody said whose that is: "
            "headgate.attach(client, provider='...'), or models={" + repr(model) + ": 'provider/model'}"
        )
    return ResourceKey(provider, model, domain or "chat")


def model_in(body: bytes) -> str | None:
    """The field ``model`` of a JSON object, without reading more of it than has to be read."""
    if body[:64].lstrip()[:1] != b"{":
        return None
    depth, before = 0, b""
    for token in TOKEN.finditer(body):
        text = token.group()
        if text in (b"{", b"["):
            depth += 1
        elif text in (b"}", b"]"):
            depth -= 1
        elif depth == 1 and before == b'"model"' and body[: token.start()].rstrip().endswith(b":"):
            return _text(text)
        before = text
    return None


def _text(token: bytes) -> str | None:
    try:
        return cast("str", json.loads(token)) or None
    except ValueError:
        return None


def _model_in_path(path: str) -> str | None:
    found = MODEL_IN_PATH.search(path)
    return None if found is None else unquote(found.group(1))


def _provider_of(host: str) -> str | None:
    name = host.lower().rstrip(".")
    for known, provider in HOSTS.items():
        if name == known or name.endswith("." + known):
            return provider
    return "azure" if name.endswith(".openai.azure.com") else None


def _domain_of(path: str) -> str | None:
    return next((domain for piece, domain in DOMAINS_BY_PATH if piece in path), None)
