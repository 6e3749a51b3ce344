"""``python -m headgate`` is the command line."""

from __future__ import annotations

from .cli import main

__all__: list[str] = []

main()
