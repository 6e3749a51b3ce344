"""An embedding column: one request for a whole row group, one vector per row; and what can be made of the vectors.

A column with ``scope="group"`` gets lists and gives a list. With ``model=`` too it is one request for ``group_size``
rows, as embedding endpoints want it. Needs OPENAI_API_KEY.
"""

from __future__ import annotations

import math

import anyio
from openai import AsyncOpenAI

import headgate

MODEL = "embedding-small"
SAME = 0.995


def make_pipeline(client: AsyncOpenAI) -> headgate.Pipeline:
    """Two group columns: the vectors of a row group, and which of its texts say what an earlier one said."""
    pipeline = headgate.Pipeline("sentences")

    @pipeline.column(model=f"openai/{MODEL}:embedding", scope="group")
    async def vector(text: list[str]) -> list[list[float]]:
        answer = await client.embeddings.create(model=MODEL, input=text)
        return [one.embedding for one in answer.data]

    @pipeline.column(scope="group")
    def repeated(vector: list[list[float]]) -> list[bool]:
        return [any(cosine(one, other) > SAME for other in vector[:place]) for place, one in enumerate(vector)]

    return pipeline


def cosine(one: list[float], other: list[float]) -> float:
    """How much two directions agree: 1 the same, 0 nothing in common."""
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / math.hypot(*one) / math.hypot(*other)


async def main() -> headgate.RunReport:
    """Two hundred rows in four requests."""
    rows = [{"text": f"The gate of canal {n % 40} is open."} for n in range(200)]
    async with AsyncOpenAI(max_retries=0) as client:
        return await headgate.arun(make_pipeline(headgate.attach(client)), rows, group_size=50, store="sentences.db")


if __name__ == "__main__":
    report = anyio.run(main)
    print(report)
    print(sum(bool(row["repeated"]) for row in report.results()), "repeated")
