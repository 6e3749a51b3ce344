"""How loud an event is."""

from __future__ import annotations

from typing import Literal

__all__ = ["Level"]

Level = Literal["debug", "info", "warning", "error"]
"""How loud an event is, in the terms of logs. ``error`` is for what somebody should act on."""
