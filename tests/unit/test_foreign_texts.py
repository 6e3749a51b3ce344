"""Texts that come from outside, with characters that no file keeps or that a terminal obeys."""

from __future__ import annotations

import pytest

import headgate
from headgate.cli.data import as_json, of_report
from headgate.salvage import Failure, FailureKind
from tests.unit.asked import asking, echo


@pytest.mark.parametrize("classified", [False, True])
def test_what_a_failure_says_can_be_written_anywhere(classified: bool) -> None:
    """Half of a surrogate pair, as an answer has that was cut, ended the command line with a traceback in place of the
    report; and a terminal obeyed what a provider said.
    """
    said = "cut \ud83d, then \x1b[2J and \u202e"
    pipeline = headgate.Pipeline("p")

    @pipeline.column
    async def a(row: int) -> int:
        raise ValueError(said)

    def classify(_: BaseException) -> Failure:
        return Failure(FailureKind.REJECTED, said, traceback=said)

    report = headgate.run(pipeline, 1, classify=classify if classified else None)
    (entry,) = report.failures
    assert entry.message.startswith("cut \\ud83d, then \x1b[2J")
    assert entry.traceback is not None
    assert entry.traceback.encode()
    assert "cut \\ud83d, then \\x1b[2J and \\u202e" in str(report)
    assert as_json(of_report(report)).encode()


@pytest.mark.parametrize("name", ["a\udcff", "a\0b"])
def test_a_run_has_a_name_that_every_store_can_keep(name: str) -> None:
    """As bytes of a command line that are no text become it. SQLite raised a UnicodeEncodeError."""
    with pytest.raises(headgate.ConfigError, match="is no name for a run"):
        headgate.run(asking(echo), 1, run=name)
