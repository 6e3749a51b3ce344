"""Admission control, scheduling and salvage for programs that build data sets with model APIs."""

from __future__ import annotations

__all__: list[str] = []
