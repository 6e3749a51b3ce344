"""Watching a run: the live view, and events as a log. It reads, and changes nothing."""

from __future__ import annotations

from .event_log import event_log
from .progress import live, progress_line, watch

__all__ = ["event_log", "live", "progress_line", "watch"]
