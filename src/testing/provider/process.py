"""The provider as a process of its own on the loopback: what a client meets over real HTTP, without its CPU."""

from __future__ import annotations

from typing import Final, cast

from pydantic import TypeAdapter

from ..server_child import ServerChild, ServerStartError
from .answers import content_of
from .draws import content_digest
from .spec import Capacity, Control, ProviderSpec
from .timeline import Slice
from .values import ContentCount, ProviderStats

__all__ = ["ProviderProcess", "ProviderStartError"]

STATS: Final = TypeAdapter(ProviderStats)
SLICES: Final = TypeAdapter(tuple[Slice, ...])


class ProviderStartError(ServerStartError):
    """The provider's process did not come up; what it said is on standard error."""


class ProviderProcess(ServerChild):
    """A loopback provider for the length of a ``with`` or ``async with`` block.

    >>> spec = ProviderSpec(models={"gpt-x": ModelSpec(concurrency=8)})  # doctest: +SKIP
    >>> with ProviderProcess(spec) as provider:  # doctest: +SKIP
    ...     client = openai.OpenAI(base_url=provider.base_url, api_key="unused", max_retries=0)
    ...     client.chat.completions.create(model="gpt-x", messages=[{"role": "user", "content": "Why?"}])
    ...     print(provider.stats().models["gpt-x"].statuses)

    ``stats``, ``timeline``, ``control``, ``replace`` and ``count`` are plain blocking calls of about a millisecond.
    Starting takes as long as an interpreter needs to import aiohttp; ``async with`` starts and stops in a thread.
    """

    start_error = ProviderStartError

    def __init__(self, spec: ProviderSpec, *, start_timeout_s: float = 30.0, stop_timeout_s: float = 5.0) -> None:
        super().__init__(
            "headgate.testing.provider",
            ("--spec", "-"),
            start_timeout_s=start_timeout_s,
            stop_timeout_s=stop_timeout_s,
        )
        self._spec = spec

    def first_line(self) -> str:
        """The specification."""
        return self._spec.model_dump_json(exclude_unset=True)

    @property
    def base_url(self) -> str:
        """The address of the API, as OpenAI's clients want it."""
        return f"{self.url}/v1"

    def stats(self) -> ProviderStats:
        """Return the exact accounts so far. Raises OSError if the process is gone."""
        return STATS.validate_python(self.ask("GET", "/stats"))

    def count(self, model: str, messages: object) -> ContentCount:
        """Return how often exactly these messages (or this embedding input) came. Raises KeyError."""
        contents = cast("dict[str, dict[str, dict[str, int]]]", self.ask("GET", "/stats?contents=1")["contents"])
        return ContentCount(**contents[model].get(content_digest(content_of(messages)).hex(), {}))

    def timeline(self, model: str) -> tuple[Slice, ...]:
        """Return how busy a model was over time. Raises KeyError."""
        slices = cast("dict[str, object]", self.ask("GET", "/stats?timeline=1")["timeline"])
        return SLICES.validate_python(slices[model])

    def control(self, model: str | None = None, change: Capacity | None = None, *, reset: bool = False) -> None:
        """Change what a model (None: every model) serves from now on; ``reset`` clears the counts first.

        Raises ValueError with the provider's words if it refuses.

        >>> provider.control("gpt-x", Capacity(concurrency=4))  # doctest: +SKIP
        """
        control = Control(model=model, change=change, reset=reset)
        self.ask("POST", "/control", control.model_dump_json(exclude_unset=True))

    def replace(self, spec: ProviderSpec) -> None:
        """Serve ``spec`` from now on at the same address, as a process that was just started, in a millisecond.

        Raises ValueError with the provider's words if it refuses, as it does while requests are in flight.
        """
        self.ask("POST", "/spec", spec.model_dump_json(exclude_unset=True))
        self._spec = spec
