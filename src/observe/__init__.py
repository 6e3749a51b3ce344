"""Watching a run: the live view, events as a log, telemetry. It reads, and changes nothing."""

from __future__ import annotations

from .event_log import event_log
from .progress import live, progress_line, watch
from .telemetry import Telemetry

__all__ = ["Telemetry", "event_log", "live", "progress_line", "watch"]
