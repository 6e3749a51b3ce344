"""Metrics and traces: read as their readers do, over HTTP and from finished spans. Off, nothing of it is there."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections import Counter
from typing import TYPE_CHECKING

import anyio
import prometheus_client
import pytest
from opentelemetry import trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

import headgate
from headgate.observe import Telemetry, conventions
from headgate.testing import run_virtual

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from headgate.events import Event


def pipeline() -> headgate.Pipeline:
    """A column that asks twice a row, fails once for good and once for a while; a group column over it."""
    built = headgate.Pipeline("told")
    failed: list[int] = []

    @built.column(model="openai/gpt-x")
    async def a(row: int) -> int:
        async with headgate.request("openai/gpt-x") as lease:
            await anyio.sleep(1.0)
            lease.report(usage={"input_tokens": 7, "output_tokens": 3})
        async with headgate.request("openai/gpt-y:embedding") as lease:
            lease.report(usage={"input_tokens": 5, "output_tokens": 0})
        if row == 2 and not failed:
            failed.append(row)
            raise ConnectionResetError
        if row == 3:
            raise ValueError
        return row

    @built.column(scope="group")
    async def b(a: list[int]) -> list[int]:
        return a

    return built


def told(spans: InMemorySpanExporter | None = None, meters: MeterProvider | None = None) -> headgate.RunReport:
    tracers = TracerProvider()
    if spans is not None:
        tracers.add_span_processor(SimpleSpanProcessor(spans))
    telemetry = Telemetry(tracer_provider=tracers, meter_provider=meters or MeterProvider())

    async def main() -> headgate.RunReport:
        async with headgate.Engine(seed=1, events=telemetry) as engine:
            run = await engine.start(pipeline(), 10, group_size=4)
            return await run.wait()

    return run_virtual(main)


def named(spans: tuple[ReadableSpan, ...], name: str) -> list[ReadableSpan]:
    return [span for span in spans if span.name == name]


def parents(spans: tuple[ReadableSpan, ...]) -> dict[int, ReadableSpan]:
    return {span.context.span_id: span for span in spans if span.context is not None}


def test_a_trace_is_a_run_with_row_groups_cells_and_requests() -> None:
    exporter = InMemorySpanExporter()
    report = told(exporter)
    spans = exporter.get_finished_spans()
    by_id = parents(spans)
    nesting = Counter((by_id[span.parent.span_id].name if span.parent is not None else "", span.name) for span in spans)
    assert nesting == {
        ("", "headgate.run"): 1,
        ("headgate.run", "headgate.row_group"): 3,
        ("headgate.row_group", "headgate.cell"): 10 + 3,
        ("headgate.cell", "chat gpt-x"): 11,
        ("headgate.cell", "embeddings gpt-y"): 11,
    }
    assert len({span.context.trace_id for span in spans if span.context is not None}) == 1
    for span in spans:
        assert span.start_time is not None
        assert span.end_time is not None
        if span.parent is not None:
            outer = by_id[span.parent.span_id]
            assert outer.start_time is not None
            assert outer.end_time is not None
            assert outer.start_time <= span.start_time <= span.end_time <= outer.end_time
    (run,) = named(spans, "headgate.run")
    assert run.attributes is not None
    assert run.attributes[conventions.STATUS] == report.status.value
    failed = [span for span in named(spans, "headgate.cell") if span.status.status_code is StatusCode.ERROR]
    assert [span.attributes and span.attributes[conventions.ROW] for span in failed] == [3]
    chat = named(spans, "chat gpt-x")[0].attributes
    assert chat is not None
    assert dict(chat) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-x",
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 3,
    }


# What bodies do themselves


def bodies(tracers: TracerProvider) -> headgate.Pipeline:
    """Columns whose bodies make spans: async, in a worker thread, for a group; some fail, or outlive their time."""
    built, tracer, tried = headgate.Pipeline("own"), tracers.get_tracer("users"), set[int]()

    @built.column(model="openai/gpt-x", timeout=5.0)
    async def a(row: int) -> int:
        with tracer.start_as_current_span(f"a {row}"):
            await anyio.sleep(60.0 if row == 3 else 0.01)
            if row == 2 and row not in tried:
                tried.add(row)
                raise ConnectionResetError
        return row

    @built.column
    def b(a: int) -> int:
        with tracer.start_as_current_span(f"b {a}"):
            return a

    @built.column(scope="group")
    async def c(b: list[int]) -> list[int]:
        with tracer.start_as_current_span("c"):
            return b

    return built


@pytest.mark.parametrize("virtual", [True, False])
def test_spans_of_a_body_are_children_of_its_cell(*, virtual: bool) -> None:
    """In virtual time with a body that is cancelled, and in real time with threads. After a body nothing is current."""
    exporter, tracers = InMemorySpanExporter(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry = Telemetry(tracer_provider=tracers, meter_provider=MeterProvider())
    left: list[object] = []

    def after(event: Event) -> None:
        if event.kind in {"request_ended", "batch_committed"}:
            left.append(trace.get_current_span())

    async def main() -> headgate.RunReport:
        async with headgate.Engine(seed=1, events=[telemetry, after]) as engine:
            run = await engine.start(bodies(tracers), 4 if virtual else 2, group_size=2, patience=30.0)
            return await run.wait()

    with tracers.get_tracer("users").start_as_current_span("program") as program:
        report = run_virtual(main) if virtual else anyio.run(main)
    spans = exporter.get_finished_spans()
    by_id, own = parents(spans), [span for span in spans if span.name.split()[0] in {"a", "b", "c"}]
    for span in own:
        assert span.parent is not None
        cell = by_id[span.parent.span_id]
        assert cell.name == "headgate.cell"
        assert cell.attributes is not None
        column, *row = span.name.split()
        assert cell.attributes[conventions.COLUMN] == column
        assert [str(cell.attributes[conventions.ROW])] == row if row else conventions.ROW not in cell.attributes
    asked = Counter(span.name for span in own)
    if virtual:
        assert (report.done, report.held) == (2, 2), "one is never done, and its group with it"
        assert asked["a 2"] == 2, "one cell, tried twice"
        assert asked["a 3"] >= 1
    else:
        assert report.done == 2
        assert asked == {"a 0": 1, "a 1": 1, "b 0": 1, "b 1": 1, "c": 1}
    (run,) = named(spans, "headgate.run")
    assert run.parent is not None
    assert run.parent.span_id == program.get_span_context().span_id
    assert left
    assert set(left) == {program}


def test_a_sink_that_breaks_around_a_body_is_let_go_and_the_body_runs() -> None:
    heard: list[str] = []

    class Breaks:
        def __init__(self, where: str) -> None:
            self.where = where

        def __call__(self, event: Event) -> None:
            heard.append(self.where)

        def enter_body(self, run: str, column: str, row: int | None, group: int | None) -> object:
            assert self.where != "enter"
            return self

        def leave_body(self, entered: object) -> None:
            assert entered is self
            assert self.where != "leave"

    async def body(row: int) -> int:
        heard.append("body")
        return row

    report = headgate.map(body, 3, events=[Breaks("enter"), Breaks("leave"), Breaks("never")])
    assert report.done == 3
    first = heard.index("body")
    assert "enter" not in heard[first:]
    assert heard.count("leave") < heard.count("never")
    assert heard[-1] == "never"


def test_metrics_are_read_over_http() -> None:
    """As Prometheus reads them, through the exporter of OpenTelemetry's SDK."""
    registry = prometheus_client.REGISTRY
    reader = PrometheusMetricReader()
    meters = MeterProvider(metric_readers=[reader])
    server, thread = prometheus_client.start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        told(meters=meters)
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=30) as answer:
            page = answer.read().decode()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        meters.shutdown()
    lines = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line[:1] != "#"}

    def value(name: str, *labels: str) -> float:
        found = [number for key, number in lines.items() if key.startswith(name) and all(one in key for one in labels)]
        return sum(found)

    chat = 'gen_ai_request_model="gpt-x"'
    assert value("gen_ai_client_token_usage_sum", chat, 'gen_ai_token_type="input"') == 77
    assert value("gen_ai_client_token_usage_sum", chat, 'gen_ai_token_type="output"') == 33
    assert value("gen_ai_client_operation_duration_seconds_count", chat) == 11
    assert value("gen_ai_client_operation_duration_seconds_sum", chat) == pytest.approx(11.0)
    assert value("headgate_request_queue_duration_seconds_count") == 22
    assert value("headgate_request_in_flight") == 0
    assert value("headgate_resource_limit", chat) > 0
    assert value("headgate_cell_ended_total", 'headgate_outcome="done"') == 18
    assert value("headgate_cell_ended_total", 'headgate_outcome="failed"') == 1
    assert value("headgate_task_held_total") == 1


def test_without_opentelemetry_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ImportError, match=r"pip install 'headgate\[otel\]'"):
        Telemetry()


def test_off_nothing_of_it_is_imported() -> None:
    code = (
        "import sys, headgate, headgate.observe\n"
        "def a(row): return row\n"
        "assert headgate.map(a, 3).done == 3\n"
        "assert not [name for name in sys.modules if name.startswith(('opentelemetry', 'genai_prices'))]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
