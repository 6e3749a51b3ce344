"""Asking an engine in another process: one command, one answer. It blocks."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from ..errors import ConfigError, HeadgateError
from .places import check_ours, control_directory, sockets_in
from .protocol import written

if TYPE_CHECKING:
    from .protocol import Command

__all__ = ["ask", "find_sockets"]

PATIENCE_S: Final = 10.0
ANSWER_MOST: Final = 16 * 1024 * 1024


def ask(place: str | os.PathLike[str], command: Command) -> dict[str, Any]:
    """Give ``command`` to the engine that listens at ``place``, and return what it says.

    Raises HeadgateError with its words when it refuses; ConfigError when nobody answers there.
    """
    path = Path(place)
    check_ours(path)
    line = _exchange(path, written(command))
    try:
        found: object = json.loads(line)
    except ValueError as error:
        raise HeadgateError(f"{path}: what answers there is no engine of headgate, or it was cut short") from error
    if not isinstance(found, dict):
        raise HeadgateError(f"{path}: what answers there is no engine of headgate")
    answer = cast("dict[str, Any]", found)
    if not answer.get("ok"):
        raise HeadgateError(str(answer.get("error", "it was refused")))
    return {name: value for name, value in answer.items() if name not in ("headgate", "ok")}


def find_sockets() -> list[Path]:
    """The sockets in the usual directory at which engines answer."""
    return list(sockets_in(control_directory()))


def _exchange(path: Path, line: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(PATIENCE_S)
        try:
            peer.connect(os.fspath(path))
            peer.sendall(line)
            return _read(peer)
        except ConnectionRefusedError as error:
            raise ConfigError(f"{path}: nobody answers there any more: that run has ended or was killed") from error
        except OSError as error:
            raise ConfigError(f"{path}: the engine does not answer: {error}") from error


def _read(peer: socket.socket) -> bytes:
    parts: list[bytes] = []
    size = 0
    while size < ANSWER_MOST and (part := peer.recv(65536)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)
