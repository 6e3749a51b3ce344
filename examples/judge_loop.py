"""A loop inside of one cell: a draft, a judge, another draft, until the judge is content or the rounds are used up.

Every request is admitted by itself, for whichever model it asks, and credited to the cell. So a loop of six requests
takes six turns, and a judge that is rate-limited does not stop drafts of other rows. Needs OPENAI_API_KEY.
"""

from __future__ import annotations

import anyio
from openai import AsyncOpenAI
from pydantic import BaseModel

import headgate

WRITER, JUDGE = "gpt-small", "gpt-large"
ROUNDS_MAX = 3
GOOD_ENOUGH = 7


class Verdict(BaseModel):
    """What the judge says; an answer of another shape is asked for again."""

    score: int
    advice: str


class Story(BaseModel):
    """The best draft, its score, and the round in which it was written."""

    text: str
    score: int
    round: int


def make_pipeline(client: AsyncOpenAI) -> headgate.Pipeline:
    """One column whose body makes between two and six requests, one after another."""
    pipeline = headgate.Pipeline("stories")

    async def draft(prompt: str) -> str:
        answer = await client.chat.completions.create(model=WRITER, messages=[{"role": "user", "content": prompt}])
        return answer.choices[0].message.content or ""

    async def judge(text: str) -> Verdict:
        prompt = f"Score this story from 0 to 10, and say what would make it better:\n{text}"
        answer = await client.chat.completions.parse(
            model=JUDGE, messages=[{"role": "user", "content": prompt}], response_format=Verdict
        )
        verdict = answer.choices[0].message.parsed
        if verdict is None:
            raise ValueError("the judge gave no verdict")  # counts as invalid output: the cell is tried again
        return verdict

    @pipeline.column(model=f"openai/{WRITER}")  # the model of the first request, for which the engine waits
    async def story(topic: str) -> Story:
        drafts: list[Story] = []
        advice = "Write it plainly."
        while not drafts or (drafts[-1].score < GOOD_ENOUGH and len(drafts) < ROUNDS_MAX):
            text = await draft(f"Write a story of three sentences about {topic}. {advice}")
            verdict = await judge(text)
            drafts.append(Story(text=text, score=verdict.score, round=len(drafts) + 1))
            advice = verdict.advice
        return max(drafts, key=lambda draft: draft.score)

    return pipeline


async def main() -> headgate.RunReport:
    """Ten stories. What a body has asked when its cell fails is asked again; what is committed is kept."""
    rows = [{"topic": f"a canal with {n} locks"} for n in range(1, 11)]
    async with AsyncOpenAI(max_retries=0) as client:
        return await headgate.arun(make_pipeline(headgate.attach(client)), rows, store="stories.db")


if __name__ == "__main__":
    report = anyio.run(main)
    print(report)
    for row in report.results():
        print(row["story"])
