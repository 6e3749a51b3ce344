"""May this request go out now, and what did its answer teach: limits, leases, cooldowns, fair queues.

:class:`AdmissionController` waits; :class:`Gate` underneath only decides.
"""

from __future__ import annotations

from .answers import Bidder
from .controller import AdmissionController
from .gate import Gate
from .headers import parse_feedback
from .limits import ConcurrencyRange, Limits
from .limits_book import LimitsBook, LimitsSource, load_limits
from .scope_limits import ScopeLimits
from .values import Denied, DenyReason, Expire, Grant, Lease, Refuse, ReleaseResult, Request

__all__ = [
    "AdmissionController",
    "Bidder",
    "ConcurrencyRange",
    "Denied",
    "DenyReason",
    "Expire",
    "Gate",
    "Grant",
    "Lease",
    "Limits",
    "LimitsBook",
    "LimitsSource",
    "Refuse",
    "ReleaseResult",
    "Request",
    "ScopeLimits",
    "load_limits",
    "parse_feedback",
]
