"""A service that gives verdicts on failed cycles, for tests of restarts: :class:`AnalysisProcess`."""

from __future__ import annotations

from .process import AnalysisProcess
from .spec import AnalysisAccount, AnalysisSpec

__all__ = ["AnalysisAccount", "AnalysisProcess", "AnalysisSpec"]
