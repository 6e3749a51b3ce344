"""Docstrings as Markdown: roles become links, examples become code."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import griffe

if TYPE_CHECKING:
    from griffe import Module, Object

ROLE = re.compile(r":(?:class|func|meth|mod|attr|exc):`(~?)([\w.]+)`")
EXAMPLE = re.compile(r"(?:^>>> .*\n?(?:^(?!>>> )\S.*\n?|^\.\.\. ?.*\n?|^>>> .*\n?)*)", re.MULTILINE)
SKIPPED = re.compile(r"  # doctest: \+\w+")


class AsMarkdown(griffe.Extension):
    """Changes each docstring once, when everything is loaded."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Called by griffe for each module, class, function and attribute below the package."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)

    def on_package(self, *, pkg: Module, **kwargs: Any) -> None:
        """Called by griffe for the package itself."""
        self.on_object(obj=pkg)


def as_markdown(text: str) -> str:
    """A docstring in the way that reStructuredText has it, as Markdown has it.

    >>> as_markdown("See :func:`headgate.run`.")
    'See `headgate.run`.'
    """
    text = ROLE.sub(lambda found: f"`{found[2].rpartition('.')[2] if found[1] else found[2]}`", text)
    text = EXAMPLE.sub(lambda found: f"```pycon\n{SKIPPED.sub('', found[0]).rstrip()}\n```\n", text)
    return re.sub(r"::\n\n", ":\n\n", text)
