"""What the library says goes to standard error, or where the program's structlog sends it: never among its output."""

from __future__ import annotations

import re
import sys
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from structlog.testing import capture_logs

import headgate
from headgate.log import logger
from headgate.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import MutableMapping


def test_a_program_that_configured_nothing_keeps_its_output(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(structlog, "is_configured", lambda: False)
    logger(run="p").warning("look at this", rows=3)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "look at this" in shown.err
    assert "rows" in shown.err


def test_a_program_that_configured_structlog_gets_it_its_own_way(capsys: pytest.CaptureFixture[str]) -> None:
    with capture_logs() as entries:
        logger(run="p").warning("look at this", rows=3)
    assert entries == [{"event": "look at this", "run": "p", "rows": 3, "log_level": "warning"}]
    assert capsys.readouterr() == ("", "")


class Gone:
    """A terminal that went away."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    def flush(self) -> None:
        self.write("")


CLOSED = StringIO()
CLOSED.close()


@pytest.mark.parametrize("stream", [None, Gone(), CLOSED], ids=["none", "gone", "closed"])
def test_no_run_ends_because_nobody_can_be_told(stream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its standard error was closed by whoever began it, or whoever read it has left: a word about a sink ended it."""

    async def a(row: int) -> int:
        return row

    def sink(_: object) -> None:
        raise ValueError

    monkeypatch.setattr(structlog, "is_configured", lambda: False)
    monkeypatch.setattr(sys, "stderr", stream)
    pipeline = headgate.Pipeline("p")
    pipeline.column(a)
    assert headgate.run(pipeline, 3, events=sink).done == 3


def test_a_program_may_configure_structlog_while_a_run_goes_on() -> None:
    entries: list[str] = []

    def told(_: object, __: str, event: MutableMapping[str, Any]) -> str:
        entries.append(event["event"])
        raise structlog.DropEvent

    async def away(row: int) -> int:
        structlog.configure(processors=[told])
        raise ConnectionError(row)

    structlog.reset_defaults()
    try:
        report = run_virtual(lambda: headgate.amap(away, 3, model="x/a", patience=10))
    finally:
        structlog.reset_defaults()
    assert report.status == "held"
    assert "resource given up" in entries


def test_nobody_asks_structlog_but_one_module() -> None:
    """A logger of structlog's own prints among what the program prints, as a table of results, say."""
    assert headgate.__file__ is not None
    source = Path(headgate.__file__).parent
    asks = re.compile(r"^\s*(import|from) structlog\b(?!\.typing)", re.MULTILINE)
    asking = [path for path in source.rglob("*.py") if asks.search(path.read_text())]
    assert [path.name for path in asking] == ["log.py"]
