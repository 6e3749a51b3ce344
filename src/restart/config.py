"""How runs are restarted, as a user says it: one block, checked as a whole, before anything is spent.

Errors are one line that names the key, the value and the cure. What a command line leaves out never overrides a file.
"""

from __future__ import annotations

import os
import tomllib
import warnings
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..errors import ConfigError
from .core import CoreOptions
from .values import Aggregation, LateVerdict

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = ["DEPRECATED", "RestartConfig", "RestartSourceSpec", "load_restart"]

TABLE: Final = "restart"
"""The table of a TOML file that this is."""

DEPRECATED: Final[Mapping[str, str]] = {
    "endpoint": "service_url",
    "backend": "service_url",
    "urls": "http_urls",
    "use_mcp": "enable_mcp",
    "decision_timeout": "timeout",
    "max_restarts": "budget",
}
"""Names that still work for one release, and what they are called now."""

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _as_tuple(value: object) -> object:
    return tuple(cast("list[object]", value)) if isinstance(value, list) else value  # TOML has lists only


class RestartConfig(BaseModel):
    """How a run goes on after a cycle that ended badly. Times in seconds; everything may be left out.

    ``service_url`` is the analysis service, ``http_urls`` are more of them, each with a verdict of its own;
    ``enable_mcp`` asks the MCP server at ``mcp_url`` by its tool ``mcp_tool``. ``rules`` are judged without asking
    anybody; by them a task is poison that was in flight at the end of ``poison_cycles`` in a row, 0: never.
    ``aggregation`` says whether one STOP is enough, or all sources must say it.

    Verdicts are waited for ``timeout`` at most, a decision ``recovery_timeout``, whatever happens. A leader who does
    not say for ``lease`` that he lives is followed by another; the store is looked at each ``poll`` while something is
    to be decided. ``late_verdict``: what came after the timeout, for up to ``late_window``, is evidence for the next
    decision, or dropped. ``budget`` is how many cycles in a row without a new committed outcome are restarted; 0:
    none. Before each restart there is a pause, from ``first_pause`` on, doubling up to ``longest_pause`` while there is
    no progress. Under ``dry_run`` decisions are made and recorded, and every verdict is acted upon as RESTART.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    service_url: str | None = None
    http_urls: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    enable_mcp: bool = False
    mcp_url: str | None = None
    mcp_tool: str = "restart_verdict"
    rules: bool = True
    poison_cycles: Annotated[int, Field(ge=0)] = 3
    aggregation: Annotated[Aggregation, Field(strict=False)] = Aggregation.ANY
    timeout: Seconds = 60.0
    recovery_timeout: Seconds = 300.0
    lease: Seconds = 10.0
    poll: Seconds = 0.5
    late_verdict: Annotated[LateVerdict, Field(strict=False)] = LateVerdict.NEXT_CYCLE
    late_window: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 600.0
    budget: Annotated[int, Field(ge=0)] = 5
    first_pause: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    longest_pause: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 300.0
    dry_run: bool = False

    @field_validator("service_url", "mcp_url")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        return value if value is None else _checked_url(value)

    @field_validator("http_urls")
    @classmethod
    def _are_urls(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        urls = tuple(_checked_url(url) for url in value)
        for url in urls:
            if urls.count(url) > 1:
                raise ValueError(f"{url} is named twice: each service has one verdict")
        return urls

    @model_validator(mode="after")
    def _fits_together(self) -> RestartConfig:
        if self.service_url is not None and self.service_url in self.http_urls:
            raise ValueError(f"http_urls: {self.service_url} is the service_url already: each service has one verdict")
        if self.enable_mcp and self.mcp_url is None:
            raise ValueError("enable_mcp: name the server with mcp_url, or leave it out")
        if self.mcp_url is not None and not self.enable_mcp:
            raise ValueError("mcp_url: set enable_mcp = true to ask it, or leave it out")
        if self.timeout + 2 * self.lease > self.recovery_timeout:
            raise ValueError(
                f"timeout {self.timeout:g} and twice the lease {self.lease:g} are more than recovery_timeout "
                f"{self.recovery_timeout:g}: a decision must be there before nobody waits for it any more"
            )
        if 3 * self.poll > self.lease:
            raise ValueError(
                f"poll {self.poll:g} is more than a third of lease {self.lease:g}: leaders would be missed"
            )
        if self.poison_cycles == 1:
            raise ValueError(
                "poison_cycles 1: what is in flight at one crash is innocent as a rule; 2 is the least, 0: never"
            )
        if self.first_pause > self.longest_pause:
            raise ValueError(f"first_pause {self.first_pause:g} is more than longest_pause {self.longest_pause:g}")
        return self

    def core_options(self) -> CoreOptions:
        """What the machine needs of it."""
        return CoreOptions(
            timeout_s=self.timeout,
            recovery_timeout_s=self.recovery_timeout,
            lease_s=self.lease,
            poll_s=self.poll,
            budget=self.budget,
            aggregation=self.aggregation,
            late_verdict=self.late_verdict,
            dry_run=self.dry_run,
        )


RestartSourceSpec = str | os.PathLike[str] | Mapping[str, object] | RestartConfig | None
"""A TOML file with a table ``[restart]``, a mapping, a configuration, or None: the defaults."""


def load_restart(source: RestartSourceSpec = None, **given: object) -> RestartConfig:
    """Read ``source``, and let the options in ``given`` override it, except those that are None: they were left out.

    Raises ConfigError that names the key and the cure.
    """
    place, plain = _plain(source)
    merged = {**_renamed(plain, place), **_renamed({k: v for k, v in given.items() if v is not None}, "options")}
    try:
        return RestartConfig.model_validate(merged)
    except ValidationError as error:
        raise ConfigError("; ".join(f"{place}: {_told(one)}" for one in error.errors())) from error


def _plain(source: RestartSourceSpec) -> tuple[str, dict[str, object]]:
    match source:
        case None:
            return "restart", {}
        case RestartConfig():
            return "restart", source.model_dump(exclude_unset=True)
        case str() | os.PathLike():
            return _read(Path(source))
        case _:
            return "restart", dict(source)


def _read(path: Path) -> tuple[str, dict[str, object]]:
    try:
        plain = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from error
    table = plain.get(TABLE)
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: has no table [{TABLE}]")
    return f"{path} [{TABLE}]", cast("dict[str, object]", table)


def _renamed(plain: Mapping[str, object], place: str) -> dict[str, object]:
    """The same by today's names. Raises ConfigError if two names of one thing disagree."""
    found: dict[str, object] = {}
    said_as: dict[str, str] = {}
    for name, value in plain.items():
        today = DEPRECATED.get(name, name)
        if today != name:
            warnings.warn(f"{place}: {name!r} is called {today!r} now", DeprecationWarning, stacklevel=3)
        if today in found and found[today] != value:
            raise ConfigError(
                f"{place}: {said_as[today]!r} says {found[today]!r} and {name!r} says {value!r}, which are the same "
                f"thing: keep {today!r} alone"
            )
        found.setdefault(today, value)
        said_as.setdefault(today, name)
    return found


def _checked_url(url: str) -> str:
    if url == "mcp":
        raise ValueError("'mcp' is no address: set enable_mcp = true and mcp_url")
    parts = urlsplit(url)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no address: write http://host:port or https://host")
    return url.rstrip("/")


def _told(error: ErrorDetails) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = sorted(RestartConfig.model_fields)
        near = get_close_matches(key, known, 1)
        return f"{key}: unknown" + (f", did you mean {near[0]!r}?" if near else f" (known: {', '.join(known)})")
    message = error["msg"].removeprefix("Value error, ")
    given: Any = error["input"]
    return f"{key} = {given!r}: {message}" if key and not isinstance(given, dict) else f"{message}"
