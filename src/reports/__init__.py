"""Reports on runs, read from their stores: what became of them, over time and in sum, as a page, Markdown or data."""

from __future__ import annotations

__all__: list[str] = []
