"""A line to a server that can be cut at a chosen moment: between the statement and its answer, say."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

Moment = Literal["before", "after"]


class Line:
    """Passes on what goes to ``port`` of the loopback and back, on a port of its own.

    After ``cut(moment, meanwhile)`` the next thing that a client sends breaks the connection: ``before`` the server
    gets it, or ``after`` the server has answered, which the client never hears of. ``meanwhile`` is called when that
    has happened, before anybody can connect again.
    """

    def __init__(self, port: int) -> None:
        self._server = port
        self._lock = threading.Lock()
        self._cut: tuple[Moment, Callable[[], None]] | None = None
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, moment: Moment, meanwhile: Callable[[], None] = lambda: None) -> None:
        self._cut = (moment, meanwhile)

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with self._lock:
                    server = socket.create_connection(("127.0.0.1", self._server))
                threading.Thread(target=self._upwards, args=(client, server), daemon=True).start()
                threading.Thread(target=self._downwards, args=(client, server), daemon=True).start()

    def _upwards(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 16):
                if self._cut is None:
                    server.sendall(data)
                else:
                    self._sever(client, server, data)
        _hang_up(server)

    def _downwards(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 16):
                with self._lock:
                    client.sendall(data)
        _hang_up(client)

    def _sever(self, client: socket.socket, server: socket.socket, data: bytes) -> None:
        assert self._cut is not None
        with self._lock:
            moment, meanwhile = self._cut
            self._cut = None
            if moment == "after":
                _hang_up(client)
                server.sendall(data)
                # The other thread waits for the lock with the answer, if it was the one to read it.
                server.settimeout(1.0)
                with suppress(OSError):
                    server.recv(1 << 16)
            _hang_up(client)
            _hang_up(server)
            meanwhile()
            self.cuts += 1


def _hang_up(line: socket.socket) -> None:
    with suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)
    line.close()
