"""What the checksums of rows and cells in a SQLite file cover: all that is kept of one, and where it belongs.

The pages of the file have no checksums, and a cell is found by an index that says where it stands: one damaged bit
there, and the answer of one row is read as that of another. So the key is covered too. Up to format 4 only the row's
data and the payload were; the two kinds are told apart by a bit above those of the checksum.
"""

from __future__ import annotations

import struct
from typing import Final
from zlib import crc32

__all__ = ["CellHead", "cell_intact", "of_cell", "of_row", "row_intact"]

CellHead = tuple[int, int, int, int, str, str, str, int, int | None, int, int, float]
"""A cell without its payload, as its table has it: run, position, column, epoch, status, reason, message, attempts,
HTTP status, input and output tokens, when it ended."""

_COVERS_ALL: Final = 1 << 32
_PLACE: Final = struct.Struct("<qq").pack
_NUMBERS: Final = struct.Struct("<qqqqqqqqd").pack
_DONE: Final = crc32(b"done\0\0")  # of nearly all cells

# What is damaged may be of any type: a number where there was a text, nothing where there was a number.
_NO_SUCH_THING: Final = (TypeError, ValueError, AttributeError, struct.error)


def of_row(run: int, position: int, row_id: str, digest: bytes, data: bytes) -> int:
    """The checksum of an input row. Raises UnicodeEncodeError for an id that is no text."""
    return _COVERS_ALL | crc32(data, crc32(digest, crc32(row_id.encode(), crc32(_PLACE(run, position)))))


def of_cell(head: CellHead, payload: bytes | None) -> int:
    """The checksum of a cell. Raises struct.error for a number that no file holds."""
    run, position, col, epoch, status, reason, message, attempts, http_status, tokens_in, tokens_out, at = head
    usual = reason == "" and message == "" and status == "done"
    words = _DONE if usual else crc32(f"{status}\0{reason}\0{message}".encode())
    http = -1 if http_status is None else http_status
    # Half of all zeros come back from a file as the other half.
    numbers = _NUMBERS(run, position, col, epoch, attempts, http, tokens_in, tokens_out, at + 0.0)
    return _COVERS_ALL | crc32(payload or b"", crc32(numbers, words))


def row_intact(checksum: int, run: int, position: int, row_id: str, digest: bytes, data: bytes) -> bool:
    """Whether a row is what was written. Never raises."""
    try:
        return checksum == (of_row(run, position, row_id, digest, data) if checksum >= _COVERS_ALL else crc32(data))
    except _NO_SUCH_THING:
        return False


def cell_intact(checksum: int, head: CellHead, payload: bytes | None) -> bool:
    """Whether a cell is what was written. Never raises."""
    try:
        return checksum == (of_cell(head, payload) if checksum >= _COVERS_ALL else crc32(payload or b""))
    except _NO_SUCH_THING:
        return False
