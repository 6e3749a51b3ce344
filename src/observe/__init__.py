"""Watching a run: the live view. It reads, and changes nothing."""

from __future__ import annotations

from .progress import progress_line, watch

__all__ = ["progress_line", "watch"]
