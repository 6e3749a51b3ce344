"""A process that dies at any instant loses nothing that it had acknowledged (D1, D2, D5; T51, T52)."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tests.integration.warm_children import run_warm

PROGRAM = Path(__file__).with_name("sqlite_crash.py")
THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "deep"


def crash(mode: str, stride: int) -> dict[str, int]:
    command = [sys.executable, str(PROGRAM), mode, str(stride)]
    done = run_warm(command, timeout=200)
    assert done.returncode == 0, done.stderr
    report: dict[str, int] = json.loads(done.stdout)
    return report


def test_d2_killed_at_every_statement() -> None:
    """D2: killed between any two SQL statements, from the first of an empty disk to the last commit.

    Every seventh of some 165 by default, all of them with the deep profile.
    """
    report = crash("statements", 1 if THOROUGH else 7)
    assert report["kills"] >= (150 if THOROUGH else 20)
    assert report["partial"] >= (80 if THOROUGH else 8), "hardly any kill fell between two acknowledgements"


def test_t51_killed_after_each_acknowledgement() -> None:
    """T51: the producer was told "done", then the write was lost. The kill comes as soon as the word is out.

    T52: and what is kept is kept by the cell and row, not by the group: nothing acknowledged is ever done
    again.
    """
    report = crash("acknowledged", 1)
    assert report["kills"] >= 9
    assert report["partial"] >= 5, "half of the children stop at the word, however late the kill comes"
