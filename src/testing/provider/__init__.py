"""A model provider to test against: exact limits, known dialects, faults by seed, and an account of every
request.

The same :class:`ProviderModel` is served twice: :class:`VirtualProvider` in process on (virtual) anyio time,
and :class:`ProviderProcess` as an OpenAI-compatible HTTP server in a process of its own (needs the extra
``testing``). By hand: ``python -m headgate.testing.provider --spec provider.json --port 8000``.
"""

from __future__ import annotations

from .dialects import Dialect, RetryAfter
from .model import ProviderModel
from .process import ProviderProcess, ProviderStartError
from .spec import (
    Capacity,
    Change,
    Control,
    Faults,
    Latency,
    ModelSpec,
    OutputTokens,
    ProviderSpec,
)
from .timeline import Slice
from .values import (
    Accepted,
    ContentCount,
    Decision,
    Fault,
    ModelStats,
    ProviderLimit,
    ProviderRequest,
    ProviderStats,
    QuotaState,
    Rejected,
    TokenCharge,
    Window,
)
from .virtual import Answer, ProviderResponse, ProviderResponseError, VirtualProvider

__all__ = [
    "Accepted",
    "Answer",
    "Capacity",
    "Change",
    "ContentCount",
    "Control",
    "Decision",
    "Dialect",
    "Fault",
    "Faults",
    "Latency",
    "ModelSpec",
    "ModelStats",
    "OutputTokens",
    "ProviderLimit",
    "ProviderModel",
    "ProviderProcess",
    "ProviderRequest",
    "ProviderResponse",
    "ProviderResponseError",
    "ProviderSpec",
    "ProviderStartError",
    "ProviderStats",
    "QuotaState",
    "Rejected",
    "RetryAfter",
    "Slice",
    "TokenCharge",
    "VirtualProvider",
    "Window",
]
