"""The index of the search holds every page, and what the reference says of each public name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.exceptions import PluginError

import headgate

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.nav import Navigation

_pages: list[str] = []


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> None:
    """Called by mkdocs once it knows the order of the pages."""
    _pages[:] = [page.url for page in nav.pages]


def on_post_build(config: MkDocsConfig) -> None:
    """Called by mkdocs when all is written. Raises PluginError where a page or a name cannot be found."""
    index = json.loads((Path(config.site_dir) / "search" / "search_index.json").read_text(encoding="utf-8"))
    found = {entry["location"] for entry in index["docs"] if entry["text"] or entry["title"]}
    wanted = {*_pages, *(f"reference/headgate.html#headgate.{name}" for name in vars(headgate)["__all__"])}
    if missing := sorted(wanted - found - {"reference/headgate.html#headgate.__version__"}):
        raise PluginError(f"the search index does not hold: {', '.join(missing)}")
