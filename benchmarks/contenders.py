"""Three ways to ask one question per row with OpenAI's client, each as a competent user of it would write it.

They get the same prompts, the same address and no word about the provider's limits. What a contender says of its rows
is a :class:`Told`; what it did to the provider, the provider counts.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import anyio
import tenacity
from openai import APIConnectionError, AsyncOpenAI, InternalServerError, OpenAIError, RateLimitError

import headgate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    Contender = Callable[[str, Sequence[str], int], Coroutine[object, object, "Told"]]

__all__ = ["CONTENDERS", "MOST_IN_FLIGHT", "Told", "by_headgate", "with_slots"]

MOST_IN_FLIGHT: Final = 256
GUESS: Final = 64  # slots of the careful version: what one takes for an account of some size, and measures no further
ATTEMPTS: Final = 20
BACKOFF: Final = tenacity.wait_random_exponential(multiplier=0.5, max=30)
TIMEOUT_S: Final = 120


@dataclass(frozen=True, slots=True)
class Told:
    """What a contender says: rows by outcome, and the seconds from the first row to the last."""

    done: int
    failed: int
    seconds: float


async def by_headgate(base_url: str, prompts: Sequence[str], seed: int) -> Told:
    """The engine with an upper bound and nothing else. A failed row is one that its ledger names."""
    async with AsyncOpenAI(base_url=base_url, api_key="unused", max_retries=0, timeout=TIMEOUT_S) as client:

        async def answer(prompt: str) -> str:
            return await _ask(client, prompt)

        limits = {"bench/m": {"concurrency": f"1-4-{MOST_IN_FLIGHT}"}}
        report = await headgate.amap(answer, prompts, model="bench/m", limits=limits, seed=seed)
    return Told(report.done, report.failed, report.seconds)


async def by_client_alone(base_url: str, prompts: Sequence[str], seed: int) -> Told:
    """The client with its own two retries, behind a semaphore."""
    return await with_slots(MOST_IN_FLIGHT, base_url, prompts)


async def with_slots(slots: int, base_url: str, prompts: Sequence[str]) -> Told:
    """The client with its own two retries and ``slots`` requests at once."""
    room = asyncio.Semaphore(slots)
    async with AsyncOpenAI(base_url=base_url, api_key="unused", timeout=TIMEOUT_S) as client:

        async def answer(prompt: str) -> str:
            async with room:
                return await _ask(client, prompt)

        return await _all(answer, prompts)


async def by_careful_hand(base_url: str, prompts: Sequence[str], seed: int) -> Told:
    """A guessed number of slots, each for a row with all its attempts: twenty, with jittered exponential backoff, or as
    long as Retry-After says. (With the slot given back between attempts it makes more 429s and is no faster.)
    """
    room = asyncio.Semaphore(GUESS)
    async with AsyncOpenAI(base_url=base_url, api_key="unused", max_retries=0, timeout=TIMEOUT_S) as client:

        @tenacity.retry(
            retry=tenacity.retry_if_exception_type(
                (RateLimitError, InternalServerError, APIConnectionError, ValueError)
            ),
            wait=_as_told,
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            reraise=True,
        )
        async def persistent(prompt: str) -> str:
            return await _ask(client, prompt)

        async def answer(prompt: str) -> str:
            async with room:
                return await persistent(prompt)

        return await _all(answer, prompts)


def _as_told(state: tenacity.RetryCallState) -> float:
    """Seconds to wait: those of Retry-After, up to a quarter more so that not all come back at once; else backoff."""
    error = state.outcome.exception() if state.outcome is not None else None
    if isinstance(error, RateLimitError):
        try:
            return float(error.response.headers["retry-after"]) + BACKOFF(state) / 4
        except (KeyError, ValueError):
            pass
    return BACKOFF(state)


async def _ask(client: AsyncOpenAI, prompt: str) -> str:
    completion = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": prompt}])
    return completion.choices[0].message.content or ""


async def _all(answer: Callable[[str], Awaitable[str]], prompts: Sequence[str]) -> Told:
    """Ask for all rows; an exception is a row without an answer, one that nobody foresaw is a bug of the benchmark."""
    began = anyio.current_time()
    answers = await asyncio.gather(*(answer(prompt) for prompt in prompts), return_exceptions=True)
    seconds = anyio.current_time() - began
    for one in answers:
        if isinstance(one, BaseException) and not isinstance(one, (OpenAIError, ValueError)):
            raise one
    return Told(sum(isinstance(one, str) for one in answers), 0, seconds)


CONTENDERS: Final[dict[str, Contender]] = {
    "headgate": by_headgate,
    "openai alone": by_client_alone,
    "by careful hand": by_careful_hand,
}
"""Who competes, by name."""
