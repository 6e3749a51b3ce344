"""Reports on runs, read from their stores: what became of them, in sum and over time, as a page, Markdown or data.

The figures over time are kept by the run itself, with the record of what it learned: from 10 seconds after its start on
about each minute, and at its end. A run of which several engines do a part each keeps none.
"""

from __future__ import annotations

from .data import as_json
from .figures import ResourceFigures, RunFigures
from .markdown import as_markdown
from .page import as_html
from .reading import StoredReport, read_report

__all__ = ["ResourceFigures", "RunFigures", "StoredReport", "as_html", "as_json", "as_markdown", "read_report"]
