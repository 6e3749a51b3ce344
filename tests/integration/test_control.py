"""A run under control from outside, over a real socket; and what it makes of peers that mean no good."""

from __future__ import annotations

import json
import os
import socket
from contextlib import contextmanager
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
import anyio.to_thread
import pytest
from typer.testing import CliRunner

import headgate
from headgate.cli.app import app
from headgate.control import ask
from headgate.control import server as serving
from headgate.control.places import bound, sockets_in
from headgate.control.protocol import Drain, Look, Pause, Resume, SetLimits
from headgate.errors import ConfigError, HeadgateError
from headgate.testing import run_virtual
from headgate.values import ResourceKey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator
    from pathlib import Path

    from headgate import Engine, Run

LIMITS: dict[str, Any] = {"acme/small": {"concurrency": 4}}


class Told(NamedTuple):
    code: int
    out: str
    err: str


def ctl(*arguments: object) -> Told:
    result = CliRunner().invoke(app, ["ctl", *map(str, arguments)], prog_name="headgate")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Told(result.exit_code, result.stdout, result.stderr)


class Slow:
    """Rows that take as long as they are let."""

    def __init__(self) -> None:
        self.started = 0
        self.go = anyio.Event()
        self.pipeline = headgate.Pipeline("slow")

        @self.pipeline.column(model="acme/small")
        async def answer(row: int) -> int:
            self.started += 1
            await self.go.wait()
            return row

    async def underway(self) -> None:
        await until(lambda: self.started == 4)


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - it looks at what nobody announces
        await anyio.sleep(0.005)


def engine(place: object, **options: Any) -> Engine:
    return headgate.Engine(limits=LIMITS, control=place, **options)  # type: ignore[arg-type]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "c" / "s"


async def told(place: Path, command: Any) -> dict[str, Any]:
    return await anyio.to_thread.run_sync(partial(ask, place, command))


async def test_a_run_is_looked_at_paused_changed_and_drained(place: Path) -> None:
    slow = Slow()
    async with engine(place) as running:
        run = await running.start(slow.pipeline, 10_000)
        await slow.underway()
        look = await told(place, Look())
        scope = next(one for one in look["scopes"] if one["scope"] == "acme/small")
        assert (scope["in_flight"], scope["limit"], scope["paused"]) == (4, 4, False)
        assert [one["run"] for one in look["runs"]] == ["slow"]
        assert await told(place, SetLimits("acme/small", {"concurrency": 2})) == {}
        assert await told(place, Pause("acme/small")) == {}
        slow.go.set()
        await until(lambda: not run.in_flight)
        assert slow.started == 4, "a paused scope let something out"
        assert (await told(place, Look()))["scopes"][-1]["paused"]
        with pytest.raises(HeadgateError, match="no resource in use has the scope 'acme/large'"):
            await told(place, Pause("acme/large"))
        assert await told(place, Drain()) == {"runs": ["slow"]}
        assert await told(place, Resume("acme/small")) == {}
        report = await run.wait()
    assert report.status == "stopped"
    assert report.held == 0, "rows that were open are finished"
    assert 4 < report.done < 10_000
    assert report.resources[0].peak_in_flight == 4
    assert not await anyio.Path(place).exists()


@contextmanager
def peers(place: Path, count: int) -> Generator[list[socket.socket]]:
    found = [socket.socket(socket.AF_UNIX) for _ in range(count)]
    try:
        for peer in found:
            peer.settimeout(10)
            peer.connect(str(place))
        yield found
    finally:
        for peer in found:
            peer.close()


def says(peer: socket.socket, line: bytes) -> bytes:
    peer.sendall(line)
    answer = b""
    while part := peer.recv(4096):
        answer += part
    return answer


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_peers_that_hang_or_talk_rubbish_cost_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "PEER_PATIENCE_S", 0.3)
    slow = Slow()
    async with engine(place) as running:
        run = await running.start(slow.pipeline, 8)

        def rubbish() -> list[bytes]:
            with peers(place, 3) as (one, two, three):
                return [says(one, b"\xff\n"), says(two, b"[" * 20_000), says(three, b'{"headgate": 9}\n')]

        for answer in await anyio.to_thread.run_sync(rubbish):
            found = json.loads(answer)
            assert (found["headgate"], found["ok"]) == (1, False)
        with peers(place, 8) as hanging:
            for _ in range(200):
                if await anyio.to_thread.run_sync(_busy, place):
                    break
            else:
                raise AssertionError("any number of peers is heard")
            over = await anyio.to_thread.run_sync(partial(says, hanging[0], b""))
            assert over == b"", "one that says nothing is left alone after a while"
        assert (await told(place, Look()))["pid"]
        slow.go.set()
        assert (await run.wait()).done == 8


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
@pytest.mark.parametrize("fails", ["the answer", "the connection"])
async def test_no_command_ends_the_runs(place: Path, fails: str, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow()
    async with engine(place) as running:
        run = await running.start(slow.pipeline, 8)
        await slow.underway()

        def said() -> bytes:
            with peers(place, 1) as (peer,):
                return says(peer, b'{"headgate": 1, "do": "limits", "scope": "\\udcff", "limits": {"x": 1}}\n')

        def broken(*_: object) -> bytes:
            raise ZeroDivisionError

        if fails == "the answer":
            answer = json.loads(await anyio.to_thread.run_sync(said))
            assert not answer["ok"]
            assert answer["error"].startswith("the answer cannot be written: ")
        else:
            with monkeypatch.context() as patched:
                patched.setattr(serving, "_answer", broken)
                assert await anyio.to_thread.run_sync(said) == b""
        assert (await told(place, Look()))["pid"], "others are heard after it"
        slow.go.set()
        assert (await run.wait()).done == 8


@contextmanager
def no_descriptors() -> Generator[None]:
    """None can be opened; those that are open stay."""
    import resource  # not on Windows, which has no such sockets

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_without_a_free_descriptor_the_runs_go_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "ACCEPT_PAUSE_S", 0.01)
    slow = Slow()
    async with engine(place) as running:
        run = await running.start(slow.pipeline, 8)
        await slow.underway()
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(10)
            with no_descriptors():
                peer.connect(str(place))
                for _ in range(5):
                    await anyio.sleep(0.01)
            answer = await anyio.to_thread.run_sync(says, peer, b'{"headgate": 1, "do": "status"}\n')
        assert json.loads(answer)["ok"], "it is heard once there is a descriptor"
        slow.go.set()
        assert (await run.wait()).done == 8


def _busy(place: Path) -> bool:
    """Whether no more peers are let in."""
    with peers(place, 1) as (peer,):
        try:
            return says(peer, b'{"headgate": 1, "do": "status"}\n') == b""
        except OSError:
            return True


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_the_commands_speak_to_the_only_run_that_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert (await anyio.to_thread.run_sync(ctl, "status")).err.startswith("headgate: no run listens: start one with")
    slow = Slow()

    async def said(*arguments: object) -> Told:
        return await anyio.to_thread.run_sync(partial(ctl, *arguments))

    async with engine(True, store=tmp_path / "run.db") as running:
        run = await running.start(slow.pipeline, 1000)
        await slow.underway()
        code, out, _ = await said("status")
        assert code == 0
        assert "run slow: 0 rows done, 0 failed" in out
        assert "  acme/small          4      4\n" in out
        assert (await said("limits", "acme/small", "concurrency=3", "queue_timeout=5")).out == (
            "acme/small: concurrency=3, queue_timeout=5\n"
        )
        assert (await said("limits", "acme/small", "concurrency=null")).code == 0
        stated = running.admission.book.entries["acme/small"]
        assert stated.model_dump(exclude_unset=True) == {"concurrency": None, "queue_timeout": 5}
        wrong = await said("limits", "acme/small", "concurency=3")
        assert (wrong.code, wrong.err) == (
            1,
            'headgate: limits: "acme/small": unknown key "concurency" = 3: did you mean concurrency?\n',
        )
        assert (await said("pause", "acme/small")).out == "acme/small is paused\n"
        assert "paused" in (await said("status")).out
        assert json.loads((await said("resume", "acme/small", "--json")).out) == {}
        assert (await said("drain", "--run", "other")).err == ("headgate: no run 'other' goes on here (there: slow)\n")
        async with engine(True):
            assert "several runs listen, say which with --socket" in (await said("status")).err
            stopped = await said("stop", "--grace", "0s", "--socket", running.control_path, "--json")
        assert json.loads(stopped.out) == {"runs": ["slow"]}
        assert (await run.wait()).status == "stopped"
    assert (await said("status", "--socket", tmp_path / "headgate" / "gone.sock")).code == 1


def test_an_engine_that_has_just_ended_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its socket was there when the directory was listed, and is not any more when it is looked at."""
    listener, place = bound(tmp_path / "own" / "b.sock")
    gone = place.with_name("a.sock")

    def listed(_: Path) -> list[Path]:
        return [place, gone]

    monkeypatch.setattr(type(place), "iterdir", listed)
    with listener:
        assert list(sockets_in(place.parent)) == [place]


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_an_engine_that_cannot_listen_does_not_begin(place: Path) -> None:
    async with engine(place):
        with pytest.raises(ConfigError, match="an engine that is running answers"):
            async with engine(place):
                raise AssertionError("it began")
    await anyio.Path(place).touch()
    with pytest.raises(ConfigError, match="is no socket"):
        await told(place, Look())


def test_a_socket_that_took_the_place_of_another_stays(place: Path) -> None:
    first = serving.open_control(place)
    place.rename(place.with_name("aside"))
    second = serving.open_control(place)
    first.close()
    assert place.is_socket()
    second.close()
    assert not place.exists()


def test_a_socket_with_the_file_number_of_another_stays(place: Path) -> None:
    """File systems give the number of a file that is gone to the next one: the change time tells the two apart."""
    first = serving.open_control(place)
    bound_at = place.stat().st_ctime_ns
    while place.stat().st_ctime_ns == bound_at:
        place.chmod(0o600)  # the time is another one, as after binding again
    first.close()
    assert place.is_socket()


# Draining and pausing as such


def drained(rows: Any, at_s: float, **options: Any) -> tuple[headgate.RunReport, list[int]]:
    """A run of a second a row on four slots, drained after so many seconds."""
    pipeline = headgate.Pipeline("p")
    seen: list[int] = []

    @pipeline.column(model="acme/small")
    async def first(row: int) -> int:
        await anyio.sleep(1)
        return row

    @pipeline.column(model="acme/small")
    async def second(row: int, first: int) -> int:
        await anyio.sleep(1)
        seen.append(row)
        return row

    async def main() -> headgate.RunReport:
        async with headgate.Engine(limits=LIMITS) as running:
            run = await running.start(pipeline, rows, **options)
            run.attend(_later, at_s, run)
            return await run.wait()

    return run_virtual(main), seen


async def _later(at_s: float, run: Run) -> None:
    await anyio.sleep(at_s)
    run.drain()


def test_a_drained_run_finishes_what_is_open_and_leaves_the_rest() -> None:
    report, seen = drained(1000, 10.5)
    assert report.status == "stopped"
    assert "resume" in report.resume_hint or "memory" in report.resume_hint
    assert report.accepted == report.done == len(seen)
    assert 20 <= report.done <= 60
    assert drained(3, 1.5)[0].status == "completed", "all rows were in: nothing is left"


def test_a_drain_does_not_wait_for_rows_that_may_never_come() -> None:
    async def rows() -> Any:
        for row in range(5):
            yield {"row": row}
        await anyio.sleep(10_000)
        yield {"row": 5}

    report, _ = drained(rows(), 5.5)
    assert (report.status, report.done) == ("stopped", 5)
    assert report.seconds < 100


def test_a_drain_while_the_source_is_silent_finishes_the_last_row_group_at_once() -> None:
    pipeline = headgate.Pipeline("p")

    @pipeline.column(scope="group", timeout=5000)
    async def places(row: list[int]) -> list[int]:
        return row

    async def rows() -> AsyncIterator[dict[str, int]]:
        for row in range(5):
            yield {"row": row}
        await anyio.sleep(10_000)

    async def main() -> headgate.RunReport:
        async with headgate.Engine() as running:
            run = await running.start(pipeline, rows())
            await anyio.sleep(50)
            run.drain()
            return await run.wait()

    report = run_virtual(main)
    assert (report.status, report.done) == ("stopped", 5)
    assert report.seconds < 60


def test_the_time_of_a_pause_is_none_in_which_a_run_stalls() -> None:
    """Nobody looks at a run while it is paused, so the end of the pause counts, not the last look."""
    pipeline = headgate.Pipeline("p")

    @pipeline.column(model="acme/small")
    async def only(row: int) -> int:
        await anyio.sleep(30)
        return row

    async def main() -> headgate.RunReport:
        async with headgate.Engine(limits=LIMITS) as running:
            run = await running.start(pipeline, 10, stall_timeout=60)
            await anyio.sleep(1)
            running.controls.pause("acme/small")
            await anyio.sleep(145)
            running.controls.resume("acme/small")
            return await run.wait()

    report = run_virtual(main)
    assert (report.status, report.done) == ("completed", 10)


def test_what_a_run_finds_out_does_not_end_a_pause() -> None:
    async def main() -> list[float]:
        async with headgate.Engine(limits=LIMITS) as running:
            running.admission.register(ResourceKey.parse("acme/small"))
            running.controls.pause("acme/small")
            scope = running.admission.gate.scopes()["acme/small"]
            seen: list[float] = []
            running.admission.unblock("acme/small")
            seen.append(scope.cooldown.blocked_until)
            running.admission.block("acme/small", 7.0)
            seen.append(scope.cooldown.blocked_until)
            running.controls.resume("acme/small")
            return [*seen, scope.cooldown.blocked_until]

    paused, still, resumed = run_virtual(main)
    assert paused == still == inf
    assert resumed < 1


def test_a_pause_is_no_stall_and_ends_when_it_is_resumed() -> None:
    pipeline = headgate.Pipeline("p")

    @pipeline.column(model="acme/small")
    async def only(row: int) -> int:
        await anyio.sleep(1)
        return row

    async def main() -> headgate.RunReport:
        async with headgate.Engine(limits=LIMITS) as running:
            run = await running.start(pipeline, 40, stall_timeout=60)
            await anyio.sleep(2.5)
            running.controls.pause("acme/small")
            running.controls.pause("acme/small")
            await anyio.sleep(1000)
            done = run.statistics().done
            assert done == 12
            running.controls.resume("acme/small")
            running.controls.resume("acme/small")
            return await run.wait()

    report = run_virtual(main)
    assert (report.status, report.done) == ("completed", 40)
    assert 1005 <= report.seconds <= 1025
