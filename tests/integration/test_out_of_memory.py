"""A life that really runs out of memory, in a control group of its own: the system kills it, and that is known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from headgate.restart.process import CGROUP, CGROUPS
from tests.integration.warm_children import WarmChild

if TYPE_CHECKING:
    from collections.abc import Generator

MOST = 192 * 1024 * 1024
"""Bytes: enough for the supervisor, which is forked, and for an interpreter."""


@contextmanager
def memory_group() -> Generator[Path]:
    """A group below our own that may have so much memory and no swap. Skips the test where there can be none."""
    try:
        parent, limits = _parent()
        group = parent / f"headgate-test-{os.getpid()}"
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group of memory can be made here: {error}")
    try:
        for name in limits:
            (group / name).write_text(str(0 if "swap" in name else MOST), encoding="ascii")
        yield group
    except PermissionError as error:
        pytest.skip(f"no memory can be limited here: {error}")
    finally:
        for _ in range(100):  # what was killed is still leaving
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.05)


def _parent() -> tuple[Path, tuple[str, ...]]:
    """The group that we are in, and the names of the limits. Raises OSError."""
    groups = [line.split(":", 2) for line in CGROUP.read_text(encoding="ascii").splitlines()]
    for _, controllers, path in groups:
        if "memory" in controllers.split(","):
            return CGROUPS / "memory" / path.lstrip("/"), ("memory.limit_in_bytes", "memory.swappiness")
    (path,) = (path for hierarchy, _, path in groups if hierarchy == "0")
    parent = CGROUPS / path.lstrip("/")
    (parent / "cgroup.subtree_control").write_text("+memory", encoding="ascii")
    return parent, ("memory.max", "memory.swap.max")


@pytest.mark.skipif(sys.platform != "linux", reason="control groups are of Linux")
def test_a_life_that_the_system_kills_for_want_of_memory_is_known_as_that() -> None:
    script = Path(__file__).with_name("memory_child.py")
    with memory_group() as group:
        command = [sys.executable, str(script), str(group / "cgroup.procs")]
        with WarmChild(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            said, _ = child.communicate(timeout=60)
            assert child.returncode == 0
    assert json.loads(said.splitlines()[-1]) == [
        "killed",
        "out_of_memory",
        "the system killed 1 process for want of memory",
    ]
