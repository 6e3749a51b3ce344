"""Fingerprints with a mark: which outcomes they are the fingerprint of.

Outcomes that are kept after a change go on under another fingerprint, so a fingerprint alone does not say which ones a
column had that others read. A mark does: ``+`` and a number behind the fingerprint. All that a column has from one
beginning anew to the next has one mark, whatever its fingerprint becomes, and nothing else of the column has it; none
is there until something begins anew. Those that read the column are made from the fingerprint with its mark.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["digest", "mark", "marked", "reading", "unmarked"]

_DIGEST_BYTES: Final = 5  # a change that is not seen in 40 bits: once in 10**12


def unmarked(fingerprint: str) -> str:
    """Return the fingerprint alone."""
    return fingerprint.partition("+")[0]


def mark(fingerprint: str) -> int:
    """Return its mark, 0 for none."""
    return int(fingerprint.partition("+")[2] or 0)


def marked(plain: str, number: int) -> str:
    """Return a fingerprint that has no mark with this one."""
    return f"{plain}+{number}" if number else plain


def reading(fingerprint: str, read: Mapping[str, str]) -> str:
    """Return the fingerprint of the same column if those that it reads, in their order, had these."""
    return f"{fingerprint.rpartition(':')[0]}:{digest([[name, other] for name, other in read.items()])}"


def digest(part: object) -> str:
    """Return what stands for a part of a fingerprint: the same text in every process."""
    return blake2b(json.dumps(part).encode(), digest_size=_DIGEST_BYTES).hexdigest()
