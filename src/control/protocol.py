"""One command, one answer, each one line of JSON; then the connection is over.

A command is an object: ``headgate``, the version of this page, ``do``, and what that needs; an answer has ``headgate``,
``ok``, and what came of it, or ``error``. Decides what is understood; nothing unknown is passed over.

    {"headgate": 1, "do": "limits", "scope": "openai/gpt-x", "limits": {"concurrency": 8}}
    {"headgate": 1, "ok": true}

Pure.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, assert_never, cast

from ..values import is_number, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .ports import Controlled

__all__ = [
    "LINE_MOST",
    "VERSION",
    "Command",
    "Drain",
    "Look",
    "Misunderstood",
    "Pause",
    "Resume",
    "SetLimits",
    "Stop",
    "perform",
    "read_command",
    "written",
]

VERSION: Final = 1

LINE_MOST: Final = 16 * 1024
"""Bytes of a command; an answer may be longer."""


class Misunderstood(ValueError):
    """What came is no command of this version. The text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Look:
    """What goes on?"""


@dataclass(frozen=True, slots=True)
class Pause:
    """Let nothing out in a scope (``openai``, ``openai/gpt-x``)."""

    scope: str


@dataclass(frozen=True, slots=True)
class Resume:
    """End a pause."""

    scope: str


@dataclass(frozen=True, slots=True)
class SetLimits:
    """Change some limits of a scope."""

    scope: str
    limits: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Drain:
    """Take no more rows in; None: all runs."""

    run: str | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """Start nothing more; what is in flight has ``grace`` seconds, None: the run's own option."""

    run: str | None = None
    grace: float | None = None


Command = Look | Pause | Resume | SetLimits | Drain | Stop

_NAMES: Final[dict[type[Command], str]] = {
    Look: "status",
    Pause: "pause",
    Resume: "resume",
    SetLimits: "limits",
    Drain: "drain",
    Stop: "stop",
}


def read_command(line: bytes) -> Command:
    """The command that ``line`` is. Raises Misunderstood."""
    try:
        found: object = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Misunderstood("not a line of JSON") from error
    if not isinstance(found, dict):
        raise Misunderstood("not a JSON object")
    stated = cast("dict[str, Any]", found)
    version, name = stated.pop("headgate", None), stated.pop("do", None)
    if version != VERSION:
        raise Misunderstood(f"this engine speaks version {VERSION} of the protocol, not {version!r}")
    kind = next((kind for kind, known in _NAMES.items() if known == name), None)
    if kind is None:
        raise Misunderstood(f"unknown command {name!r} (there are {', '.join(_NAMES.values())})")
    try:
        command = kind(**stated)
    except TypeError as error:
        raise Misunderstood(f"{name}: {_about(kind)}, not {', '.join(map(repr, stated)) or 'nothing'}") from error
    _check(command)
    return command


def written(command: Command) -> bytes:
    """``command`` as a line."""
    fields = {name: getattr(command, name) for name in command.__dataclass_fields__}
    return (json.dumps({"headgate": VERSION, "do": _NAMES[type(command)], **fields}) + "\n").encode()


def perform(command: Command, engine: Controlled) -> dict[str, object]:
    """Do it, and return what there is to say. Raises what the engine raises."""
    match command:
        case Look():
            return engine.look()
        case Pause(scope=scope):
            engine.pause(scope)
        case Resume(scope=scope):
            engine.resume(scope)
        case SetLimits(scope=scope, limits=limits):
            engine.change_limits(scope, limits)
        case Drain(run=run):
            return {"runs": list(engine.drain(run))}
        case Stop(run=run, grace=grace):
            return {"runs": list(engine.stop(run, grace=grace))}
        case _:
            assert_never(command)
    return {}


def _about(kind: type[Command]) -> str:
    fields = ", ".join(kind.__dataclass_fields__)
    return f"it takes {fields}" if fields else "it takes nothing"


def _check(command: Command) -> None:
    """What comes from outside has the types that it claims to have."""
    match command:
        case Pause(scope=name) | Resume(scope=name) | SetLimits(scope=name):
            if not isinstance(cast("object", name), str):
                raise Misunderstood(f"scope must be text, not {name!r}")
            if isinstance(command, SetLimits) and not isinstance(cast("object", command.limits), dict):
                raise Misunderstood("limits must be an object of names and values")
        case Drain(run=run) | Stop(run=run):
            if run is not None and not isinstance(cast("object", run), str):
                raise Misunderstood(f"run must be text or null, not {run!r}")
            if isinstance(command, Stop) and not _is_time(command.grace):
                raise Misunderstood(f"grace must be zero or more seconds, or null, not {shown(command.grace)}")
        case Look():
            pass
        case _:
            assert_never(command)


def _is_time(value: object) -> bool:
    if value is None:
        return True
    return is_number(value) and isfinite(value) and value >= 0
