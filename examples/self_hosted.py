"""A server of your own (vLLM, SGLang, TGI) that batches, queues and never answers 429.

More requests at once make such a server faster only up to a point; from there on they wait inside of it, where nobody
can schedule them. With ``queueing`` headgate looks at answered tokens a second while it lets more requests out, and
stays where more of them gain nothing. Needs a server: ``vllm serve meta-llama/Llama-3.1-8B-Instruct`` listens on 8000.
"""

from __future__ import annotations

import os

import anyio
from openai import AsyncOpenAI

import headgate

SERVER = os.environ.get("VLLM_BASE_URL", "http://127.0.0.1:8000/v1")
SERVED = "meta-llama/Llama-3.1-8B-Instruct"
LLAMA = "vllm/llama"
LIMITS = {LLAMA: {"concurrency": "4-16-512", "queueing": True}}


async def main() -> headgate.RunReport:
    """A hundred short texts through one server."""
    async with AsyncOpenAI(base_url=SERVER, api_key="unused", max_retries=0) as client:
        headgate.attach(client, provider="vllm", models={SERVED: LLAMA})

        async def title(text: str) -> str:
            prompt = f"Give this text a title of at most six words: {text}"
            answer = await client.chat.completions.create(
                model=SERVED, messages=[{"role": "user", "content": prompt}], max_tokens=24
            )
            return answer.choices[0].message.content or ""

        texts = (f"Text number {n} is about a river and its gates." for n in range(100))
        return await headgate.amap(title, texts, model=LLAMA, limits=LIMITS, store="titles.db")


if __name__ == "__main__":
    report = anyio.run(main)
    print(report)
