"""The provider as its own process, as OpenAI's client sees it: answers, refusals, faults, accounts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import openai
import pytest
from pydantic import BaseModel

from headgate.testing.provider import (
    Capacity,
    Change,
    Dialect,
    Faults,
    Latency,
    ModelSpec,
    OutputTokens,
    ProviderProcess,
    ProviderSpec,
    ProviderStartError,
    RetryAfter,
)
from tests.integration.warm_children import run_warm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openai.types.chat import ChatCompletion, ChatCompletionChunk

FAULTS = ("error_500", "overloaded", "unauthorized", "bad_request", "reset", "hang", "malformed", "slow_body")
QUICK = Latency(mean_s=0.02)

SPEC = ProviderSpec(
    models={
        "plain": ModelSpec(latency=QUICK, output_tokens=OutputTokens(mean=12)),
        "single": ModelSpec(concurrency=1, latency=Latency(mean_s=0.001)),
        "narrow": ModelSpec(concurrency=2, latency=Latency(mean_s=1), retry_after=RetryAfter.MS),
        "metered": ModelSpec(
            requests_per_minute=60,
            request_burst=3,
            tokens_per_minute=6000,
            latency=QUICK,
            headers=Dialect.OPENAI,
            retry_after=RetryAfter.SECONDS,
        ),
        "closed": ModelSpec(reject=429, headers=Dialect.ANTHROPIC, script=(Change(at_s=1e6, reject=None),)),
        **{
            name: ModelSpec(latency=QUICK, output_tokens=OutputTokens(mean=12), faults=Faults.model_validate({name: 1}))
            for name in FAULTS
        },
    },
    seed=5,
)


@pytest.fixture
def anyio_backend() -> str:
    """OpenAI's client is tested on the loop that it is mostly used on."""
    return "asyncio"


@pytest.fixture(scope="module")
def provider() -> Iterator[ProviderProcess]:
    with ProviderProcess(SPEC) as running:
        yield running


@pytest.fixture
async def client(provider: ProviderProcess) -> Any:
    provider.control(reset=True)
    async with openai.AsyncOpenAI(base_url=provider.base_url, api_key="unused", max_retries=0) as made:
        yield made


async def _chat(client: openai.AsyncOpenAI, model: str, text: str = "Why is it so?", **more: Any) -> ChatCompletion:
    create: Any = client.chat.completions.create
    answer: ChatCompletion = await create(model=model, messages=[{"role": "user", "content": text}], **more)
    return answer


async def _stream(client: openai.AsyncOpenAI, model: str, text: str = "Why is it so?") -> list[ChatCompletionChunk]:
    stream = await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": text}],
        stream=True,
        stream_options={"include_usage": True},
    )
    return [chunk async for chunk in stream]


async def test_a_chat_answer_is_deterministic_and_billed_as_long_as_it_is(
    client: openai.AsyncOpenAI, provider: ProviderProcess
) -> None:
    first = await _chat(client, "plain")
    text = first.choices[0].message.content
    assert text is not None
    assert first.usage is not None
    assert len(text.split()) == first.usage.completion_tokens == 12
    assert first.usage.prompt_tokens == 4
    assert first.choices[0].finish_reason == "stop"
    provider.control(reset=True)
    assert (await _chat(client, "plain")).choices[0].message.content == text
    assert (await _chat(client, "plain", "Another?")).choices[0].message.content != text
    cut = await _chat(client, "plain", max_completion_tokens=5)
    assert cut.choices[0].finish_reason == "length"
    assert cut.usage is not None
    assert cut.usage.completion_tokens == 5


async def test_structured_output_fits_the_client_s_own_schema(client: openai.AsyncOpenAI) -> None:
    class Verdict(BaseModel):
        good: bool
        reasons: list[str]

    parsed = await client.chat.completions.parse(
        model="plain", messages=[{"role": "user", "content": "Judge."}], response_format=Verdict
    )
    assert isinstance(parsed.choices[0].message.parsed, Verdict)
    loose = await _chat(client, "plain", response_format={"type": "json_object"})
    assert isinstance(json.loads(loose.choices[0].message.content or ""), dict)


async def test_a_stream_is_the_same_answer_in_pieces(client: openai.AsyncOpenAI, provider: ProviderProcess) -> None:
    whole = (await _chat(client, "plain")).choices[0].message.content
    provider.control(reset=True)
    chunks = await _stream(client, "plain")
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == whole
    assert len(pieces) > 4
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (4, 12)
    stats = provider.stats().models["plain"]
    assert (stats.statuses, stats.in_flight, stats.output_tokens) == ({"200": 1}, 0, 12)


async def test_embeddings_depend_on_the_text_alone(client: openai.AsyncOpenAI) -> None:
    made = await client.embeddings.create(model="plain", input=["one text", "another"], dimensions=40)
    again = await client.embeddings.create(model="plain", input="one text", dimensions=40, encoding_format="float")
    assert [len(item.embedding) for item in made.data] == [40, 40]
    assert made.data[0].embedding == pytest.approx(again.data[0].embedding)
    assert made.data[0].embedding != made.data[1].embedding
    assert made.usage.prompt_tokens == 3


async def test_the_models_are_listed(client: openai.AsyncOpenAI) -> None:
    listed = [model.id async for model in client.models.list()]
    assert listed == list(SPEC.models)
    with pytest.raises(openai.NotFoundError):
        await _chat(client, "unheard-of")


async def test_unreadable_requests_are_400_and_in_no_account(
    client: openai.AsyncOpenAI, provider: ProviderProcess
) -> None:
    with pytest.raises(openai.BadRequestError):
        await client.chat.completions.create(model="plain", messages=[])
    with pytest.raises(openai.BadRequestError):
        await client.embeddings.create(model="plain", input="")
    with pytest.raises(openai.BadRequestError):
        await _chat(client, "plain", max_completion_tokens=-1)
    deep = b'{"model": "plain", "messages": ' + 100_000 * b"[" + 100_000 * b"]" + b"}"
    with pytest.raises(openai.BadRequestError, match="nested too deeply"):
        await client.post("/chat/completions", cast_to=object, content=deep)
    endless = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}
    asked: Any = {"type": "json_schema", "json_schema": {"name": "endless", "schema": endless}}
    with pytest.raises(openai.BadRequestError, match="no answer fits the schema: RecursionError"):
        await _chat(client, "plain", response_format=asked)
    assert provider.stats().models["plain"].requests == 0


async def test_a_full_model_gives_429_with_the_time_to_wait(
    client: openai.AsyncOpenAI, provider: ProviderProcess
) -> None:
    refused: list[openai.RateLimitError] = []

    async def ask(row: int) -> None:
        try:
            await _chat(client, "narrow", f"row {row}")
        except openai.RateLimitError as error:
            refused.append(error)

    async with anyio.create_task_group() as group:
        for row in range(6):
            group.start_soon(ask, row)
    assert len(refused) == 4
    assert refused[0].response.headers["retry-after-ms"] == "500"
    assert refused[0].code == "rate_limit_exceeded"
    stats = provider.stats().models["narrow"]
    assert (stats.requests, stats.accepted, stats.in_flight_max) == (6, 2, 2)
    assert stats.rejected == {"concurrency": 4}
    assert stats.statuses == {"200": 2, "429": 4}


async def test_answers_and_refusals_carry_rate_headers(client: openai.AsyncOpenAI) -> None:
    remaining: list[str] = []
    for row in range(3):
        raw = await client.chat.completions.with_raw_response.create(
            model="metered", messages=[{"role": "user", "content": f"row {row}"}]
        )
        assert raw.headers["x-ratelimit-limit-requests"] == "60"
        assert raw.headers["x-ratelimit-limit-tokens"] == "6000"
        remaining.append(raw.headers["x-ratelimit-remaining-requests"])
    assert remaining == ["2", "1", "0"]
    with pytest.raises(openai.RateLimitError) as caught:
        await _chat(client, "metered")
    assert caught.value.type == "requests"
    assert caught.value.response.headers["retry-after"] == "1"
    assert caught.value.response.headers["x-ratelimit-reset-requests"].endswith("s")


async def test_a_closed_model_refuses_in_anthropic_s_words(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as caught:
        await _chat(client, "closed")
    assert caught.value.response.json()["error"]["type"] == "rate_limit_error"


@pytest.mark.parametrize(
    ("fault", "kind", "recorded"),
    [
        ("error_500", openai.InternalServerError, "500"),
        ("overloaded", openai.InternalServerError, "503"),
        ("unauthorized", openai.AuthenticationError, "401"),
        ("bad_request", openai.BadRequestError, "400"),
        ("reset", openai.APIConnectionError, "reset"),
        ("malformed", ValueError, "200"),
    ],
)
async def test_each_fault_reaches_the_client_as_its_own_exception(
    client: openai.AsyncOpenAI, provider: ProviderProcess, fault: str, kind: type[Exception], recorded: str
) -> None:
    with pytest.raises(kind):
        await _chat(client, fault)
    stats = provider.stats().models[fault]
    assert (stats.statuses, stats.faults) == ({recorded: 1}, {fault: 1})


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("reset", openai.APIConnectionError),
        ("malformed", ValueError),
        ("error_500", openai.InternalServerError),
    ],
)
async def test_streams_break_as_configured(
    client: openai.AsyncOpenAI, provider: ProviderProcess, fault: str, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        await _stream(client, fault)
    assert provider.stats().models[fault].in_flight == 0


async def test_a_hang_holds_its_slot_until_the_client_leaves(
    client: openai.AsyncOpenAI, provider: ProviderProcess
) -> None:
    with anyio.move_on_after(0.2):
        await _chat(client, "hang")
    await _until(lambda: provider.stats().models["hang"].in_flight == 0)
    assert provider.stats().models["hang"].statuses == {"left": 1}
    with pytest.raises(openai.APITimeoutError):
        await _chat(client.with_options(timeout=0.2), "hang")
    await _until(lambda: provider.stats().models["hang"].in_flight == 0)
    assert provider.stats().models["hang"].statuses == {"left": 2}


async def test_a_slow_body_comes_complete_after_its_header(client: openai.AsyncOpenAI) -> None:
    started = anyio.current_time()
    answer = await _chat(client, "slow_body")
    assert len((answer.choices[0].message.content or "").split()) == 12
    assert anyio.current_time() - started >= 0.19


async def _until(holds: Any, within_s: float = 5.0) -> None:
    with anyio.fail_after(within_s):
        while not holds():  # noqa: ASYNC110 - what is awaited happens in another process
            await anyio.sleep(0.01)


async def test_a_slot_is_free_before_the_client_sees_the_end(
    client: openai.AsyncOpenAI, provider: ProviderProcess
) -> None:
    for row in range(30):
        await _chat(client, "single", f"row {row}")
        await _stream(client, "single", f"row {row}")
    assert provider.stats().models["single"].statuses == {"200": 60}


async def test_control_changes_a_model_live(client: openai.AsyncOpenAI, provider: ProviderProcess) -> None:
    await _chat(client, "plain")
    provider.control("plain", Capacity(reject=503))
    with pytest.raises(openai.InternalServerError):
        await _chat(client, "plain")
    provider.control("plain", Capacity(reject=None))
    await _chat(client, "plain")
    assert provider.stats().models["plain"].statuses == {"200": 2, "503": 1}
    with pytest.raises(ValueError, match="does not exist"):
        provider.control("unheard-of", Capacity(reject=503))


async def test_the_account_knows_how_often_each_message_came(
    client: openai.AsyncOpenAI, provider: ProviderProcess
) -> None:
    for text in ("once", "twice", "twice"):
        await _chat(client, "plain", text)
    assert provider.count("plain", [{"role": "user", "content": "once"}]).answered == 1
    assert provider.count("plain", [{"role": "user", "content": "twice"}]).answered == 2
    assert provider.count("plain", [{"role": "user", "content": "never"}]).requests == 0
    stats = provider.stats().models["plain"]
    assert (stats.contents, stats.accepted_again, stats.answered_again) == (2, 1, 1)


async def test_a_process_starts_and_stops_inside_async_code() -> None:
    async with ProviderProcess(SPEC) as running:
        pid = running.pid
        assert set(running.stats().models) == set(SPEC.models)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_provider_that_cannot_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ProviderStartError):
        ProviderProcess(SPEC).start()


async def test_the_provider_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, signal\n"
        "from headgate.testing.provider import ModelSpec, ProviderProcess, ProviderSpec\n"
        "provider = ProviderProcess(ProviderSpec(models={'m': ModelSpec()}))\n"
        "provider.start()\n"
        "print(provider.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    run = partial(subprocess.run, [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, check=False)
    parent = await anyio.to_thread.run_sync(run)
    pid = int(parent.stdout)
    await _until(lambda: not _is_running(pid))


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("given", ["{}", "/no/such/file", '{"models": {"m": {"concurency": 3}}}'])
def test_the_command_line_refuses_what_it_cannot_read(given: str) -> None:
    command = [sys.executable, "-m", "headgate.testing.provider", "--spec", given]
    done = run_warm(command, timeout=30)
    assert done.returncode == 2
    assert "--spec" in done.stderr
