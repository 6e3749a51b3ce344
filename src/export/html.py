"""A report on a run as an HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..reports import as_html
from .files import replacing

if TYPE_CHECKING:
    import os

    from ..reports import StoredReport

__all__ = ["write_html"]


def write_html(report: StoredReport, out: str | os.PathLike[str]) -> Path:
    """Write the page to ``out``, whole or not at all, and return its path. It blocks.

    Raises ConfigError that names the extra to install where plotly is missing, and OSError.
    """
    path, page = Path(out), as_html(report)
    with replacing(path) as file:
        file.write(page.encode("utf-8", "replace"))
    return path
