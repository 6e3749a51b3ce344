"""Serve verdicts: ``python -m headgate.testing.analysis``.

Reads a line of JSON (:class:`~headgate.testing.analysis.spec.AnalysisSpec`) from standard input, prints its port, and
serves until standard input closes.
"""

from __future__ import annotations

import asyncio
import sys

from .server import serve

if __name__ == "__main__":
    asyncio.run(serve(sys.stdin.readline()))
