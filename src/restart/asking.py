"""Having a source begin, and reading it until it says something: what it raises, and how long it may take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import anyio
from pydantic import TypeAdapter

from ..errors import ConfigError
from ..log import logger
from ..values import said_by
from ..wakeup import is_leaked
from .ports import InvalidAnswer, SourceUnreachable
from .record import Heard
from .values import Answer

if TYPE_CHECKING:
    from .ports import RestartSource
    from .values import Cycle

__all__ = ["NoAnswer", "read", "start"]


_ANSWERS: Final = TypeAdapter(Answer)
_TRIES: Final = 3
"""Failures in a row after which a source counts as unreachable."""


class NoAnswer(Exception):
    """A source says nothing about a cycle, and never will. ``heard`` says why."""

    def __init__(self, heard: Heard, reason: str) -> None:
        super().__init__(reason)
        self.heard = heard


async def start(source: RestartSource, cycle: Cycle, *, timeout_s: float) -> None:
    """Have the analysis begun. Whatever goes wrong is logged: somebody else may have more luck, and so may reading."""
    try:
        with anyio.fail_after(timeout_s):
            await source.trigger(cycle)
    except (SourceUnreachable, InvalidAnswer, TimeoutError) as error:
        logger().warning("restart_trigger_failed", source=source.name, cycle=cycle.id, error=_said(error))
    except BaseException as error:
        if not isinstance(error, Exception) and not is_leaked(error):
            raise
        logger().exception("restart_source_broken", source=source.name, cycle=cycle.id)


async def read(source: RestartSource, cycle: Cycle, *, every_s: float, timeout_s: float) -> Answer | None:
    """The verdict of ``source`` on ``cycle``; None if there is none in ``timeout_s`` seconds. Raises NoAnswer."""
    failures = 0
    with anyio.move_on_after(timeout_s):
        while True:
            try:
                answer = cast("object", await source.read(cycle))
                failures = 0
            except SourceUnreachable as error:
                failures += 1
                logger().warning("restart_source_unreachable", source=source.name, cycle=cycle.id, error=_said(error))
                if failures >= _TRIES:
                    raise NoAnswer(Heard.UNREACHABLE, _said(error)) from error
                answer = None
            except (InvalidAnswer, ConfigError) as error:
                raise NoAnswer(Heard.INVALID, _said(error)) from error
            except BaseException as error:
                if not isinstance(error, Exception) and not is_leaked(error):
                    raise
                # A source's fault is no verdict, and no reason to let anybody wait.
                logger().exception("restart_source_broken", source=source.name, cycle=cycle.id)
                raise NoAnswer(Heard.INVALID, _said(error)) from error
            if isinstance(answer, Answer):
                return _checked(answer)
            if answer is not None:
                raise NoAnswer(Heard.INVALID, f"{type(answer).__name__} is no answer")
            await anyio.sleep(every_s * 2**failures)
    return None


def _checked(answer: Answer) -> Answer:
    """What is kept must be what it claims to be, whoever made it. Raises NoAnswer."""
    try:
        return _ANSWERS.validate_json(_ANSWERS.dump_json(answer, warnings="none"))
    except (ValueError, TypeError, ConfigError) as error:
        raise NoAnswer(Heard.INVALID, f"{type(error).__name__}: {_said(error)}") from error


def _said(error: BaseException) -> str:
    return said_by(error)
