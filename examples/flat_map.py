"""One function over many rows: the smallest program. Run it again, and what is done is not asked again.

Needs OPENAI_API_KEY, or OPENAI_BASE_URL for any endpoint that speaks OpenAI's chat completions.
"""

from __future__ import annotations

from openai import OpenAI

import headgate

MODEL = "gpt-small"
THINGS = ("a head gate", "a weir", "a sluice", "a penstock", "a canal lock")

client = headgate.attach(OpenAI(max_retries=0))


def explanation(thing: str) -> str:
    """Ask for one sentence; the function's name is that of the new column."""
    prompt = f"What is {thing}? Answer in one sentence."
    answer = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": prompt}])
    return answer.choices[0].message.content or ""


if __name__ == "__main__":
    with client:
        report = headgate.map(explanation, THINGS, model=f"openai/{MODEL}", store="things.db", out="things.jsonl")
    print(report)
