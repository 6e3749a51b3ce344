"""Clients that somebody else wrote, as they come into the engine: :func:`attach`."""

from __future__ import annotations

from .attaching import attach

__all__ = ["attach"]
