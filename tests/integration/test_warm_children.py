"""A forked child is what a fresh one is: its words, files, surroundings, signals, end; and nothing of its siblings."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.integration.warm_children import WarmChild, run_warm

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = """
import os, random, sys
print(sys.argv[1:], __name__, os.getcwd(), sorted(os.environ), random.random())
print("headgate" in sys.modules, sys.path[0], file=sys.stderr)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return path


def written(folder: Path, text: str) -> list[str]:
    path = folder / "program.py"
    path.write_text(text, encoding="utf-8")
    return [sys.executable, str(path)]


def test_it_has_its_own_words_place_surroundings_and_chance(script: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    told = [run_warm([sys.executable, script, "a", "b c"], cwd=tmp_path / "there", env={"A": "1"}) for _ in range(2)]
    assert [one.returncode for one in told] == [0, 0]
    expected = f"['a', 'b c'] __main__ {tmp_path / 'there'} ['A'] "
    assert all(one.stdout.startswith(expected) for one in told)
    assert told[0].stdout != told[1].stdout, "both draw the same numbers"
    assert told[0].stderr == f"True {tmp_path}\n"


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("raise SystemExit(3)", 3, ""),
        ("1 / 0", 1, "ZeroDivisionError"),
        ("import atexit; atexit.register(print, 'late', flush=True)", 0, ""),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, ""),
    ],
)
def test_it_ends_as_a_program_does(text: str, code: int, said: str, tmp_path: Path) -> None:
    told = run_warm(written(tmp_path, text))
    assert told.returncode == code
    assert said in told.stderr
    assert ("late" in told.stdout) == ("late" in text)


def test_it_is_killed_while_siblings_go_on(tmp_path: Path) -> None:
    """The siblings hold none of its pipes: else nobody would see that it has gone."""
    command = written(tmp_path, "import sys\nprint('up', flush=True)\nprint(sys.stdin.read(), flush=True)")
    start = partial(WarmChild, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with start() as one, start() as other:
        for child in (one, other):
            assert child.stdout is not None
            assert child.stdout.readline() == "up\n"
            assert child.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            one.wait(0.01)
        one.kill()
        assert one.communicate() == ("", "")
        assert one.wait() == -signal.SIGKILL
        assert other.stdin is not None
        other.stdin.write("there")
        assert other.communicate() == ("there\n", "")
        assert other.wait() == 0
    with pytest.raises(ProcessLookupError):
        os.kill(one.pid, 0)


def test_ctrl_c_reaches_it(tmp_path: Path) -> None:
    waits = "import time\ntry:\n    print('up', flush=True)\n    time.sleep(60)\n"
    with WarmChild(
        written(tmp_path, f"{waits}except KeyboardInterrupt:\n    print('bye')"), stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        child.send_signal(signal.SIGINT)
        assert child.communicate() == ("bye\n", "")
        assert child.wait() == 0


def test_one_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    told = run_warm(written(tmp_path, "import time; time.sleep(60)"), timeout=0.2)
    assert told.returncode == -signal.SIGKILL
