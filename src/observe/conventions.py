"""The names of what telemetry says, in one place: OpenTelemetry's conventions for generative AI, and our own.

Instruments of the conventions are ``gen_ai.*``; what they have no name for is ``headgate.*``. Units are UCUM: ``s`` are
seconds, ``{token}`` and the like are counts.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = [
    "CELLS",
    "CELL_SPAN",
    "COLUMN",
    "ERROR_TYPE",
    "GROUP",
    "GROUP_SPAN",
    "HELD",
    "INPUT_TOKENS",
    "IN_FLIGHT",
    "LIMIT",
    "METRICS",
    "MODEL",
    "OPERATION",
    "OPERATIONS",
    "OUTCOME",
    "OUTPUT_TOKENS",
    "PROVIDER",
    "QUEUE_TIME",
    "REQUEST_TIME",
    "RESOURCE",
    "ROW",
    "RUN",
    "RUN_SPAN",
    "STATUS",
    "TOKENS",
    "TOKEN_TYPE",
    "Metric",
]


class Metric(NamedTuple):
    """One instrument; ``kind`` is ``histogram``, ``counter``, ``up_down_counter`` or ``gauge``."""

    name: str
    unit: str
    kind: str
    meaning: str


TOKENS: Final = Metric("gen_ai.client.token.usage", "{token}", "histogram", "Tokens of one request, by type.")
REQUEST_TIME: Final = Metric(
    "gen_ai.client.operation.duration", "s", "histogram", "From lease to answer, of one request."
)
QUEUE_TIME: Final = Metric("headgate.request.queue.duration", "s", "histogram", "Wait of one request for its lease.")
IN_FLIGHT: Final = Metric("headgate.request.in_flight", "{request}", "up_down_counter", "Requests in flight.")
LIMIT: Final = Metric("headgate.resource.limit", "{request}", "gauge", "Concurrency limit, where there is one.")
CELLS: Final = Metric("headgate.cell.ended", "{cell}", "counter", "Cells that ended, by outcome, once committed.")
HELD: Final = Metric("headgate.task.held", "{task}", "counter", "Tasks that were held back, by reason.")

METRICS: Final = (TOKENS, REQUEST_TIME, QUEUE_TIME, IN_FLIGHT, LIMIT, CELLS, HELD)
"""All of them."""

RUN_SPAN: Final = "headgate.run"
GROUP_SPAN: Final = "headgate.row_group"
CELL_SPAN: Final = "headgate.cell"
"""Spans; that of a request is called by its operation and model, as the conventions want."""

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
MODEL: Final = "gen_ai.request.model"
TOKEN_TYPE: Final = "gen_ai.token.type"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
ERROR_TYPE: Final = "error.type"
RUN: Final = "headgate.run.name"
STATUS: Final = "headgate.run.status"
COLUMN: Final = "headgate.column"
ROW: Final = "headgate.row"
GROUP: Final = "headgate.row_group.number"
OUTCOME: Final = "headgate.outcome"
RESOURCE: Final = "headgate.resource"

OPERATIONS: Final = {"chat": "chat", "embedding": "embeddings", "completion": "text_completion"}
"""The conventions' word for the kind of call; others keep ours."""
