"""What can be done to an engine while it runs: pausing scopes, changing limits, draining and stopping runs."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import anyio

from ..errors import ConfigError
from .runs import Run
from .shared_part import SharedPart

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..admission.controller import AdmissionController

__all__ = ["Controls"]


class Controls:
    """Live control of one engine, from its program or through its control socket. Call it on the engine's loop."""

    def __init__(
        self, admission: AdmissionController, runs: Mapping[str, Run], parts: Mapping[str, SharedPart]
    ) -> None:
        self._admission = admission
        self._runs = runs
        self._parts = parts

    def pause(self, scope: str) -> None:
        """Let nothing out in ``scope`` (``openai``, ``openai/gpt-x``) until it is resumed; what is out comes back.

        Queue deadlines stand still meanwhile and no run counts as stalled; ``patience`` and ``deadline`` go on.
        Raises ConfigError for a scope that no resource in use has.
        """
        self._admission.pause(scope)

    def resume(self, scope: str) -> None:
        """End a pause: one request goes out first, then more and more. Without a pause nothing changes."""
        self._admission.resume(scope)

    def change_limits(self, scope: str, changes: Mapping[str, object]) -> None:
        """Change these limits of ``scope`` and leave its others; None takes one away. Raises ConfigError."""
        self._admission.change_limits(scope, changes)

    def drain(self, run: str | None = None) -> tuple[str, ...]:
        """Take no more rows in; rows that are open are finished, then the run ends, ``stopped`` if rows were left.

        Of all runs, or the one of that name; returns their names. Raises ConfigError if there is none, or if it is
        shared with other engines, which would take its rows over.
        """
        going = self._going(run)
        for name, one in going.items():
            if isinstance(one, SharedPart):
                raise ConfigError(f"run {name!r} is shared with other engines and cannot be drained: stop it")
        for one in going.values():
            if isinstance(one, Run):
                one.drain()
        return tuple(going)

    def stop(self, run: str | None = None, *, grace: float | None = None) -> tuple[str, ...]:
        """Start nothing more; what is in flight gets ``grace`` seconds. As for :meth:`drain` else."""
        going = self._going(run)
        for one in going.values():
            one.stop(grace=grace)
        return tuple(going)

    def look(self) -> dict[str, object]:
        """Everything that goes on now, as plain data."""
        now = anyio.current_time()
        scopes = [
            {
                "scope": scope.name,
                "in_flight": scope.in_flight,
                "limit": scope.limit,
                "paused": scope.name in self._admission.paused,
                "blocked_s": max(0.0, scope.cooldown.blocked_until - now),
            }
            for scope in self._admission.gate.scopes().values()
        ]
        going = [*self._alone().values()]
        idle: list[SharedPart] = []
        for part in self._parts.values():  # a shared run is worked on in several groups at once, or in none
            going += (groups := part.groups)
            idle += [] if groups else [part]
        runs = [{**asdict(run.statistics()), "stopping": run.stopping, "draining": run.draining} for run in going]
        runs += [{**asdict(part.statistics()), "stopping": part.stopping, "draining": False} for part in idle]
        return {"pid": os.getpid(), "scopes": scopes, "runs": runs}

    def _alone(self) -> dict[str, Run]:
        return {name: run for name, run in self._runs.items() if not run.done}

    def _going(self, run: str | None) -> Mapping[str, Run | SharedPart]:
        going: dict[str, Run | SharedPart] = {**self._alone(), **self._parts}
        if run is not None and run not in going:
            raise ConfigError(f"no run {run!r} goes on here (there: {', '.join(going) or 'none'})")
        if not going:
            raise ConfigError("no run goes on here")
        return going if run is None else {run: going[run]}
