"""What counts as a stall of the loop: the time that the process itself takes, apart from what other processes take."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from benchmarks import turns as watched
from benchmarks.turns import HEARTBEAT_S, Heartbeat, QueueTime, Turns, WatchedLoop


class Clocks(WatchedLoop):
    """A loop whose clocks are set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(Turns())
        self.now = self.cpu_s = self.loop_cpu_s = 0.0
        monkeypatch.setattr(time, "process_time", lambda: self.cpu_s)
        monkeypatch.setattr(time, "thread_time", lambda: self.loop_cpu_s)

    def time(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("wall_s", "cpu_s", "loop_cpu_s", "collected_s", "queued_s", "stalled_s"),
    [
        (0.030, 0.012, 0.012, 0.0, 0.0, 0.012),  # the machine took the rest
        (0.030, 0.050, 0.025, 0.0, 0.0, 0.030 - HEARTBEAT_S),  # two threads at once, one of them beside the lock
        (0.030, 0.029, 0.029, 0.020, 0.0, 0.009),
        (0.030, 0.050, 0.010, 0.0, 0.020, 0.030 - HEARTBEAT_S),  # behind threads of the process itself
        (0.030, 0.015, 0.010, 0.0, 0.020, 0.015 - HEARTBEAT_S),  # partly: 5 ms of the 20
        (0.030, 0.029, 0.029, 0.0, 0.020, 0.010 - HEARTBEAT_S),  # behind other processes
        (0.030, 0.030, 0.010, 0.010, 0.020, 0.020),  # behind a thread that collects, among other things
        (HEARTBEAT_S, 0.001, 0.001, 0.0, 0.0, 0.0),
    ],
)
def test_a_stall_is_what_the_process_itself_takes(
    monkeypatch: pytest.MonkeyPatch,
    wall_s: float,
    cpu_s: float,
    loop_cpu_s: float,
    collected_s: float,
    queued_s: float,
    stalled_s: float,
) -> None:
    turns, loop = Turns(), Clocks(monkeypatch)
    line = SimpleNamespace(waited_s=lambda: 5.0 + (queued_s if loop.now else 0.0), close=lambda: None)
    monkeypatch.setattr(watched, "QueueTime", lambda: line)
    heartbeat = Heartbeat(loop, turns)
    heartbeat.beat()
    loop.now, loop.cpu_s, loop.loop_cpu_s, loop.collections_s = wall_s, cpu_s, loop_cpu_s, collected_s
    heartbeat.beat()
    assert turns.late_s == pytest.approx(wall_s - HEARTBEAT_S)
    assert turns.stalled_s == pytest.approx(stalled_s)
    heartbeat.stop()
    loop.close()


def test_time_in_line_for_a_processor_only_grows() -> None:
    """On Linux the kernel says it; elsewhere it is nothing."""
    queue = QueueTime()
    first = queue.waited_s()
    time.sleep(0.001)
    assert 0.0 <= first <= queue.waited_s()
    queue.close()
    assert queue.waited_s() == 0.0
