"""The servers of :mod:`headgate.testing` in processes that begin warm. How they start: test_provider_server."""

from __future__ import annotations

import subprocess
from typing import cast

from headgate.testing.analysis import AnalysisProcess
from headgate.testing.provider import ProviderProcess
from tests.integration.warm_children import WarmChild


def launched(command: list[str]) -> subprocess.Popen[str]:
    child = WarmChild(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    return cast("subprocess.Popen[str]", child)


class WarmProvider(ProviderProcess):
    def _launch(self, command: list[str]) -> subprocess.Popen[str]:
        return launched(command)


class WarmAnalysis(AnalysisProcess):
    def _launch(self, command: list[str]) -> subprocess.Popen[str]:
        return launched(command)
