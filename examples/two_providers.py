"""A graph of columns over two providers: one writes, the other one checks, and each keeps to its own limits.

    text -> summary (OpenAI) -> verdict (Anthropic) -> keep (local)
         -> keywords (OpenAI) ----------------------^

Columns that do not need each other run side by side. Needs OPENAI_API_KEY and ANTHROPIC_API_KEY.
"""

from __future__ import annotations

import anyio
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

import headgate

WRITER, CHECKER = "gpt-small", "claude-small"
LIMITS: dict[str, dict[str, object]] = {
    "openai": {"requests_per_minute": 5000},  # what the account is allowed, all its models together
    f"anthropic/{CHECKER}": {"concurrency": "2-8-64"},  # not known exactly: begin at 8, find out
}


def make_pipeline(openai: AsyncOpenAI, anthropic: AsyncAnthropic) -> headgate.Pipeline:
    """The columns. A parameter names what a column needs: a field of the row, or another column."""
    pipeline = headgate.Pipeline("articles")

    async def ask_openai(prompt: str) -> str:
        answer = await openai.chat.completions.create(model=WRITER, messages=[{"role": "user", "content": prompt}])
        return answer.choices[0].message.content or ""

    @pipeline.column(model=f"openai/{WRITER}")
    async def summary(text: str) -> str:
        return await ask_openai(f"Summarise in one sentence: {text}")

    @pipeline.column(model=f"openai/{WRITER}")
    async def keywords(text: str) -> list[str]:
        return (await ask_openai(f"Name three keywords of this text, separated by spaces: {text}")).split()

    @pipeline.column(model=f"anthropic/{CHECKER}")
    async def verdict(text: str, summary: str) -> str:
        prompt = f"Does the summary say anything that the text does not? Begin with yes or no.\n{text}\n{summary}"
        answer = await anthropic.messages.create(
            model=CHECKER, max_tokens=200, messages=[{"role": "user", "content": prompt}]
        )
        return "".join(block.text for block in answer.content if block.type == "text")

    @pipeline.column  # without model= it is local work
    def keep(verdict: str, keywords: list[str]) -> bool:
        return not verdict.lower().startswith("yes") and len(keywords) > 1

    return pipeline


async def main() -> headgate.RunReport:
    """Run it over twenty rows. The same call goes on where it ended, after a crash too."""
    rows = ({"title": f"Canal {n}", "text": f"Canal {n} has {n + 2} locks and one head gate."} for n in range(20))
    async with AsyncOpenAI(max_retries=0) as openai, AsyncAnthropic(max_retries=0) as anthropic:
        pipeline = make_pipeline(headgate.attach(openai), headgate.attach(anthropic))
        return await headgate.arun(
            pipeline, rows, row_id="title", limits=LIMITS, store="articles.db", out="articles.jsonl"
        )


if __name__ == "__main__":
    report = anyio.run(main)
    print(report)
