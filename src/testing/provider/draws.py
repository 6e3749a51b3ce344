"""Random numbers that depend on what is asked, not on when: a stable hash of seed, model, content and
attempt.

Two runs with the same seed give the same request the same latency, length and fault, whatever arrived in
between, in whichever process. blake2b stands in for a generator: one digest holds all the numbers that a
request needs.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

__all__ = ["Draws", "content_digest", "draw", "lognormal"]

NUMBERS: Final = struct.Struct("<6Q")
SCALE: Final = 2.0**-64
UNIT: Final = 2.0**-53


@dataclass(frozen=True, slots=True)
class Draws:
    """The random numbers of one attempt: ``fault`` in [0, 1), two standard normal, 64 bits for answers."""

    fault: float
    latency: float
    length: float
    tag: int


def content_digest(content: str) -> bytes:
    """Return the 16 bytes under which a content is counted."""
    # Half a surrogate pair is content, too: json reads it out of a body.
    return blake2b(content.encode(errors="surrogatepass"), digest_size=16).digest()


def draw(seed: int, model: str, content: bytes, attempt: int) -> Draws:
    """Return the numbers of the ``attempt``-th (from 0) accepted request for the content of that digest."""
    key = f"{seed}\0{attempt}\0{model}".encode()
    a, b, c, d, fault, tag = NUMBERS.unpack(blake2b(content + key, digest_size=NUMBERS.size).digest())
    return Draws((fault >> 11) * UNIT, _normal(a, b), _normal(c, d), tag)


def lognormal(mean: float, sigma: float, normal: float) -> float:
    """Return the lognormal value for a normal number; ``mean`` is that of the values, not of the logs."""
    return mean * math.exp(sigma * normal - sigma * sigma / 2) if sigma else mean


def _normal(a: int, b: int) -> float:
    """Box and Muller's transform of two 64-bit numbers; the first is kept off zero."""
    return math.sqrt(-2 * math.log((a + 1) * SCALE)) * math.cos(2 * math.pi * b * SCALE)
