"""A server of ours in a process of its own on the loopback, for the length of a block.

The child listens on a free port, says so in one line of JSON, and exits when its standard input closes, so it
never outlives the process that started it, however that ends. Only this child is ever stopped, by its own
handle.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from contextlib import closing
from typing import TYPE_CHECKING, Final, Self, cast

import anyio.to_thread

from ..errors import HeadgateError

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["ServerChild", "ServerStartError"]

HOST: Final = "127.0.0.1"


class ServerStartError(HeadgateError):
    """The process did not come up; what it said is on standard error."""


class ServerChild(ABC):
    """Runs ``python -m module *arguments`` and gives it ``first_line`` on standard input."""

    start_error: type[ServerStartError] = ServerStartError

    def __init__(
        self,
        module: str,
        arguments: tuple[str, ...],
        *,
        start_timeout_s: float = 30.0,
        stop_timeout_s: float = 5.0,
    ) -> None:
        self._command = [sys.executable, "-m", module, *arguments]
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._child: subprocess.Popen[str] | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """The root address."""
        return f"http://{HOST}:{self._port}"

    @property
    def pid(self) -> int:
        """The process id of the running child."""
        assert self._child is not None, "the process is not running"
        return self._child.pid

    @abstractmethod
    def first_line(self) -> str:
        """What the child is to do, in one line."""

    def start(self) -> None:
        """Start the process and wait until it listens. Raises ServerStartError."""
        assert self._child is None, "the process runs already"
        self._child = self._launch(self._command)
        try:
            self._port = self._handshake(self._child)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the process: ask, then terminate, then kill. Does nothing if it is not running."""
        child, self._child = self._child, None
        if child is None:
            return
        assert child.stdin is not None
        assert child.stdout is not None
        for insist in (child.stdin.close, child.terminate, child.kill):
            try:
                insist()
                child.wait(self._stop_timeout_s)
                break
            except (subprocess.TimeoutExpired, BrokenPipeError):
                continue
        child.stdout.close()

    def ask(self, method: str, path: str, body: str | None = None) -> dict[str, object]:
        """Send a request and return the JSON that comes back. Blocks. Raises OSError, ValueError if it is refused."""
        with closing(http.client.HTTPConnection(HOST, self._port, timeout=self._start_timeout_s)) as connection:
            connection.request(method, path, body)
            response = connection.getresponse()
            answer = response.read()
        if response.status != http.HTTPStatus.OK:
            raise ValueError(answer.decode())
        return cast("dict[str, object]", json.loads(answer))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await anyio.to_thread.run_sync(self.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self.stop)

    def _launch(self, command: list[str]) -> subprocess.Popen[str]:
        """Start the process, with pipes for standard input and output."""
        return subprocess.Popen(  # noqa: S603  (our own interpreter and module)
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )

    def _handshake(self, child: subprocess.Popen[str]) -> int:
        """Hand over the first line and read the port; a child that says nothing in time is killed."""
        assert child.stdin is not None
        assert child.stdout is not None
        late = threading.Timer(self._start_timeout_s, child.kill)
        late.start()
        try:
            child.stdin.write(self.first_line() + "\n")
            child.stdin.flush()
            line = child.stdout.readline()
            return int(json.loads(line)["port"])
        except (OSError, ValueError) as error:
            raise self.start_error("the process did not come up; see its standard error above") from error
        finally:
            late.cancel()
