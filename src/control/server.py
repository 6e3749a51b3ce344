"""The socket of an engine: it takes commands, one at a time from each of a few peers, and answers.

A peer that hangs, sends rubbish or goes away costs a task for a few seconds at most, and the run nothing.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
from pydantic_core import to_json

from ..errors import ConfigError, HeadgateError
from ..log import logger
from .places import bound
from .protocol import LINE_MOST, VERSION, Misunderstood, perform, read_command

if TYPE_CHECKING:
    import os
    import socket

    from anyio.abc import ByteStream

    from .ports import Controlled

__all__ = ["ACCEPT_PAUSE_S", "PEERS_MOST", "PEER_PATIENCE_S", "ControlSocket", "open_control"]

PEERS_MOST: Final = 8
"""Connections at once. Any more are closed as they come."""

PEER_PATIENCE_S: Final = 5.0
"""What a peer has for its command, and for taking the answer."""

ACCEPT_PAUSE_S: Final = 1.0
"""After a connection that could not be accepted."""


def open_control(place: str | os.PathLike[str] | bool) -> ControlSocket:
    """A socket at ``place``; True: at one of its own in the usual directory. Raises ConfigError."""
    if sys.platform == "win32":
        raise ConfigError("control: there are no such sockets on Windows")
    return ControlSocket(*bound(None if isinstance(place, bool) else Path(place)))


class ControlSocket:
    """A bound socket, to be served once and closed once."""

    def __init__(self, listener: socket.socket, path: Path) -> None:
        self.path = path
        self._listener = listener
        self._identity = _identity(path)
        self._peers = 0

    async def serve(self, engine: Controlled) -> None:
        """Take commands for ``engine`` until cancelled."""
        listener = await anyio.abc.SocketListener.from_socket(self._listener)
        async with listener, anyio.create_task_group() as peers:
            while True:
                try:
                    peers.start_soon(self._received, await listener.accept(), engine)
                except anyio.BrokenResourceError:  # no descriptor is free; the runs go on without being heard
                    await anyio.sleep(ACCEPT_PAUSE_S)

    def close(self) -> None:
        """Nobody is listened to any more. The path is removed unless it is somebody else's by now."""
        self._listener.close()
        if _identity(self.path) == self._identity:
            with suppress(OSError):
                self.path.unlink()

    async def _received(self, peer: ByteStream, engine: Controlled) -> None:
        if self._peers >= PEERS_MOST:
            await peer.aclose()
            return
        self._peers += 1
        try:
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
                async with peer:
                    with anyio.move_on_after(PEER_PATIENCE_S):
                        line = await _line(peer)
                        if line:
                            await peer.send(_answer(line, engine))
        except Exception as error:  # it would end every run of the engine
            logger().error("control_peer_failed", error=f"{type(error).__name__}: {str(error)!a}")
        finally:
            self._peers -= 1


def _answer(line: bytes, engine: Controlled) -> bytes:
    try:
        told: dict[str, object] = {"ok": True, **perform(read_command(line), engine)}
    except (Misunderstood, HeadgateError) as error:
        told = {"ok": False, "error": str(error)}
    except Exception as error:  # a fault of ours, and none of the run's
        told = {"ok": False, "error": f"{type(error).__name__}: {error}"}
    try:
        return _written(told)
    except Exception as error:  # text that is not Unicode, say: a command may name anything
        return _written({"ok": False, "error": f"the answer cannot be written: {str(error)!a}"})


def _written(told: dict[str, object]) -> bytes:
    return to_json({"headgate": VERSION, **told}, inf_nan_mode="null", fallback=str) + b"\n"


async def _line(peer: ByteStream) -> bytes:
    """The first line, or as much of it as is looked at: a longer one is no command."""
    line = b""
    while b"\n" not in line and len(line) <= LINE_MOST:
        try:
            line += await peer.receive(LINE_MOST)
        except anyio.EndOfStream:
            break
    return line.partition(b"\n")[0]


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Tells a file from others, also from a later one of the same number: numbers are used again."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns
