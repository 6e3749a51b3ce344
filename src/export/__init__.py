"""Results of a run as files: JSON lines and Parquet, in the order of the rows, whole or not at all.

What is not finished is not passed over: failed, held-back and pending rows go to a file beside the results, each with
its reason.
"""

from __future__ import annotations

from .exporting import Export, RunResults, aexport_run, export_run, output_path
from .html import write_html
from .jsonl import write_jsonl
from .parquet import load_pyarrow, write_parquet
from .rows import read_results

__all__ = [
    "Export",
    "RunResults",
    "aexport_run",
    "export_run",
    "load_pyarrow",
    "output_path",
    "read_results",
    "write_html",
    "write_jsonl",
    "write_parquet",
]
