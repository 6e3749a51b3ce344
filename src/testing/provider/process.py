"""The provider as a process of its own on the loopback: what a client meets over real HTTP, without its CPU.

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
from contextlib import closing
from typing import TYPE_CHECKING, Final, Self, cast

import anyio.to_thread
from pydantic import TypeAdapter

from ...errors import HeadgateError
from .answers import content_of
from .draws import content_digest
from .spec import Capacity, Control, ProviderSpec
from .timeline import Slice
from .values import ContentCount, ProviderStats

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["ProviderProcess", "ProviderStartError"]

HOST: Final = "127.0.0.1"
STATS: Final = TypeAdapter(ProviderStats)
SLICES: Final = TypeAdapter(tuple[Slice, ...])


class ProviderStartError(HeadgateError):
    """The provider's process did not come up; what it said is on standard error."""


class ProviderProcess:
    """A loopback provider for the length of a ``with`` or ``async with`` block.

    >>> spec = ProviderSpec(models={"gpt-x": ModelSpec(concurrency=8)})  # doctest: +SKIP
    >>> with ProviderProcess(spec) as provider:  # doctest: +SKIP
    ...     client = openai.OpenAI(base_url=provider.base_url, api_key="unused", max_retries=0)
    ...     client.chat.completions.create(model="gpt-x", messages=[{"role": "user", "content": "Why?"}])
    ...     print(provider.stats().models["gpt-x"].statuses)

    ``stats``, ``timeline``, ``control``, ``replace`` and ``count`` are plain blocking calls of about a millisecond.
    Starting takes as long as an interpreter needs to import aiohttp; ``async with`` starts and stops in a thread.
    """

    def __init__(self, spec: ProviderSpec, *, start_timeout_s: float = 30.0, stop_timeout_s: float = 5.0) -> None:
        self._spec = spec
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._child: subprocess.Popen[str] | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """The root address, for ``/stats`` and ``/control``."""
        return f"http://{HOST}:{self._port}"

    @property
    def base_url(self) -> str:
        """The address of the API, as OpenAI's clients want it."""
        return f"{self.url}/v1"

    @property
    def pid(self) -> int:
        """The process id of the running provider."""
        assert self._child is not None, "the provider is not running"
        return self._child.pid

    def start(self) -> None:
        """Start the process and wait until it listens. Raises ProviderStartError."""
        assert self._child is None, "the provider runs already"
        command = [sys.executable, "-m", "headgate.testing.provider", "--spec", "-"]
        self._child = subprocess.Popen(  # noqa: S603  (our own interpreter and module)
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
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

    def stats(self) -> ProviderStats:
        """Return the exact accounts so far. Raises OSError if the process is gone."""
        return STATS.validate_python(self._ask("GET", "/stats"))

    def count(self, model: str, messages: object) -> ContentCount:
        """Return how often exactly these messages (or this embedding input) came. Raises KeyError."""
        contents = cast("dict[str, dict[str, dict[str, int]]]", self._ask("GET", "/stats?contents=1")["contents"])
        return ContentCount(**contents[model].get(content_digest(content_of(messages)).hex(), {}))

    def timeline(self, model: str) -> tuple[Slice, ...]:
        """Return how busy a model was over time. Raises KeyError."""
        slices = cast("dict[str, object]", self._ask("GET", "/stats?timeline=1")["timeline"])
        return SLICES.validate_python(slices[model])

    def control(self, model: str | None = None, change: Capacity | None = None, *, reset: bool = False) -> None:
        """Change what a model (None: every model) serves from now on; ``reset`` clears the counts first.

        Raises ValueError with the provider's words if it refuses.

        >>> provider.control("gpt-x", Capacity(concurrency=4))  # doctest: +SKIP
        """
        control = Control(model=model, change=change, reset=reset)
        self._ask("POST", "/control", control.model_dump_json(exclude_unset=True))

    def replace(self, spec: ProviderSpec) -> None:
        """Serve ``spec`` from now on at the same address, as a process that was just started, in a millisecond.

        Raises ValueError with the provider's words if it refuses, as it does while requests are in flight.
        """
        self._ask("POST", "/spec", spec.model_dump_json(exclude_unset=True))
        self._spec = spec

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

    def _handshake(self, child: subprocess.Popen[str]) -> int:
        """Hand over the specification and read the port; a child that says nothing in time is killed."""
        assert child.stdin is not None
        assert child.stdout is not None
        late = threading.Timer(self._start_timeout_s, child.kill)
        late.start()
        try:
            child.stdin.write(self._spec.model_dump_json(exclude_unset=True) + "\n")
            child.stdin.flush()
            line = child.stdout.readline()
            return int(json.loads(line)["port"])
        except (OSError, ValueError) as error:
            raise ProviderStartError("the provider did not come up; see its standard error above") from error
        finally:
            late.cancel()

    def _ask(self, method: str, path: str, body: str | None = None) -> dict[str, object]:
        with closing(http.client.HTTPConnection(HOST, self._port, timeout=self._start_timeout_s)) as connection:
            connection.request(method, path, body)
            response = connection.getresponse()
            answer = response.read()
        if response.status != http.HTTPStatus.OK:
            raise ValueError(answer.decode())
        return cast("dict[str, object]", json.loads(answer))
