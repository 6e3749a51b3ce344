"""Traps that only show between the parts: admission's shell, the run around its core, the store that fails.

In virtual time, against a virtual provider.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Literal

import anyio
import anyio.lowlevel
import pytest

import headgate
from headgate.admission import AdmissionController, Lease, Request
from headgate.errors import StoreError, StoreUnavailable
from headgate.testing import (
    Faults,
    Latency,
    ModelSpec,
    ProviderResponseError,
    ProviderSpec,
    VirtualProvider,
    run_virtual,
)
from headgate.values import Outcome, ResourceKey

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from headgate.storage import Batch, RunHandle, RunInfo, StoredRow

ROOT = Path(__file__).resolve().parents[2]
MODEL = ResourceKey.parse("acme/m")


def provider_of(**model: object) -> VirtualProvider:
    return VirtualProvider(ProviderSpec(models={"m": ModelSpec.model_validate(model)}, seed=5))


def asking(provider: VirtualProvider) -> Callable[[int], Awaitable[str]]:
    async def ask(row: int) -> str:
        return (await provider.chat("m", f"question {row}")).text

    return ask


def test_t15_hidden_retries() -> None:
    """Elsewhere the SDK retried inside one lease: attempts that nobody counted. Here a body that tries again itself
    gets a lease for each attempt, and the provider's books are those of the report.
    """
    provider = provider_of(concurrency=2, latency=Latency(mean_s=1), faults=Faults(error_500=0.4))
    most: list[int] = []

    async def stubborn(row: int) -> str:
        while True:
            try:
                async with headgate.request("acme/m") as lease:
                    answer = await provider.chat("m", f"question {row}")
                    lease.report(status=answer.status, usage=answer.usage)
                    return answer.text
            except ProviderResponseError:
                await anyio.sleep(1)
            finally:
                most.append(provider.stats().models["m"].in_flight)

    async def main() -> None:
        limits = {"acme/m": {"concurrency": 2, "queue_timeout": inf}}
        report = await headgate.amap(stubborn, 30, model="acme/m", limits=limits)
        (resource,), stats = report.resources, provider.stats().models["m"]
        assert report.done == 30
        assert resource.requests == stats.requests > 30
        assert resource.outcomes["provider_error"] == stats.statuses["500"] > 0
        assert stats.statuses.get("429", 0) == 0
        assert max(most) <= 2

    run_virtual(main)


@pytest.mark.parametrize("file", ["README.md", "examples/quickstart.py"])
def test_t15_every_client_that_we_show_does_not_retry(file: str) -> None:
    """The SDK's own retries are the user's to turn off: each example does."""
    made = re.findall(r"\b(?:Async)?OpenAI\(([^)]*)\)", (ROOT / file).read_text(encoding="utf-8"))
    assert made
    assert all("max_retries=0" in options for options in made)


def test_t16_a_task_that_is_cancelled_by_asyncio_itself() -> None:
    """A2: asyncio's own cancel reaches a task also after its event was set, where anyio's scopes hold back."""

    async def main() -> None:
        async with AdmissionController({"acme/m": {"concurrency": 1}}) as admission:
            first = await admission.acquire(Request(MODEL))
            waiter = asyncio.ensure_future(admission.acquire(Request(MODEL)))
            await anyio.sleep(1)
            admission.release(first, Outcome.SUCCESS)
            assert admission.gate.leases() == 1
            waiter.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiter
            assert admission.gate.leases() == 0
            assert isinstance(admission.try_acquire(Request(MODEL)), Lease)

    run_virtual(main)


def test_t22_second_ledger() -> None:
    """Elsewhere tasks were admitted by one count and requests by another: 47 of 128 rows done, 2,132 local timeouts."""
    provider = provider_of(concurrency=4, latency=Latency(mean_s=0.5, sigma=0.5))
    seen: list[tuple[int, int, int]] = []

    async def main() -> headgate.RunReport:
        limits = {"acme/m": {"concurrency": 4, "queue_timeout": 0.02}}
        async with headgate.Engine(limits=limits, seed=1) as engine:
            pipeline = headgate.Pipeline("many")

            @pipeline.column(model="acme/m")
            async def first(row: int) -> str:
                pressure = engine.admission.pressure(MODEL)
                seen.append((pressure.in_flight, pressure.waiting, pressure.bids))
                return (await provider.chat("m", f"first {row}")).text

            @pipeline.column(model="acme/m")
            async def second(row: int) -> str:
                return (await provider.chat("m", f"second {row}")).text

            run = await engine.start(pipeline, 128, min_open_rows=128)
            report = await run.wait()
        assert provider.stats().models["m"].statuses.get("429", 0) == 0
        return report

    report = run_virtual(main)
    assert report.done == 128
    (resource,) = report.resources
    assert dict(resource.outcomes) == {"success": 256}
    assert all(flying <= 4 and waiting == 0 and bids <= 1 for flying, waiting, bids in seen)


class FailingHandle:
    """A handle whose commits fail with ``errors`` in turn, then go through."""

    def __init__(self, handle: RunHandle, errors: list[Exception]) -> None:
        self._handle = handle
        self._errors = errors

    @property
    def info(self) -> RunInfo:
        return self._handle.info

    @property
    def learned(self) -> bytes | None:
        return self._handle.learned

    async def commit(self, batch: Batch) -> None:
        if batch.cells and self._errors:
            raise self._errors.pop(0)
        await self._handle.commit(batch)

    async def load(self, first: int, last: int) -> list[StoredRow]:
        return await self._handle.load(first, last)

    async def find(self, row_ids: Sequence[str]) -> dict[str, int]:
        return await self._handle.find(row_ids)

    async def finish(self, status: str) -> None:
        await self._handle.finish(status)

    async def aclose(self) -> None:
        await self._handle.aclose()


class FailingStore(headgate.MemoryStore):
    def __init__(self, *errors: Exception) -> None:
        super().__init__()
        self._errors = list(errors)

    async def open_run(self, run: str, fingerprints: Mapping[str, str], **how: Collection[str]) -> FailingHandle:  # type: ignore[override]
        return FailingHandle(await super().open_run(run, fingerprints, **how), self._errors)


@pytest.mark.parametrize(
    "error", [StoreError("the disk is gone"), OSError(5, "input/output error")], ids=["StoreError", "OSError"]
)
def test_t27_swallowed_checkpoint(error: Exception) -> None:
    """Elsewhere an OSError at the checkpoint was logged, the run "succeeded", and the rows were gone."""
    provider = provider_of(latency=Latency(mean_s=1))
    store = FailingStore(error)
    with pytest.raises(type(error)) as raised:
        run_virtual(lambda: headgate.amap(asking(provider), 20, model="acme/m", store=store))
    assert raised.value is error
    assert store.read_info("ask").status != "completed"


def test_t27_a_store_that_comes_back_loses_nothing() -> None:
    """The same with an error that may pass: asked again, and every row is there in the end."""
    provider = provider_of(latency=Latency(mean_s=1))
    store = FailingStore(*(StoreUnavailable("away") for _ in range(5)))
    report = run_virtual(lambda: headgate.amap(asking(provider), 20, model="acme/m", store=store))
    assert report.done == 20
    assert len(list(report.results())) == 20


def test_t27_a_store_that_stays_away_ends_the_run() -> None:
    """And not for ever: after a bounded time the run ends with the store's own error."""
    provider = provider_of(latency=Latency(mean_s=1))
    store = FailingStore(*(StoreUnavailable("away") for _ in range(1000)))

    async def main() -> float:
        with pytest.raises(StoreUnavailable):
            await headgate.amap(asking(provider), 20, model="acme/m", store=store)
        return anyio.current_time()

    assert 30 < run_virtual(main) < 300


def yields_of(monkeypatch: pytest.MonkeyPatch, rows: int, concurrency: int) -> int:
    """How often the engine gives the loop a turn that nobody asked for, in a run over so many rows."""
    provider = provider_of(latency=Latency(mean_s=1, sigma=0.5))
    count = 0
    real = anyio.lowlevel.checkpoint

    async def counted() -> None:
        nonlocal count
        count += 1
        await real()

    limits = {"acme/m": {"concurrency": concurrency}}
    with monkeypatch.context() as patch:
        patch.setattr(anyio.lowlevel, "checkpoint", counted)
        patch.setattr("headgate.engine.main_loop.checkpoint", counted)
        patch.setattr("headgate.engine.turnstile.checkpoint", counted)
        report = run_virtual(lambda: headgate.amap(asking(provider), rows, model="acme/m", limits=limits))
    assert report.done == rows
    return count


def test_t29_unconditional_yield(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere sleep(0) followed every dispatched batch, whatever the pressure. Here only a step that had to stop
    before it was finished yields, and those that wait for the next turn at the turnstile, all together.
    """
    assert yields_of(monkeypatch, rows=60, concurrency=4) <= 1  # the first intake of rows
    start = yields_of(monkeypatch, rows=2000, concurrency=1000)
    assert 0 < start <= 1000  # a thousand workers that begin at once leave turns in between
    steady = yields_of(monkeypatch, rows=4000, concurrency=1000) - start
    assert steady <= 2000 / 16


def test_t30_budget_re_derived() -> None:
    """Elsewhere the scheduler guessed the start-up ramp from the configuration, and would disagree after a change.

    Here it asks the gate: what flies follows the ramp, then a lower limit, then a higher one, at once.
    """
    provider = provider_of(latency=Latency(mean_s=1))
    flying: list[tuple[float, int]] = []

    async def main() -> headgate.RunReport:
        limits = {"acme/m": {"concurrency": 20, "startup_ramp": 40}}
        async with headgate.Engine(limits=limits, seed=1) as engine:
            pipeline = headgate.Pipeline("ramp")

            @pipeline.column(model="acme/m")
            async def ask(row: int) -> str:
                pressure = engine.admission.pressure(MODEL)
                assert (pressure.waiting, pressure.bids <= 1) == (0, True)
                flying.append((anyio.current_time(), pressure.in_flight))
                return (await provider.chat("m", f"question {row}")).text

            run = await engine.start(pipeline, 1000)
            await anyio.sleep(20)
            engine.admission.set_limits("acme/m", {"concurrency": 3})
            await anyio.sleep(20)
            engine.admission.set_limits("acme/m", {"concurrency": 30})
            return await run.wait()

    report = run_virtual(main)
    assert report.done == 1000
    assert dict(report.resources[0].outcomes) == {"success": 1000}
    assert all(n <= 1 + 20 / 40 * t for t, n in flying if t < 20)
    assert all(n <= 3 for t, n in flying if 22 < t < 39)
    assert max(n for t, n in flying if t > 42) == 30
    assert max(n for t, n in flying if 18 < t < 20) >= 9  # the ramp is used, not only kept


def test_t50_rename_without_fsync_of_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere files had zero bytes after power loss. Here the file is flushed, then renamed, then its folder."""
    done: list[str] = []
    flush, rename = os.fsync, Path.replace

    def flushed(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        flush(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        done.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", renamed)
    assert headgate.write_jsonl(tmp_path / "out.jsonl", iter([{"row": 0}])) == 1
    assert done == ["file", "rename", "folder"]
    assert [file.name for file in tmp_path.iterdir()] == ["out.jsonl"]


@pytest.mark.parametrize("how", ["rejected", "blocked"])
def test_t26_a_resource_that_closes_later_leaves_the_window_to_the_others(how: Literal["rejected", "blocked"]) -> None:
    """T26: what waits for a closed resource is no load, also when it closes long after the run began."""
    rows = 400
    good: list[float] = []

    class RefusedError(Exception):
        status_code = 429
        response = SimpleNamespace(status_code=429, headers={"retry-after": "500"})

    async def main() -> headgate.RunReport:
        limits = {"*": headgate.Limits(concurrency=4)}
        async with headgate.Engine(limits=limits, seed=1) as engine:
            pipeline = headgate.Pipeline("two")

            @pipeline.column(model="acme/good")
            async def fine(row: int) -> int:
                await anyio.sleep(0.1)
                good.append(anyio.current_time())
                return row

            @pipeline.column(model="acme/bad")
            async def poor(row: int) -> int:
                await anyio.sleep(0.1)
                if how == "rejected" and 2 < anyio.current_time() < 400:
                    raise RefusedError
                return row

            run = await engine.start(pipeline, rows)
            await anyio.sleep(2)
            if how == "blocked":
                engine.admission.block("acme/bad", 500.0)
            return await run.wait()

    report = run_virtual(main)
    assert report.done == rows
    assert len(good) == rows
    assert max(good) < 100
