"""The pictures of the benchmarks as files of the documentation, without a copy in the repository."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

PICTURES = Path(__file__).resolve().parents[2] / "benchmarks" / "pictures"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by mkdocs once it knows the pages."""
    for picture in sorted(PICTURES.glob("*.svg")):
        files.append(File.generated(config, f"pictures/{picture.name}", abs_src_path=str(picture)))
    return files
