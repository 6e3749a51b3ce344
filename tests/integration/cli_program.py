"""A user's pipeline, which asks the provider at MODEL_URL. Loaded by the command line in the tests beside it."""

from __future__ import annotations

import os

from openai import AsyncOpenAI

import headgate

pipeline = headgate.Pipeline("tickets")
client = AsyncOpenAI(base_url=os.environ.get("MODEL_URL"), api_key="unused", max_retries=0, timeout=60)


async def ask(prompt: str) -> str:
    completion = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": prompt}])
    lease = headgate.current_lease()
    assert lease is not None
    lease.report(status=200, usage=completion.usage)
    return completion.choices[0].message.content or ""


@pipeline.column(model="openai/m")
async def answer(row: int) -> str:
    return await ask(f"answer number {row} now")


@pipeline.column(model="openai/m")
async def verdict(row: int, answer: str) -> str:
    print(f"judging {row}", flush=True)
    return await ask(f"verdict number {row} now")
