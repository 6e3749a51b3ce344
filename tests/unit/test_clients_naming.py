"""Which resource an attached client's attempt is for, and what a body says about it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.clients.naming import Asked, model_in, naming, resource_of
from headgate.errors import ConfigError, HeadgateError
from headgate.values import ResourceKey

OPENAI = "api.openai.com"
CHAT = "/v1/chat/completions"
OWN = "openai/gpt-x"


def found(
    host: str = "localhost",
    path: str = CHAT,
    model: str | None = "gpt-x",
    *,
    own: str | None = OWN,
    provider: str | None = None,
    models: dict[str, str] | None = None,
    guess: str | None = None,
    method: str = "POST",
) -> str | None:
    asked = Asked(method, host, path, model)
    mine = None if own is None else ResourceKey.parse(own)
    resource = resource_of(asked, naming(provider, models, guess), mine)
    return None if resource is None else str(resource)


def test_the_column_s_own_model_wherever_it_is_served() -> None:
    assert found() == OWN
    assert found(OPENAI) == OWN
    assert found(model=None, path="/generate") == OWN
    assert found(own="vllm/llama", model="llama") == "vllm/llama"
    assert found(own="vllm/llama", model="llama", guess="openai") == "vllm/llama"
    assert found(own="openai/e:embedding", path="/v1/embeddings", model="e") == "openai/e:embedding"


def test_another_model_is_counted_for_itself() -> None:
    assert found(OPENAI, model="gpt-mini") == "openai/gpt-mini"
    assert found(model="gpt-mini") == "openai/gpt-mini"
    assert found("api.anthropic.com", "/v1/messages", "claude") == "anthropic/claude"
    assert found("eu.api.openai.com", model="gpt-mini", own=None) == "openai/gpt-mini"
    assert found(model="claude", own="openai/gpt-x", guess="anthropic") == "anthropic/claude"


def test_the_same_name_at_another_provider_is_another_resource() -> None:
    assert found("openrouter.ai", "/api/v1/chat/completions") == "openrouter/gpt-x"
    assert found(provider="vllm") == "vllm/gpt-x"


def test_another_kind_of_call_of_the_same_model_is_another_resource() -> None:
    assert found(path="/v1/embeddings") == "openai/gpt-x:embedding"
    assert found(path="/v1/images/generations", own=None, guess="openai") == "openai/gpt-x:image"
    assert found(path="/v1/completions", own=None, guess="openai") == "openai/gpt-x:completion"


def test_models_that_the_user_mapped_come_first() -> None:
    models = {"meta-llama/Llama-3-8B": "vllm/llama"}
    assert found(model="meta-llama/Llama-3-8B", own="vllm/llama", models=models) == "vllm/llama"
    assert found(OPENAI, model="meta-llama/Llama-3-8B", own=None, models=models) == "vllm/llama"
    assert found(model="gpt-x", models=models) == OWN


def test_models_in_paths() -> None:
    azure = "/openai/deployments/gpt-x/chat/completions"
    assert found("me.openai.azure.com", azure, None, own=None) == "azure/gpt-x"
    gemini = "/v1beta/models/gemini-x:generateContent"
    assert found("generativelanguage.googleapis.com", gemini, None, own=None) == "google/gemini-x"


@pytest.mark.parametrize("path", ["/v1/files", "/v1/batches", "/v1/messages/count_tokens", "/v1/messages/batches"])
def test_what_asks_no_model_passes(path: str) -> None:
    assert found(OPENAI, path) is None
    assert found(OPENAI, "/v1/models", None, method="GET") is None
    assert found(OPENAI, "/v1/other", None, own=None) is None


def test_a_model_of_nobody_knows_whom_is_refused() -> None:
    with pytest.raises(HeadgateError, match="provider="):
        found(own=None)
    assert found(own=None, provider="vllm") == "vllm/gpt-x"


def test_what_cannot_be_meant_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="provider"):
        naming("openai/gpt-x", None, None)
    with pytest.raises(ConfigError, match="models"):
        naming(None, {"gpt-x": "gpt-x"}, None)


@pytest.mark.parametrize(
    ("body", "model"),
    [
        (b"", None),
        (b"[1]", None),
        (b"not json", None),
        (b'{"model": 3}', None),
        (b'{"model": ""}', None),
        (b'{"messages": [{"model": "inner"}]}', None),
        (b'{"name": "model", "other": "x"}', None),
        (b'{"text": "a \\"model\\": \\"x\\"", "model" : "outer"}', "outer"),
        (b'  {"messages": [{"content": "}{][\\\\"}], "model": "a/b \\u00e9"}', "a/b \u00e9"),
        (b'{"model": "cut', None),
    ],
)
def test_the_model_in_a_body(body: bytes, model: str | None) -> None:
    assert model_in(body) == model


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.just("model"), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text() | st.just("model"), JSON, max_size=5), st.booleans())
def test_the_model_is_what_a_parser_would_find(fields: dict[str, object], ascii_only: bool) -> None:
    body = json.dumps(fields, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    model = fields.get("model")
    assert model_in(body) == (model if isinstance(model, str) and model else None)


@given(st.binary())
def test_any_bytes_at_all_are_no_trouble(body: bytes) -> None:
    for text in (body, b'{"model":' + body, body + b'"model": "m"}'):
        found = model_in(text)
        assert found is None or (found and found.encode(errors="surrogatepass") in text) or b"\\" in text
