"""The live view: lines that fit, an end that is told with a range, one table on a screen at a time."""

from __future__ import annotations

import io
import os
import pty
import random
import signal
import sys
from dataclasses import replace
from functools import partial
from math import inf, isclose
from typing import TYPE_CHECKING

import anyio
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import headgate
from headgate.engine import ColumnReport, ResourceStatistics, RunStatistics
from headgate.engine.interrupts import interruptible
from headgate.engine.spending import Spent
from headgate.observe import live, watch
from headgate.observe.rates import LOOK_EVERY_S, LOOKS, Rates
from headgate.observe.view import progress_line, view_lines
from headgate.testing import run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable
from headgate.values import Usage


def statistics(
    seconds: float = 1.0, done: int = 0, columns: int = 1, resources: int = 1, name: str = "m"
) -> RunStatistics:
    return RunStatistics(
        run="tickets",
        seconds=seconds,
        accepted=done + 5,
        done=done,
        failed=0,
        skipped=0,
        restored=0,
        open_rows=5,
        columns=tuple(ColumnReport(f"{name}{number}", done, number % 2, 0, 0) for number in range(columns)),
        resources=tuple(
            ResourceStatistics(
                f"acme/{name}{number}", 3, (inf, 8.0)[number % 2], 4, 2, 10 * done, done,
                (0.0, 3.0, inf)[number % 3], "paused" if number % 3 == 2 else "concurrency limit", Usage(100 * done, 0),
            )
            for number in range(resources)
        ),
    )  # fmt: skip


@given(
    st.integers(0, 10**9), st.integers(1, 80), st.integers(0, 30), st.text("abc/-", min_size=1, max_size=60),
    st.none() | st.integers(0, 10**9), st.integers(48, 200), st.integers(12, 60),
)  # fmt: skip
def test_the_view_fits_its_screen(
    done: int, columns: int, resources: int, name: str, total: int | None, width: int, height: int
) -> None:
    rates = Rates(total)
    now = statistics()
    for seconds in range(0, 60, 3):
        now = statistics(seconds, done * seconds // 60, columns, resources, name)
        rates.look(now)
    lines = view_lines(now, total, rates, width=width, height=height)
    assert len(lines) <= height
    assert max(len(line.text) for line in lines) <= width
    left_out = columns + resources - sum(line.text.startswith("and ") for line in lines)
    assert len(lines) >= min(left_out, height - 8)


def test_what_a_view_says() -> None:
    rates, now = Rates(100), statistics()
    for second in range(11):
        now = statistics(float(second), second, 2, 3)
        rates.look(now)
    wide = [line.text for line in view_lines(now, 100, rates, width=140, height=40)]
    assert wide[0] == "tickets: 10 of 100 rows done, 0 failed, 0 cells held back"
    assert wide[1].endswith("  10 %  10.0 s, no end while paused")
    assert wide[3].split() == [
        "model", "in", "flight", "limit", "req/s", "429s", "held", "ready", "requests", "tokens/min", "pace",
    ]  # fmt: skip
    assert wide[4].split() == ["acme/m0", "3", "-", "10.0", "10", "2", "4", "100", "6000", "concurrency", "limit"]
    assert wide[5].endswith("concurrency limit 3.0 s")
    assert wide[6].endswith("paused")
    narrow = [line.text for line in view_lines(now, None, rates, width=60, height=40)]
    assert narrow[1].startswith("10.0 s")
    assert narrow[3].split() == ["model", "in", "flight", "req/s", "429s", "pace"]
    assert narrow[5].split() == ["acme/m1", "3/8", "10.0", "10", "concurrency", "limit", "3.0", "s"]


def test_a_steady_run_ends_when_it_says() -> None:
    rates = Rates(1000)
    assert rates.eta() is None
    for second in range(0, 40, 2):
        rates.look(statistics(float(second), 5 * second, columns=2))
    found = rates.eta()
    assert found is not None
    left = (1000 - 190) / 5
    assert isclose(found.likely_s, left)
    assert isclose(found.low_s, left)
    assert isclose(found.high_s, left)


def test_a_run_that_stands_still_has_no_end_and_one_without_a_total_tells_none() -> None:
    for total, said in ((50, ", nothing gets done"), (None, "")):
        rates, now = Rates(total), statistics()
        for second in range(0, 20, 2):
            now = statistics(float(second), 3)
            rates.look(now)
        assert progress_line(now, total, rates).endswith(f"after 18.0 s{said}; in flight: acme/m0 3/-")
    rates, now = Rates(3), statistics()
    for second in range(0, 20, 2):
        now = statistics(float(second), 3)
        rates.look(now)
    assert "to go" not in progress_line(now, 3, rates)


def looks(*columns: int, seconds: float, given_up: tuple[str, ...] = (), ready: int = 0) -> RunStatistics:
    """A run of which so much of each column is done, with one resource on which a tenth of the first is asked."""
    now = statistics(seconds, columns=len(columns))
    (resource,) = now.resources
    return replace(
        now,
        columns=tuple(replace(of, done=done, failed=0) for of, done in zip(now.columns, columns, strict=True)),
        resources=(replace(resource, requests=columns[0] // 10, ready=ready, in_flight=0),),
        given_up=given_up,
    )


def test_a_run_ends_with_its_slowest_part() -> None:
    """A column far ahead does not make the others faster; one that was given up holds nothing up."""
    rates = Rates(1000)
    for second in range(0, 42, 2):
        rates.look(looks(20 * second, 10 * second, 5 * second, second, seconds=second, given_up=("m3",)))
    found = rates.eta()
    assert found is not None
    assert found.likely_s == pytest.approx((1000 - 5 * 40) / 5)
    rates.look(looks(1000, 990, 999, 0, seconds=60, given_up=("m3",), ready=500))
    found = rates.eta()
    assert found is not None
    assert found.likely_s == pytest.approx(500 / (100 / 60)), "what waits for a resource is the longest"


def test_what_stands_still_beside_others_has_no_end_and_what_has_not_begun_none_at_most() -> None:
    for done, told in ((7, ", 20.0 s or more to go"), (0, ", 20.0 s to go (from 20.0 s on)")):
        rates, now = Rates(1000), statistics()
        for second in range(0, 52, 2):
            now = looks(300 + 10 * second, done, seconds=second + 1)
            rates.look(now)
        assert told in progress_line(now, 1000, rates), progress_line(now, 1000, rates)


def test_bursts_are_no_uncertainty() -> None:
    """A group column ends by hundreds at once; over a minute its speed is as steady as its rows."""
    rates = Rates(100_000)
    for second in range(0, 120, 2):
        rates.look(looks(second * 50 // 400 * 400, seconds=second))
    found = rates.eta()
    assert found is not None
    assert found.high_s < 1.5 * found.likely_s
    assert found.low_s > 0.7 * found.likely_s


@pytest.mark.parametrize("total", [400, 4000])
def test_the_range_holds_the_end_about_as_often_as_it_says(total: int) -> None:
    """Rows that end as a Poisson process would have it, a minute of them seen."""
    held = 0
    for seed in range(60):
        rng, rates, done, at = random.Random(seed), Rates(total), 0, 0.0
        ends: list[float] = []
        while len(ends) < total:
            at += rng.expovariate(3.0)
            ends.append(at)
        for look in range(0, 60, 2):
            while done < total and ends[done] <= look:
                done += 1
            rates.look(statistics(float(look), done))
        found = rates.eta()
        assert found is not None
        held += found.low_s <= ends[-1] - 58 <= found.high_s
    assert 45 <= held <= 60


def test_only_so_many_looks_are_kept() -> None:
    rates = Rates(10**9)
    for look in range(10 * LOOKS):
        rates.look(statistics(look * LOOK_EVERY_S / 4, look))
    assert rates.of("acme/m0").requests_per_s == pytest.approx(10 * 4 / LOOK_EVERY_S)
    assert rates.of("unknown").requests_per_s == 0


# On a screen


def pipeline(name: str) -> headgate.Pipeline:
    made = headgate.Pipeline(name)

    @made.column
    async def wait(row: int) -> int:
        await anyio.sleep(1)
        return row

    return made


class BadKeyError(Exception):
    """What a provider says to a key that it does not know."""

    status_code = 401


class Terminal(io.StringIO):
    """Where a table can be drawn."""

    def isatty(self) -> bool:
        return True


def screen(*, terminal: bool, jupyter: bool = False) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=terminal, force_jupyter=jupyter, width=100, height=30), file


def test_where_there_is_no_terminal_plain_lines_come_ever_more_rarely() -> None:
    console, file = screen(terminal=False)

    async def main() -> None:
        await headgate.arun(
            pipeline("p"), 120, local_workers=1, started=live(total=120, console=console), min_open_rows=1
        )

    run_virtual(main)
    lines = file.getvalue().splitlines()
    assert lines[0] == "p: 1 of 120 rows done, 0 failed, 0 cells held back after 2.0 s"
    assert lines[-1].startswith("p: 120 of 120 rows done, 0 failed, 0 held after 2 min")
    assert 8 <= len(lines) <= 16


class Output:
    """One output of a notebook's cell, as IPython shows things there."""

    def __init__(self, shown: object) -> None:
        self.shown = [str(shown)]

    def update(self, shown: object) -> None:
        self.shown.append(str(shown))


class Cell:
    """A notebook's cell."""

    def __init__(self) -> None:
        self.outputs: list[Output] = []

    def display(self, shown: object, *, display_id: bool) -> Output:
        assert display_id
        self.outputs.append(Output(shown))
        return self.outputs[-1]


@pytest.mark.parametrize("ipython", [True, False])
def test_a_notebook_has_one_output_for_each_run_that_changes_in_place(
    *, ipython: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two at once stand below each other; where only rich believes that it is a notebook there are plain lines."""
    cell, file = Cell(), io.StringIO()
    monkeypatch.setitem(sys.modules, "IPython.display", cell if ipython else None)  # pyright: ignore[reportArgumentType]

    async def main() -> None:
        async with headgate.Engine() as engine:
            for name in ("one", "two"):
                run = await engine.start(pipeline(name), 200)
                run.attend(partial(watch, run, total=200, console=Console(file=file, force_jupyter=True)))
            await run.wait()
            await anyio.sleep(60)

    run_virtual(main)
    if ipython:
        assert [output.shown[-1].splitlines()[0] for output in cell.outputs] == [
            "one: 200 of 200 rows done, 0 failed, 0 held",
            "two: 200 of 200 rows done, 0 failed, 0 held",
        ]
        assert all(3 <= len(output.shown) <= 20 for output in cell.outputs)
        assert file.getvalue() == capsys.readouterr().out == ""
    else:
        assert not cell.outputs


def test_a_screen_has_one_table_at_a_time_and_others_speak_above_it() -> None:
    """The second run's lines come through the console that draws; both ends are shown."""
    console, file = screen(terminal=True)
    other = Console(file=file, force_terminal=True, width=100)

    async def main() -> None:
        async with headgate.Engine() as engine:
            for name, rows, shown in (("one", 300, console), ("two", 200, other)):
                run = await engine.start(pipeline(name), rows)
                live(total=rows, console=shown)(run)
                await anyio.sleep(0.1)
            await run.wait()
            await anyio.sleep(60)

    run_virtual(main)
    told = file.getvalue()
    assert "\x1b[1mone: 300 of 300 rows done, 0 failed, 0 held\x1b" in told
    assert "two: 200 of 200 rows done, 0 failed, 0 held after" in told
    assert "\x1b[1mtwo" not in told, "two tables on one screen"
    assert told.count("\x1b[?25l") == told.count("\x1b[?25h") == 1, "the cursor is hidden once and shown again"


def test_what_is_said_meanwhile_stands_above_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry of the log, on standard error as the table; what the program prints goes where it always went."""
    structlog.reset_defaults()  # whoever captured entries in this process has left it configured
    file, printed = Terminal(), io.StringIO()
    monkeypatch.setattr("sys.stderr", file)
    monkeypatch.setattr("sys.stdout", printed)
    made = headgate.Pipeline("p")

    @made.column(model="acme/m")
    async def ask(row: int) -> int:
        print(f"asked {row}")
        await anyio.sleep(1)
        raise BadKeyError

    async def main() -> None:
        await headgate.arun(made, 3, limits={"acme/m": {"concurrency": 1}}, started=live(total=3))

    run_virtual(main)
    drawn = file.getvalue()
    said = drawn.index("resource parked")
    assert drawn.rfind("\x1b[2K", 0, said) > drawn.rfind("\n", 0, said), "it overwrites a line of the table"
    assert "rows done" in drawn[said:], "the table is drawn again below"
    assert "parked\x1b[0m" in drawn[said:]
    assert printed.getvalue() == "asked 0\n"


def test_at_the_end_what_is_held_is_told_once() -> None:
    """Cells that waited for their time when the run ended are not counted again as those that are left."""
    made = headgate.Pipeline("p")

    @made.column(model="acme/m")
    async def ask(row: int) -> int:
        await anyio.sleep(1)
        raise BadKeyError if row else ConnectionResetError

    seen: list[RunStatistics] = []

    async def main() -> None:
        async with headgate.Engine() as engine:
            run = await engine.start(made, 5)
            await run.wait()
            seen.append(run.statistics())

    run_virtual(main)
    (now,) = seen
    assert (now.held, now.columns[0].held, now.ending, now.given_up) == (5, 5, "held", ("ask",))
    assert now.resources[0].pace == "parked"
    assert progress_line(now, 5).startswith("p: 0 of 5 rows done, 0 failed, 5 held after")


def test_a_pause_and_a_stop_are_said() -> None:
    made = headgate.Pipeline("p")

    @made.column(model="acme/m")
    async def ask(row: int) -> int:
        await anyio.sleep(1)
        return row

    seen: list[RunStatistics] = []

    async def main() -> None:
        async with headgate.Engine() as engine:
            run = await engine.start(made, 100, budget=headgate.Budget(tokens=1000))
            await anyio.sleep(0.5)
            engine.controls.pause("acme")
            seen.append(run.statistics())
            engine.controls.resume("acme")
            run.stop()
            seen.append(run.statistics())
            await run.wait()

    run_virtual(main)
    assert (seen[0].ending, seen[0].resources[0].pace) == ("", "paused")
    assert seen[1].ending == "stopping"
    rates = Rates(100)
    lines = [line.text for line in view_lines(seen[1], 100, rates, width=100, height=30)]
    assert lines[1].endswith("500 ms, stopping")
    assert lines[2] == "spent 0 of 1000 tokens"


def test_large_and_small_sums_are_told_without_an_exponent() -> None:
    now = replace(statistics(resources=0), spent=Spent(12_345.678, 4), budget=headgate.Budget(20_000))
    assert progress_line(now).endswith(", spent $12,345.68 of $20,000.00, 4 tokens")
    assert progress_line(replace(now, spent=Spent(0.00009, 4), budget=None)).endswith(", spent $0.00009, 4 tokens")


def test_a_view_that_breaks_does_not_harm_the_run() -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError("the terminal went away")

    console = Console(file=Broken(), force_terminal=True)

    async def main() -> headgate.RunReport:
        return await headgate.arun(pipeline("p"), 3, started=live(console=console))

    assert run_virtual(main).done == 3


def test_where_rich_is_missing_a_run_says_why_it_has_no_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was shown, and nothing said."""
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with structlog.testing.capture_logs() as said:
        assert headgate.run(pipeline("p"), 2, started=live(total=2)).done == 2
    structlog.reset_defaults()
    (entry,) = said
    assert (entry["event"], entry["log_level"]) == ("no live view", "warning")
    assert "pip install 'headgate[progress]'" in entry["reason"]


def test_a_terminal_has_its_cursor_back_when_ctrl_c_leaves_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A live view hides it, and nothing else runs any more that would show it."""

    class Left(BaseException):
        pass

    def leave(code: int) -> None:
        assert code == 130
        raise Left

    def press() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)

    class Going:
        done = False

        def stop(self) -> None:
            press()

    async def face(started: Callable[[Going], None]) -> None:
        started(Going())
        await anyio.wait_all_tasks_blocked()  # until somebody listens
        press()
        await anyio.sleep(10)

    async def listening() -> None:
        await interruptible(face, {}, signals=[signal.SIGUSR1])

    shown, terminal = pty.openpty()
    with os.fdopen(terminal, "w") as stderr, os.fdopen(shown, "rb", buffering=0) as screen:
        monkeypatch.setattr("sys.stderr", stderr)
        monkeypatch.setattr(os, "_exit", leave)
        with pytest.raises(BaseExceptionGroup) as raised:
            anyio.run(listening)
        assert raised.group_contains(Left)
        assert screen.read(100) == b"\x1b[?25h\r\n"
