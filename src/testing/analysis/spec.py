"""How an analysis service behaves, and what it has been asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ...restart.values import TaskId, Verdict

__all__ = ["AnalysisAccount", "AnalysisSpec"]


class AnalysisSpec(BaseModel):
    """A verdict, ``seconds`` after a cycle was triggered first; or what stands in its way.

    ``trouble``: ``hangs`` never answers, ``drops`` breaks the connection, ``redirects`` sends elsewhere, ``huge`` never
    ends, ``compressed`` is a bomb, ``other_cycle`` is a verdict on another one. ``status`` answers everything with
    that status, ``body`` is said instead of a verdict. With ``only_reads`` triggering works in spite of all this.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdict: Verdict = Verdict.RESTART
    tasks: tuple[TaskId, ...] = ()
    reason: str = "looked at the logs"
    seconds: float = Field(default=0.0, ge=0)
    trouble: Literal["hangs", "drops", "redirects", "huge", "compressed", "other_cycle"] | None = None
    status: int | None = None
    body: str | None = None
    only_reads: bool = False


@dataclass(frozen=True, slots=True)
class AnalysisAccount:
    """How often each cycle was triggered and read, by its id; each that was triggered was analysed once."""

    triggers: dict[str, int] = field(default_factory=dict[str, int])
    reads: dict[str, int] = field(default_factory=dict[str, int])
