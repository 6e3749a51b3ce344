"""A user's pipeline under ``headgate supervise``, which behaves as the files beside its store say."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import headgate

pipeline = headgate.Pipeline("tickets")


@pipeline.column()
def double(n: int) -> int:
    if n == 7 and Path("poison").exists():
        time.sleep(0.3)  # until what was done before is on record
        os.kill(os.getpid(), signal.SIGKILL)
    if Path("slow").exists():
        Path("pid").write_text(str(os.getpid()), encoding="utf-8")
        time.sleep(0.1)
    while n > 4 and "HOLDS" in os.environ and Path("hold").exists():
        time.sleep(0.02)
    return 2 * n


rows = [{"n": n} for n in range(40)]
