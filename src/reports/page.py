"""A report as one HTML file that opens offline: charts by plotly.js, which the file brings along.

The page's policy lets only the two scripts run whose digests it names, and load nothing. What comes from outside is
escaped where it is put into the page (:mod:`.sections`); a message that was taken for HTML would still do no harm.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from html import escape
from importlib import import_module
from typing import TYPE_CHECKING

from ..errors import ConfigError
from ..storage.codec import encode
from .sections import body

if TYPE_CHECKING:
    from .charts import Chart
    from .reading import StoredReport

__all__ = ["as_html"]


def as_html(report: StoredReport) -> str:
    """The page, some 5 MB of which the library for charts is the most. Raises ConfigError where plotly is missing."""
    library, script = _plotly(), _part("page.js")
    drawn: list[Chart] = []
    told = body(report, drawn)
    data = encode(drawn).decode().replace("<", "\\u003c")
    scripts = " ".join(f"'sha256-{b64encode(sha256(one.encode()).digest()).decode()}'" for one in (library, script))
    policy = f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{escape(report.overview.info.run)} \u2013 headgate</title>
<link rel="icon" href="data:,">
<style>
{_part("page.css")}</style>
</head>
<body>
<main>
{told}
</main>
<script type="application/json" id="charts">{data}</script>
<script>{library}</script>
<script>{script}</script>
</body>
</html>
"""


def _part(name: str) -> str:
    from importlib.resources import files  # takes 10 ms, and nobody else needs it

    return files("headgate.reports").joinpath(name).read_text(encoding="utf-8")


def _plotly() -> str:
    try:
        plotly = import_module("plotly.offline")
    except ImportError as error:
        raise ConfigError("an HTML report needs plotly: pip install 'headgate[report]'") from error
    library: str = plotly.get_plotlyjs()
    assert "</script" not in library.lower(), "it would end the element that it stands in"
    return library
