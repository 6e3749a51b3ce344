"""Restart configuration: every mistake is one line that names the key and the cure; every thing has one name (T63)."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import pytest

from headgate.errors import ConfigError
from headgate.restart import Aggregation, LateVerdict, RestartConfig, load_restart
from headgate.restart.config import DEPRECATED

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "headgate.toml"
    path.write_text(
        '[restart]\nservice_url = "http://analysis:8080/"\nhttp_urls = ["http://b", "http://c"]\n'
        'aggregation = "all"\nlate_verdict = "drop"\ntimeout = 30\nbudget = 0\ndry_run = true\n'
    )
    return path


def test_a_file_says_it_all(file: Path) -> None:
    config = load_restart(file)
    assert (config.service_url, config.http_urls) == ("http://analysis:8080", ("http://b", "http://c"))
    assert (config.aggregation, config.late_verdict) == (Aggregation.ALL, LateVerdict.DROP)
    assert (config.timeout, config.budget, config.dry_run) == (30.0, 0, True)
    assert load_restart(str(file)) == config
    assert load_restart(config) == config
    assert load_restart() == RestartConfig()
    assert load_restart(config).core_options().aggregation is Aggregation.ALL


def test_t63_what_a_command_line_leaves_out_never_overrides_the_file(file: Path) -> None:
    """Command-line defaults overrode the file."""
    assert load_restart(file, timeout=None, dry_run=None, budget=None) == load_restart(file)
    given = load_restart(file, timeout=20.0, dry_run=False, budget=0)
    assert (given.timeout, given.dry_run, given.budget) == (20.0, False, 0)
    assert given.service_url == "http://analysis:8080"


@pytest.mark.parametrize(("old", "new"), sorted(DEPRECATED.items()))
def test_t63_an_old_name_still_works_and_says_so(old: str, new: str) -> None:
    """Two names for one thing: the old one is a warning for one release."""
    values: dict[str, object] = {
        "service_url": "http://a",
        "http_urls": ("http://a",),
        "enable_mcp": False,
        "timeout": 7.0,
        "budget": 2,
    }
    with pytest.warns(DeprecationWarning, match=f"'{old}' is called '{new}' now") as told:
        config = load_restart({old: values[new]})
    assert getattr(config, new) == values[new]
    assert told[0].filename == __file__, "it names the line of the user"


def test_t63_two_names_that_disagree_are_an_error() -> None:
    """Endpoint and backend for the same call, and no precedence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with pytest.raises(ConfigError, match="'service_url' says 'http://a' and 'endpoint' says 'http://b'"):
            load_restart({"service_url": "http://a", "endpoint": "http://b"})
        with pytest.raises(ConfigError, match=r"'endpoint' .* 'backend' .* keep 'service_url' alone"):
            load_restart({"endpoint": "http://a", "backend": "http://b"})
        assert load_restart({"endpoint": "http://a", "backend": "http://a"}).service_url == "http://a"


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"timout": 3.0}, "restart: timout: unknown, did you mean 'timeout'?"),
        ({"colour": 3}, r"restart: colour: unknown \(known: aggregation, "),
        ({"timeout": "soon"}, "timeout = 'soon': Input should be a valid number"),
        ({"timeout": 0.0}, "timeout = 0.0: Input should be greater than 0"),
        ({"timeout": float("inf")}, "timeout = inf: Input should be a finite number"),
        ({"timeout": 290.0}, "timeout 290 and twice the lease 10 are more than recovery_timeout 300"),
        ({"poll": 5.0}, "poll 5 is more than a third of lease 10"),
        ({"budget": -1}, "budget = -1: Input should be greater than or equal to 0"),
        ({"budget": 1.5}, "budget = 1.5"),
        ({"dry_run": "yes"}, "dry_run = 'yes': Input should be a valid boolean"),
        ({"aggregation": "most"}, "aggregation = 'most': Input should be 'any' or 'all'"),
        ({"late_verdict": "keep"}, "late_verdict = 'keep': Input should be 'next_cycle' or 'drop'"),
        ({"service_url": "analysis:8080"}, "service_url = 'analysis:8080': 'analysis:8080' is no address: write http"),
        ({"service_url": 8080}, "service_url = 8080: Input should be a valid string"),
        ({"http_urls": "http://a"}, "http_urls = 'http://a': Input should be a valid tuple"),
        ({"http_urls": ["http://a", "mcp"]}, "'mcp' is no address: set enable_mcp = true and mcp_url"),
        ({"enable_mcp": True}, "enable_mcp: name the server with mcp_url"),
        ({"mcp_url": "http://a/mcp"}, "mcp_url: set enable_mcp = true"),
        ({"enable_mcp": True, "mcp_url": "a"}, "mcp_url = 'a': 'a' is no address"),
        ({"http_urls": ["http://a", "http://a/"]}, "http://a is named twice"),
        ({"service_url": "http://a", "http_urls": ["http://a"]}, "http://a is the service_url already"),
        ({"first_pause": 10.0, "longest_pause": 1.0}, "first_pause 10 is more than longest_pause 1"),
        ({"late_window": -1.0}, "late_window = -1.0"),
    ],
)
def test_every_mistake_gives_a_clear_error(stated: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        load_restart(stated)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_none_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_restart(tmp_path / "missing.toml")
    path = tmp_path / "broken.toml"
    for text, said in (
        ("[restart", "is not TOML"),
        ("[run]\n", r"has no table \[restart\]"),
        ("restart = 1", "no table"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=said):
            load_restart(path)
    path.write_text("[restart]\ntimeout = -1\n")
    with pytest.raises(ConfigError, match=r"broken.toml \[restart\]: timeout = -1"):
        load_restart(path)
