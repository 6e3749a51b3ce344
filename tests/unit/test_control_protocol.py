"""What a control socket understands, and what it makes of what it does not."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.control.places import answers, bound, check_ours, private_directory, sockets_in
from headgate.control.protocol import (
    VERSION,
    Command,
    Drain,
    Look,
    Misunderstood,
    Pause,
    Resume,
    SetLimits,
    Stop,
    read_command,
    written,
)
from headgate.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

names = st.text('ab/:é\n"\\', max_size=6)
commands: st.SearchStrategy[Command] = st.one_of(
    st.just(Look()),
    st.builds(Pause, names),
    st.builds(Resume, names),
    st.builds(SetLimits, names, st.dictionaries(names, st.none() | st.integers() | names, max_size=3)),
    st.builds(Drain, st.none() | names),
    st.builds(Stop, st.none() | names, st.none() | st.floats(0, 1e9)),
)


@given(commands)
def test_a_command_is_understood_as_it_was_meant(command: Command) -> None:
    line = written(command)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert read_command(line) == command


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | names,
    lambda parts: st.lists(parts) | st.dictionaries(st.sampled_from(["headgate", "do", "scope", "run"]) | names, parts),
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_rubbish_is_misunderstood_and_nothing_worse(line: bytes) -> None:
    try:
        command = read_command(line)
    except Misunderstood:
        return
    assert read_command(written(command)) == command


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"headgate": 2, "do": "status"}, "speaks version 1 of the protocol, not 2"),
        ({"do": "status"}, "not None"),
        ({"do": "reboot"}, "unknown command 'reboot' .there are status, pause"),
        ({"do": "pause"}, "pause: it takes scope, not nothing"),
        ({"do": "status", "scope": "x"}, "status: it takes nothing, not 'scope'"),
        ({"do": "pause", "scope": 3}, "scope must be text, not 3"),
        ({"do": "limits", "scope": "x", "limits": [1]}, "limits must be an object"),
        ({"do": "stop", "grace": -1}, "grace must be zero or more seconds"),
        ({"do": "stop", "grace": 10**400}, r"grace must be zero or more seconds, or null, not 1000.*\.\.\."),
        ({"do": "stop", "grace": True}, "grace must be zero or more seconds"),
        ({"do": "drain", "run": 1}, "run must be text or null"),
    ],
)
def test_what_is_wrong_with_a_command_is_said(stated: dict[str, Any], said: str) -> None:
    whole = stated if stated.keys() == {"do"} and stated["do"] == "status" else {"headgate": VERSION, **stated}
    with pytest.raises(Misunderstood, match=said):
        read_command(json.dumps(whole).encode())


# Places


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "own" / "run.sock"


def test_a_socket_is_its_users_alone(place: Path) -> None:
    listener, path = bound(place)
    with listener:
        assert path == place
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert list(sockets_in(place.parent)) == [place]
        check_ours(place)


def test_one_that_a_killed_process_left_is_replaced_and_one_that_answers_is_not(place: Path) -> None:
    left, _ = bound(place)
    with left, pytest.raises(ConfigError, match="an engine that is running answers at"):
        bound(place)
    assert place.is_socket(), "closing removes nothing: so it is after a kill"
    assert not answers(place)
    again, _ = bound(place)
    with again:
        assert answers(place)


def test_what_is_no_socket_of_ours_is_left_alone(place: Path, tmp_path: Path) -> None:
    place.parent.mkdir(mode=0o700)
    place.write_text("mine")
    with pytest.raises(ConfigError, match="is there and is no socket"):
        bound(place)
    assert place.read_text() == "mine"
    with pytest.raises(ConfigError, match="is no socket"):
        check_ours(place)
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o755)
    with pytest.raises(ConfigError, match="others may enter"):
        bound(open_to_all / "run.sock")
    (tmp_path / "link").symlink_to(place.parent)
    with pytest.raises(ConfigError, match="is no directory of its own"):
        private_directory(tmp_path / "link")
    with pytest.raises(ConfigError, match="too long for a socket"):
        bound(place.with_name("x" * 100))


def test_each_engine_gets_a_place_of_its_own_and_clears_away_what_others_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    first, one = bound(None)
    second, other = bound(None)
    assert {one.name, other.name} == {f"{os.getpid()}-1.sock", f"{os.getpid()}-2.sock"}
    first.close()
    with second, socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "headgate" / "77-1.sock"))
        stale.close()
        third, place = bound(None)
        with third:
            assert place == one
            assert sorted(tmp_path.glob("headgate/*")) == sorted([one, other])
