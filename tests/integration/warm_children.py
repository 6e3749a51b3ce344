"""Child processes that begin warm: each is forked from one process of ours, which has imported headgate already.

A forked child is as real as a fresh one: it has a process id, memory, files and signals of its own, and ``kill -9``
ends it in the middle of whatever it does. It only saves the second in which Python starts and imports. What is about a
fresh interpreter (hash seeds, what an import brings, a missing package) starts one with :mod:`subprocess`.

:class:`WarmChild` is used as :class:`subprocess.Popen` is, in text mode. Run as a program this file is that process: it
forks a child for each request on the socket that is its standard input, and ends when that closes.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import FrameType, TracebackType

ROOT = Path(__file__).resolve().parents[2]

IMPORTED = (
    "anyio._backends._asyncio",
    "headgate.testing.analysis.server",
    "headgate.testing.provider.server",
    "httpcore2",
    "httpx2",
    "psycopg",
)
"""What every child has imported when it begins."""


class WarmServer:
    """The process that children are forked from, as seen from the tests."""

    def __init__(self) -> None:
        self._line, theirs = socket.socketpair()
        self._lock = threading.Lock()
        with theirs:
            command = [sys.executable, "-m", "tests.integration.warm_children"]
            self._process = subprocess.Popen(command, stdin=theirs.fileno(), cwd=ROOT)
        atexit.register(self.close)

    def close(self) -> None:
        self._line.close()
        self._process.wait()

    def start(self, request: dict[str, Any], files: Sequence[int]) -> int:
        """Have a child forked whose first three files are ``files``. Returns where its id and its end are told."""
        told, tell = os.pipe()
        words, asked = os.pipe()
        with self._lock:
            socket.send_fds(self._line, [b"+"], [words, tell, *files])
            for end in (words, tell):
                os.close(end)
            with os.fdopen(asked, "wb") as pipe:
                pipe.write(json.dumps(request).encode())
        return told


@cache
def warm_server() -> WarmServer:
    """The one from which the tests of this process have their children."""
    return WarmServer()


class WarmChild:
    """A Python program in a process of its own, begun by a fork: ``[sys.executable, SCRIPT, ...]`` or ``-m MODULE``.

    Also a console script of this environment: ``[SCRIPT, ...]``. ``imports`` are modules that all later children share.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        imports: Sequence[str] = (),
    ) -> None:
        words = [str(word) for word in command]
        self.args = words
        self.returncode: int | None = None
        self.stdin: IO[str] | None = None
        self.stdout: IO[str] | None = None
        self.stderr: IO[str] | None = None
        theirs = [self._end(number, what) for number, what in enumerate((stdin, stdout, stderr))]
        request = {
            "words": words[1:] if words[0] == sys.executable else words,
            "cwd": str(cwd or Path.cwd()),
            "env": dict(os.environ if env is None else env),
            "imports": list(imports),
        }
        self._told = os.fdopen(warm_server().start(request, theirs), "rb", buffering=0)
        for file in theirs:
            os.close(file)
        self.pid = int(self._hear() or 0)
        assert self.pid, "the process that children are forked from has ended"

    def _end(self, number: int, what: int | None) -> int:
        """The child's side of one of its three files."""
        if what is None:
            return os.dup(number)
        if what == subprocess.DEVNULL:
            return os.open(os.devnull, os.O_RDWR)
        assert what == subprocess.PIPE
        reading, writing = os.pipe()
        if number == 0:
            self.stdin = os.fdopen(writing, "w", encoding="utf-8")
            return reading
        setattr(self, ("", "stdout", "stderr")[number], os.fdopen(reading, encoding="utf-8"))
        return writing

    def _hear(self) -> bytes:
        word = b""
        while (byte := self._told.read(1)) not in (b"", b"\n"):
            word += byte or b""
        return word

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._told, selectors.EVENT_READ)
                if not selector.select(timeout):
                    raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self.returncode = int(self._hear())
            self._told.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Close standard input, read the rest, wait for the end. Kills a child that takes longer than ``timeout``."""
        if self.stdin is not None:
            with suppress(BrokenPipeError):
                self.stdin.close()
        late = threading.Timer(timeout, self.kill) if timeout is not None else None
        with ThreadPoolExecutor(2) as readers:
            if late is not None:
                late.start()
            rest = [readers.submit(pipe.read) if pipe else None for pipe in (self.stdout, self.stderr)]
            out, err = (one.result() if one else "" for one in rest)
        self.wait()
        if late is not None:
            late.cancel()
        for pipe in (self.stdout, self.stderr):
            if pipe is not None:
                pipe.close()
        return out, err

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.kill()  # the test has failed, and nobody will tell the child to end
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        self.wait()


def run_warm(
    command: Sequence[str | Path], *, timeout: float | None = None, check: bool = False, **how: Any
) -> subprocess.CompletedProcess[str]:
    """As :func:`subprocess.run` with ``capture_output``, in text mode."""
    with WarmChild(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how) as child:
        out, err = child.communicate(timeout)
    done = subprocess.CompletedProcess(child.args, child.wait(), out, err)
    if check:
        done.check_returncode()
    return done


@dataclass(frozen=True)
class Request:
    words: list[str]
    cwd: str
    env: dict[str, str]
    imports: list[str]
    files: list[int]


def serve(line: socket.socket) -> Request | None:
    """Fork a child for each request. Returns in the child, with what it is to be, and at the end in the parent."""
    woken, wakes = socket.socketpair()
    for end in (woken, wakes):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, be_woken)
    signal.set_wakeup_fd(wakes.fileno())
    children: dict[int, int] = {}
    selector = selectors.DefaultSelector()
    selector.register(line, selectors.EVENT_READ)
    selector.register(woken, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is woken:
                woken.recv(1000)
                bury(children)
                continue
            mark, files, _, _ = socket.recv_fds(line, 1, 5)
            if not mark:
                return None
            words, tell, *rest = files
            with os.fdopen(words, "rb") as pipe:
                request = Request(**json.load(pipe), files=rest)
            for name in request.imports:
                import_module(name)
            gc.collect()
            gc.freeze()
            pid = os.fork()
            if pid:
                children[pid] = tell
                with suppress(BrokenPipeError):
                    os.write(tell, b"%d\n" % pid)
                for file in rest:
                    os.close(file)
                continue
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # What a shell runs in the background ignores Ctrl-C, and so would the children of its children.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            selector.close()
            for end in (line, woken, wakes):
                end.close()
            for file in (tell, *children.values()):
                os.close(file)
            return request


def be_woken(number: int, frame: FrameType | None) -> None:
    """A signal that has a handler wakes the selector."""


def bury(children: dict[int, int]) -> None:
    """Tell of each child that has ended how it did."""
    for pid, tell in [*children.items()]:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            del children[pid]
            with suppress(BrokenPipeError):
                os.write(tell, b"%d\n" % os.waitstatus_to_exitcode(status))
            os.close(tell)


def become(request: Request) -> None:
    """Be the program that was asked for, as if Python had been started with it."""
    for number, file in enumerate(request.files):
        os.dup2(file, number)
        os.close(file)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
    os.chdir(request.cwd)
    os.environ.clear()
    os.environ.update(request.env)
    first, *rest = request.words
    if first == "-m":
        sys.path[0] = request.cwd
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str((Path(request.cwd) / first).parent)
        sys.argv = [first, *rest]
        runpy.run_path(str(Path(request.cwd) / first), run_name="__main__")


def main() -> None:
    for name in IMPORTED:
        import_module(name)
    request = None
    with socket.socket(fileno=os.dup(0)) as line, suppress(KeyboardInterrupt):
        request = serve(line)
    if request is not None:
        become(request)


if __name__ == "__main__":
    main()
