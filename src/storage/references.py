"""What stands for a large payload in a journal: its digest, its size, and the files that hold it, the newest first.

A reference begins with a byte that JSON never begins with, so it can stand wherever a payload stands. Two references
mean the same payload if digest and size are the same, whatever the files: a repeated commit writes another file, and
then there are two generations to read it from.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

__all__ = ["INLINE_BYTES", "add_generation", "files_of", "holds", "is_reference", "reference", "same_payload"]

INLINE_BYTES: Final = 64 * 1024
"""Larger payloads are files of their own."""

_MARK: Final = b"\0"
_DIGEST_BYTES: Final = 16
_SIZE_BYTES: Final = 8
_HEAD_BYTES: Final = len(_MARK) + _DIGEST_BYTES + _SIZE_BYTES
_GENERATIONS_MAX: Final = 3


def reference(payload: bytes, file: str) -> bytes:
    """Return what stands for ``payload``, which is in ``file``."""
    return _head(payload) + file.encode()


def is_reference(data: bytes | None) -> bool:
    """Whether that is a reference, and no payload."""
    return data is not None and data.startswith(_MARK)


def files_of(data: bytes) -> list[str]:
    """Return the files of a reference, the newest first."""
    return data[_HEAD_BYTES:].decode().split("\n")


def holds(data: bytes, payload: bytes) -> bool:
    """Whether ``payload`` is what the reference stands for."""
    return data[:_HEAD_BYTES] == _head(payload)


def same_payload(one: bytes | None, other: bytes | None) -> bool:
    """Whether both are, or stand for, the same payload."""
    if is_reference(one) and is_reference(other):
        assert one is not None
        assert other is not None
        return one[:_HEAD_BYTES] == other[:_HEAD_BYTES]
    return one == other


def add_generation(data: bytes, newer: bytes) -> bytes:
    """Return a reference to the files of both, which stand for the same payload; the oldest are forgotten."""
    assert same_payload(data, newer)
    files = dict.fromkeys((*files_of(newer), *files_of(data)))
    return data[:_HEAD_BYTES] + "\n".join(list(files)[:_GENERATIONS_MAX]).encode()


def _head(payload: bytes) -> bytes:
    digest = blake2b(payload, digest_size=_DIGEST_BYTES).digest()
    return b"".join((_MARK, digest, len(payload).to_bytes(_SIZE_BYTES, "big")))
