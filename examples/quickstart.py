"""Two models, three columns, real input, a provider that pushes back: what headgate does, in one run.

The input is every public function of the running Python's standard library that has a docstring: its name, signature
and docstring, read at run time. 400 of them by default, ROWS=all for the rest.

Without OPENAI_BASE_URL a provider of our own is started on loopback, with tight limits and faults. To use a real
one, set OPENAI_BASE_URL and OPENAI_API_KEY, and name its models in SMALL_MODEL and LARGE_MODEL.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import pkgutil
import re
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from openai import AsyncOpenAI
from pydantic import BaseModel, Field

import headgate
from headgate.observe import watch
from headgate.testing.provider import (
    Faults,
    Latency,
    ModelSpec,
    OutputTokens,
    ProviderProcess,
    ProviderSpec,
    RetryAfter,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

OUT = Path("quickstart-out")
SMALL = os.environ.get("SMALL_MODEL", "small")
LARGE = os.environ.get("LARGE_MODEL", "large")


class Quiz(BaseModel):
    """A question about a function; its shape is checked before it counts as an answer."""

    question: str = Field(min_length=1)
    function: str


def worth_a_quiz(doc: str) -> bool:
    """Nobody can be asked about a docstring of three words."""
    return len(doc) > 80


def make_pipeline(client: AsyncOpenAI) -> headgate.Pipeline:
    """Three columns: a summary by the small model, a quiz by the large one, an answer by the small one."""
    pipeline = headgate.Pipeline("stdlib")

    async def ask(model: str, prompt: str) -> str:
        response = await client.chat.completions.with_raw_response.create(
            model=model, messages=[{"role": "user", "content": prompt}]
        )
        completion = response.parse()
        lease = headgate.current_lease()
        if lease is not None:  # tell admission what the provider says about its limits, and what was used
            lease.report(status=response.status_code, headers=response.headers, usage=completion.usage)
        return completion.choices[0].message.content or ""

    @pipeline.column(model=f"openai/{SMALL}")
    async def summary(name: str, signature: str, doc: str) -> str:
        return await ask(SMALL, f"Summarise the Python function {name}{signature} in one sentence.\n\n{doc}")

    @pipeline.column(model=f"openai/{LARGE}", when=worth_a_quiz)
    async def quiz(name: str, summary: str) -> Quiz:
        question = await ask(LARGE, f"Write one quiz question about {name}: {summary}")
        return Quiz(question=question, function=name)

    @pipeline.column(model=f"openai/{SMALL}")
    async def answer(quiz: Quiz, doc: str) -> str:
        return await ask(SMALL, f"{quiz.question}\nAnswer from this text only:\n{doc}")

    return pipeline


def stdlib_functions() -> Iterator[dict[str, object]]:
    """One row per public function of the standard library that has a docstring, each function once."""
    seen: set[int] = set()
    for module in sorted(sys.stdlib_module_names):
        if module.startswith("_") or module in {"antigravity", "this", "idlelib", "turtledemo", "lib2to3"}:
            continue
        for name in (module, *_submodules(module)):
            yield from _functions(name, seen)


def _submodules(module: str) -> list[str]:
    try:
        found = importlib.import_module(module)
    except Exception:
        return []
    paths = getattr(found, "__path__", [])
    names = [f"{module}.{info.name}" for info in pkgutil.iter_modules(paths)]
    return [name for name in names if not any(part.startswith(("_", "test")) for part in name.split("."))]


def _functions(module: str, seen: set[int]) -> Iterator[dict[str, object]]:
    try:
        found = importlib.import_module(module)
    except BaseException:  # some modules of other platforms exit or raise what they like
        return
    for name, value in sorted(vars(found).items()):
        if name.startswith("_") or not inspect.isroutine(value) or id(value) in seen:
            continue
        doc = inspect.getdoc(value)
        if not doc or (getattr(value, "__module__", None) or module).split(".")[0].strip("_") not in module:
            continue
        seen.add(id(value))
        try:
            # Some defaults print their address, which is another one in every process.
            signature = re.sub(r" at 0x[0-9a-f]+", "", str(inspect.signature(value)))
        except (TypeError, ValueError):
            signature = "(...)"
        yield {"id": f"{module}.{name}", "name": f"{module}.{name}", "signature": signature, "doc": doc[:2000]}


def tight_provider() -> ProviderSpec:
    """A provider that is neither fast nor generous nor reliable."""
    faults = Faults(error_500=0.02, reset=0.01, malformed=0.005)
    return ProviderSpec(
        seed=7,
        models={
            SMALL: ModelSpec(
                concurrency=24,
                latency=Latency(mean_s=0.25, sigma=0.6),
                output_tokens=OutputTokens(mean=30, sigma=0.5),
                faults=faults,
            ),
            LARGE: ModelSpec(
                requests_per_minute=2400,
                request_burst=10,
                latency=Latency(mean_s=0.5, sigma=0.6),
                output_tokens=OutputTokens(mean=60, sigma=0.5),
                retry_after=RetryAfter.SECONDS,
                faults=faults,
            ),
        },
    )


@contextlib.asynccontextmanager
async def provider() -> AsyncGenerator[ProviderProcess | None]:
    """Our own provider on loopback, unless a real one is named in the environment."""
    if os.environ.get("OPENAI_BASE_URL"):
        yield None
        return
    async with ProviderProcess(tight_provider()) as process:
        os.environ["OPENAI_BASE_URL"] = process.base_url
        os.environ.setdefault("OPENAI_API_KEY", "loopback")
        yield process


async def run_once(rows: list[dict[str, object]]) -> headgate.RunReport:
    """Run the pipeline with a live view; the same call again resumes."""
    async with AsyncOpenAI(max_retries=0, timeout=60) as client:
        pipeline = make_pipeline(client)
        async with headgate.Engine(store=OUT / "stdlib.db") as engine:
            run = await engine.start(pipeline, rows, row_id="id")
            await watch(run, total=len(rows))
            report = await run.wait()
            headgate.write_jsonl(OUT / "stdlib.jsonl", report.results())
    return report


def start_afresh() -> None:
    """Forget the results of an earlier quickstart."""
    OUT.mkdir(exist_ok=True)
    for old in OUT.glob("stdlib.db*"):
        old.unlink()


async def main() -> int:
    """Run, show the report, and run again to show that nothing is asked twice."""
    count = os.environ.get("ROWS", "400")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # importing all of the standard library meets its deprecated corners
        rows = list(stdlib_functions())
    if count != "all":
        step = max(1, len(rows) // int(count))
        rows = rows[::step][: int(count)]
    start_afresh()
    print(f"{len(rows)} functions of the standard library, three columns, two models\n")
    async with provider() as process:
        report = await run_once(rows)
        print(report)
        report.to_html(OUT / "report.html")
        print(f"\nresults: {OUT / 'stdlib.jsonl'}\na page with charts, to open in a browser: {OUT / 'report.html'}\n")
        before = process.stats() if process else None
        again = await run_once(rows)
        print(f"a second run of the same call: {again.restored} of {again.accepted} rows restored from {OUT}/stdlib.db")
        if process is not None and before is not None:
            asked = sum(m.requests for m in process.stats().models.values())
            asked -= sum(m.requests for m in before.models.values())
            print(f"requests that the provider saw in the second run: {asked}")
            if asked > 3 * (report.accepted - report.done):
                return 1
    return report.exit_code


if __name__ == "__main__":
    sys.exit(anyio.run(main))
