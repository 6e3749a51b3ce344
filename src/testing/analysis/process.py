"""The analysis service as a process of its own on the loopback."""

from __future__ import annotations

from typing import Final

from pydantic import TypeAdapter

from ..server_child import ServerChild
from .spec import AnalysisAccount, AnalysisSpec

__all__ = ["AnalysisProcess"]

ACCOUNT: Final = TypeAdapter(AnalysisAccount)


class AnalysisProcess(ServerChild):
    """A loopback analysis service for the length of a ``with`` or ``async with`` block.

    >>> spec = AnalysisSpec(verdict="stop", seconds=5.0)  # doctest: +SKIP
    >>> with AnalysisProcess(spec) as service:  # doctest: +SKIP
    ...     config = RestartConfig(service_url=service.url)

    It speaks what :mod:`headgate.restart.http` says. ``behave``, ``forget`` and ``account`` are plain blocking calls.
    """

    def __init__(self, spec: AnalysisSpec | None = None) -> None:
        super().__init__("headgate.testing.analysis", ())
        self._spec = spec or AnalysisSpec()

    def first_line(self) -> str:
        """How it behaves at first."""
        return self._spec.model_dump_json(exclude_unset=True)

    def behave(self, spec: AnalysisSpec) -> None:
        """Behave in another way from now on."""
        self.ask("POST", "/control", spec.model_dump_json(exclude_unset=True))

    def forget(self) -> None:
        """Know no cycle any more, as if it had been restarted."""
        self.ask("POST", "/forget")

    def account(self) -> AnalysisAccount:
        """What it has been asked until now."""
        return ACCOUNT.validate_python(self.ask("GET", "/account"))
