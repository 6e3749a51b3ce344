"""Metrics and traces through OpenTelemetry: a sink of events, and so nothing at all where nobody asked for it.

A trace is one run: row groups in it, cells in these, requests in these, with those of attached clients. Group tasks are
cells of their row group. Spans carry the times of the events, and are kept only while what they are about is open.
While a body is called its cell's span is the current one, so that spans which it makes itself are children of the cell.
Needs the extra ``otel``; which exporters there are is the program's own business, through OpenTelemetry's SDK.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from ..events import (
    CellEnded,
    GroupEnded,
    PaceChanged,
    RequestEnded,
    RequestStarted,
    RowFinished,
    RowOpened,
    RunEnded,
    RunStarted,
    TaskHeld,
    TaskStarted,
)
from ..values import ResourceKey
from . import conventions as names

if TYPE_CHECKING:
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

    from ..events import Event

__all__ = ["Telemetry"]

_NS = 1_000_000_000
_Unit = tuple[str, int | None, int | None]  # column, and the row or the group of a task


@dataclass(slots=True)
class _Trace:
    """The open spans of one run. ``rows`` counts the open rows of each group, ``group_of`` says where a row belongs.
    ``around`` is what was current where the run was started: baggage, say."""

    run: Span
    around: Context
    groups: dict[int, Span] = field(default_factory=dict[int, "Span"])
    rows: dict[int, int] = field(default_factory=dict[int, int])
    group_of: dict[int, int] = field(default_factory=dict[int, int])
    cells: dict[_Unit, Span] = field(default_factory=dict[_Unit, "Span"])
    requests: dict[int, Span] = field(default_factory=dict[int, "Span"])
    newest: int = -1


class Telemetry:
    """A sink, to be given as ``events=``. Providers default to those that the program has set for OpenTelemetry.

    Runs are told apart by their names: give runs of one name that go on at once, in several engines, one each.

    Raises ImportError that says what to install where OpenTelemetry is missing.
    """

    def __init__(
        self, *, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        try:
            from opentelemetry import context, metrics, trace
        except ImportError as error:
            raise ImportError("telemetry needs OpenTelemetry: pip install 'headgate[otel]'") from error
        self._api = trace
        self._context = context
        self._tracer = trace.get_tracer("headgate", tracer_provider=tracer_provider)
        meter = metrics.get_meter("headgate", meter_provider=meter_provider)
        self._meters: dict[str, Any] = {
            one.name: getattr(meter, f"create_{one.kind}")(one.name, unit=one.unit, description=one.meaning)
            for one in names.METRICS
        }
        self._traces: dict[str, _Trace] = {}
        self._attributes: dict[str, dict[str, str]] = {}

    def __call__(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case RunStarted():
                span = self._span(names.RUN_SPAN, None, event.at, {names.RUN: event.run})
                self._traces[event.run] = _Trace(span, self._context.get_current())
            case RequestStarted():
                self._request_started(event)
            case RequestEnded():
                self._request_ended(event)
            case TaskHeld():
                self._meters[names.HELD.name].add(1, {names.COLUMN: event.column, names.ERROR_TYPE: event.reason})
            case PaceChanged(limit=limit):
                if limit is not None:
                    self._meters[names.LIMIT.name].set(limit, self._of(event.resource))
            case CellEnded():
                self._meters[names.CELLS.name].add(1, {names.COLUMN: event.column, names.OUTCOME: event.outcome})
                self._end_cell(event.run, (event.column, event.row, None), event.outcome, event.at)
            case GroupEnded():
                self._end_cell(event.run, (event.column, None, event.group), event.outcome, event.at)
            case RowOpened() | RowFinished() | TaskStarted() | RunEnded():
                self._trace(event)
            case _:
                pass

    # Bodies

    def enter_body(self, run: str, column: str, row: int | None, group: int | None) -> object:
        """A body is called in this task: make the span of its cell the current one. See :class:`BodySink`."""
        trace = self._traces.get(run)
        if trace is None:
            return None
        span = trace.cells.get((column, row, group), trace.run)
        return self._context.attach(self._api.set_span_in_context(span, trace.around))

    def leave_body(self, entered: object) -> None:
        """It has returned, in the same task."""
        if entered is not None:
            self._context.detach(cast("Token[Context]", entered))

    # Traces

    def _trace(self, event: RowOpened | RowFinished | TaskStarted | RunEnded) -> None:
        trace = self._traces.get(event.run)
        if trace is None:
            return
        match event:
            case RowOpened():
                self._row_opened(trace, event)
            case RowFinished():
                group = trace.group_of.pop(event.row, None)
                if group is not None:
                    trace.rows[group] -= 1
                    if not trace.rows[group] and group != trace.newest:  # nothing more comes to an older one
                        self._end_group(trace, group, event.at)
            case TaskStarted():
                self._task_started(trace, event)
            case RunEnded():
                self._run_ended(trace, event)

    def _row_opened(self, trace: _Trace, event: RowOpened) -> None:
        group = trace.group_of[event.row] = trace.newest = event.group
        if group not in trace.groups:
            attributes = {names.RUN: event.run, names.GROUP: group}
            trace.groups[group] = self._span(names.GROUP_SPAN, trace.run, event.at, attributes)
            for older in [one for one, left in trace.rows.items() if not left]:
                self._end_group(trace, older, event.at)
        trace.rows[group] = trace.rows.get(group, 0) + 1

    def _task_started(self, trace: _Trace, event: TaskStarted) -> None:
        unit = (event.column, event.row, event.group)
        if unit in trace.cells:
            return  # it was held back, and is tried again
        group = trace.group_of.get(event.row) if event.row is not None else event.group
        parent = trace.run if group is None else trace.groups.get(group, trace.run)
        attributes: dict[str, Any] = {names.COLUMN: event.column, names.RUN: event.run}
        if event.row is not None:
            attributes[names.ROW] = event.row
        trace.cells[unit] = self._span(names.CELL_SPAN, parent, event.at, attributes)

    def _run_ended(self, trace: _Trace, event: RunEnded) -> None:
        for span in (*trace.requests.values(), *trace.cells.values(), *trace.groups.values()):
            span.end(round(event.at * _NS))
        trace.run.set_attribute(names.STATUS, event.status)
        if event.error:
            trace.run.set_status(self._api.Status(self._api.StatusCode.ERROR, event.error))
        trace.run.end(round(event.at * _NS))
        del self._traces[event.run]

    def _end_group(self, trace: _Trace, group: int, at: float) -> None:
        del trace.rows[group]
        trace.groups.pop(group).end(round(at * _NS))

    def _end_cell(self, run: str, unit: _Unit, outcome: str, at: float) -> None:
        trace = self._traces.get(run)
        span = None if trace is None else trace.cells.pop(unit, None)
        if span is not None:
            span.set_attribute(names.OUTCOME, outcome)
            if outcome == "failed":
                span.set_status(self._api.Status(self._api.StatusCode.ERROR))
            span.end(round(at * _NS))

    def _span(self, name: str, parent: Span | None, at: float, attributes: dict[str, Any], **how: Any) -> Span:
        context = None if parent is None else self._api.set_span_in_context(parent)
        return self._tracer.start_span(name, context, attributes=attributes, start_time=round(at * _NS), **how)

    # Requests

    def _request_started(self, event: RequestStarted) -> None:
        said = self._of(event.resource)
        self._meters[names.QUEUE_TIME.name].record(event.waited_s, said)
        self._meters[names.IN_FLIGHT.name].add(1, said)
        trace = self._traces.get(event.run)
        if trace is not None:
            parent = trace.cells.get((event.column, event.row, event.group), trace.run)
            name = f"{said[names.OPERATION]} {said[names.MODEL]}"
            client = self._api.SpanKind.CLIENT
            trace.requests[event.lease] = self._span(name, parent, event.at, dict(said), kind=client)

    def _request_ended(self, event: RequestEnded) -> None:
        said = self._of(event.resource)
        failed = {} if event.outcome == "success" else {names.ERROR_TYPE: event.outcome}
        self._meters[names.IN_FLIGHT.name].add(-1, said)
        self._meters[names.REQUEST_TIME.name].record(event.seconds, {**said, **failed})
        used = {"input": event.input_tokens, "output": event.output_tokens}
        for kind, tokens in used.items():
            if tokens is not None:
                self._meters[names.TOKENS.name].record(tokens, {**said, names.TOKEN_TYPE: kind})
        trace = self._traces.get(event.run)
        span = None if trace is None else trace.requests.pop(event.lease, None)
        if span is not None:
            span.set_attributes(failed)
            if event.input_tokens is not None and event.output_tokens is not None:
                span.set_attribute(names.INPUT_TOKENS, event.input_tokens)
                span.set_attribute(names.OUTPUT_TOKENS, event.output_tokens)
            if failed:
                span.set_status(self._api.Status(self._api.StatusCode.ERROR))
            span.end(round(event.at * _NS))

    def _of(self, resource: str) -> dict[str, str]:
        """What the conventions want to know of ``resource``; there are few, so it is found out once."""
        found = self._attributes.get(resource)
        if found is None:
            key = ResourceKey.parse(resource)
            operation = names.OPERATIONS.get(key.domain, key.domain)
            found = {names.OPERATION: operation, names.PROVIDER: key.provider, names.MODEL: key.model}
            self._attributes[resource] = found
        return found
