"""Finding out where numbers come from: the code, the machine, the libraries."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from .result import Machine, Provenance

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["machine", "provenance"]

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = (
    "headgate",
    "anyio",
    "pydantic",
    "structlog",
    "trio",
    "aiohttp",
    "openai",
    "httpx",
    "httpx2",
    "tenacity",
    "aiometer",
)


def provenance(*, seed: int, effort: str, argv: Sequence[str]) -> Provenance:
    """Everything that somebody needs who wants to measure the same again."""
    revision, dirty, diff = _code()
    return Provenance(
        revision=revision,
        dirty=dirty,
        diff=diff,
        machine=machine(),
        versions=_versions(),
        seed=seed,
        effort=effort,
        argv=tuple(argv),
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def machine() -> Machine:
    """What this is running on."""
    return Machine(
        cpu=_said_by("/proc/cpuinfo", "model name") or platform.processor() or None,
        cpus=os.cpu_count() or 1,
        memory_gib=_memory_gib(),
        platform=platform.platform(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
    )


def _said_by(path: str, key: str) -> str | None:
    """The value of a ``key : value`` line of a file that Linux has."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = (value.strip() for name, _, value in (line.partition(":") for line in lines) if name.strip() == key)
    return next(found, None)


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return None


def _code() -> tuple[str | None, bool | None, str | None]:
    revision = _git("rev-parse", "HEAD")
    changes = _git("diff", "HEAD", "--binary")
    others = _git("ls-files", "--others", "--exclude-standard", "-z")
    if revision is None or changes is None or others is None:
        return None, None, None
    if not changes and not others:
        return revision.decode().strip(), False, None
    digest = sha256(changes)
    for name in sorted(others.split(b"\0")):
        path = ROOT / os.fsdecode(name)
        if name and path.is_file():
            digest.update(name + b"\0" + path.read_bytes())
    return revision.decode().strip(), True, digest.hexdigest()[:16]


def _git(*arguments: str) -> bytes | None:
    git = shutil.which("git")
    if git is None:
        return None
    command = [git, "-c", "safe.directory=*", *arguments]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    return ran.stdout if ran.returncode == 0 else None


def _versions() -> dict[str, str]:
    found: dict[str, str] = {"python": sys.version.split()[0]}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
