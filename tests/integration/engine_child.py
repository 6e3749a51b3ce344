"""A user's program with the whole engine in it, to be interrupted or killed from outside. Run by the tests beside it.

``sync`` is a plain script around ``headgate.run``, ``stream`` an async one that says of each row that it is done as
soon as ``rows()`` delivers it, and which keeps what it has learned with every commit. Both ask two models in a row for
each row, at most CAP at once. What they say goes to standard output, one line each, unbuffered: ``answered <row>``
after each answer, ``done <row>`` for a row.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio
from openai import AsyncOpenAI

import headgate
from headgate.engine import keeping

CAP = 8
RUN = "child"


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def messages(column: str, row: int) -> list[dict[str, str]]:
    """What is asked for one cell: the provider counts requests by it."""
    return [{"role": "user", "content": f"{column} number {row} now"}]


def make_pipeline(base_url: str) -> headgate.Pipeline:
    pipeline = headgate.Pipeline(RUN)
    clients: list[AsyncOpenAI] = []

    async def ask(column: str, row: int) -> str:
        if not clients:
            clients.append(AsyncOpenAI(base_url=base_url, api_key="unused", max_retries=0, timeout=60))
        completion = await clients[0].chat.completions.create(model="m", messages=messages(column, row))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        lease = headgate.current_lease()
        assert lease is not None
        lease.report(status=200, usage=completion.usage)
        say(f"answered {row}")
        return completion.choices[0].message.content or ""

    @pipeline.column(model="openai/m")
    async def answer(row: int) -> str:
        return await ask("answer", row)

    @pipeline.column(model="openai/m")
    async def verdict(row: int, answer: str) -> str:
        assert answer
        return await ask("verdict", row)

    return pipeline


LIMITS = {"openai/m": {"concurrency": CAP, "tokens_per_minute": 1e9}}


async def stream(base_url: str, store: Path, rows: int) -> int:
    keeping.FIRST_S = keeping.EVERY_S = 0.0  # a life of this program is short
    async with headgate.Engine(limits=LIMITS, store=store) as engine:
        run = await engine.start(make_pipeline(base_url), rows)
        async for row in run.rows():
            assert row.ok
            say(f"done {row.id}")
        report = await run.wait()
    return report.exit_code


def main() -> int:
    mode, base_url, store, rows = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    if mode == "stream":
        return anyio.run(stream, base_url, store, rows)
    report = headgate.run(make_pipeline(base_url), rows, limits=LIMITS, store=store, grace=float(sys.argv[5]))
    say(f"ended {report.status.value}")
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
