"""Files that are cut short or changed: a clear error or what was committed before, never anything else (D2, T45)."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tests.integration.warm_children import run_warm

PROGRAM = Path(__file__).with_name("store_damage.py")
THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
SORTS = {"file: log", "file: pack", "file: payload file", "sqlite: payload file", "sqlite: write-ahead log"}


def test_t45_damaged_files_are_never_silently_wrong() -> None:
    """T45: logs and payload files of both kinds of store, damaged one at a time; the program fails if data is wrong."""
    command = [sys.executable, str(PROGRAM), str(150 if THOROUGH else 5)]
    done = run_warm(command, timeout=400)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, int]] = json.loads(done.stdout)
    assert found.keys() == {*SORTS, "sqlite: database"}
    assert found["sqlite: write-ahead log"].keys() == {"prefix", "went on"}, "what is damaged ends the log"
    for sort in SORTS - {"sqlite: write-ahead log", "file: log"}:
        assert "ResultCorrupt" in found[sort], sort
        assert found[sort].keys() <= {"ResultCorrupt", "all"}, sort  # a byte may be one that nobody needs
    assert "ResultCorrupt" in found["file: log"]
