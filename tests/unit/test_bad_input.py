"""Bad input: one clear error each, that names the thing and the cure, before anything is spent where that is possible.

The type is asserted, and the words that somebody needs who has only the message.
"""

from __future__ import annotations

import socket
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

import headgate
from headgate.errors import (
    AdmissionDenied,
    ConfigError,
    InputError,
    PipelineError,
)
from headgate.testing.clock import run_virtual
from tests.unit.asked import asking
from tests.unit.refusals import calls, echo, refused, run, topics

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@pytest.fixture(autouse=True)
def _fresh() -> None:
    calls.clear()


def test_an_unknown_parameter() -> None:
    pipeline = echo()

    @pipeline.column(model="openai/gpt-x")
    async def verdict(anwser: str) -> str:
        return anwser

    with refused(PipelineError, "'verdict'", "'anwser'", "did you mean 'answer'"):
        run(pipeline, topics(3))


def test_a_cycle() -> None:
    pipeline = headgate.Pipeline("cycle")

    @pipeline.column
    async def hen(egg: str) -> str:
        return egg

    @pipeline.column
    async def egg(hen: str) -> str:
        return hen

    with refused(PipelineError, "'hen'", "egg", "break the cycle"):
        run(pipeline, topics(3))


def test_a_column_twice() -> None:
    pipeline = echo()

    async def answer(topic: str) -> str:
        return topic

    with refused(PipelineError, "'answer'", "twice", "name="):
        pipeline.column(answer)


def test_a_column_that_is_no_function() -> None:
    pipeline = echo()
    column: Any = pipeline.column
    with refused(PipelineError, "'openai/gpt-x'", "not a function", "@pipeline.column(model=...)"):
        column("openai/gpt-x")
    with refused(PipelineError, "42", "not a function"):
        headgate.map(42, topics(1))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def test_a_column_with_the_name_of_an_input_field() -> None:
    with refused(PipelineError, "'answer'", "input field", "name="):
        run(echo(), [{"topic": "t", "answer": "given"}])


def test_a_pipeline_without_columns() -> None:
    with refused(PipelineError, "no columns", "@pipeline.column"):
        run(headgate.Pipeline("empty"), 3)


@pytest.mark.parametrize("option", ["timeout", "weight"])
def test_a_number_of_a_column_that_no_float_holds(option: str) -> None:
    async def answer(topic: str) -> str:
        return topic

    stated: Any = {option: 10**400}
    with refused(PipelineError, "'answer'", f"{option} must be a finite number above zero", "1000", "..."):
        headgate.Pipeline("p").column(answer, **stated)


@pytest.mark.parametrize("model", ["gpt-x", "/gpt-x", "openai/", ""])
def test_a_model_without_a_provider(model: str) -> None:
    pipeline = headgate.Pipeline("p")
    with refused(PipelineError, "'answer'", repr(model), "provider/model"):

        @pipeline.column(model=model)
        async def answer(topic: str) -> str:
            return topic


def test_an_unknown_column_option() -> None:
    with pytest.raises(TypeError, match="modell"):
        headgate.Pipeline("p").column(modell="openai/gpt-x")  # type: ignore[call-overload] # pyright: ignore


def test_a_result_that_cannot_be_stored_fails_its_cell_and_names_the_type() -> None:
    """It can be known only when it is there; the other rows go on."""
    pipeline = headgate.Pipeline("p")

    @pipeline.column(model="openai/gpt-x")
    async def answer(topic: str) -> Any:
        return object() if topic == "t1" else topic

    report = run(pipeline, topics(3))
    assert (report.done, report.failed) == (2, 1)
    (entry,) = report.failures
    assert (entry.row, entry.column, entry.attempts) == ("1", "answer", 1)
    assert "object" in entry.message
    assert "return plain data" in entry.message


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"openai/gpt-x": {"concurrency": -1}}, ('"openai/gpt-x"', "concurrency = -1", "1 or more")),
        ({"openai/gpt-x": {"concurrency": 10**400}}, ('"openai/gpt-x"', "concurrency = 1000", "or less")),
        ({"openai/gpt-x": {"concurrency": 0}}, ('"openai/gpt-x"', "concurrency = 0", "1 or more")),
        ({"openai/gpt-x": {"concurrency": "4-2-8"}}, ('"openai/gpt-x"', "'4-2-8'", "start 2", "minimum 4")),
        ({"openai/gpt-x": {"concurrency": "4-8"}}, ("'4-8'", "minimum-start-maximum")),
        ({"openai/gpt-x": {"requests_per_minute": -5.0}}, ("requests_per_minute = -5.0", "greater than 0")),
        ({"openai/gpt-x": {"requests_per_minute": 0}}, ("requests_per_minute = 0", "greater than 0")),
        ({"openai/gpt-x": {"queue_timeout": -1}}, ("queue_timeout = -1", "greater than or equal to 0")),
        ({"openai/gpt-x": {"cooldown": "1m"}}, ("cooldown = '1m'", "number")),
        ({"openai/gpt-x": {"share": 2.0}}, ("share = 2.0", "less than or equal to 1")),
        ({"openai/gpt-x": {"rpm": 60}}, ('"openai/gpt-x"', '"rpm"', "did you mean requests_per_minute?")),
        ({"openai/gpt-x": {"concurency": 4}}, ('"concurency"', "did you mean concurrency?")),
        ({"concurrency": 4}, ('"concurrency" = 4', "outside any scope", '["*"]')),
        ({"openai/": {"concurrency": 4}}, ("'openai/'", "no scope", '"openai/gpt-x"')),
        ({"openai/gpt-x": {"alias_of": "openai/gpt-x"}}, ('"openai/gpt-x"', "alias_of leads back")),
    ],
)
def test_limits_that_cannot_be_meant(limits: Any, words: tuple[str, ...]) -> None:
    with refused(ConfigError, *words):
        run(echo(), topics(3), limits=limits)


def test_a_limits_file_names_the_file_too(tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    with refused(ConfigError, str(path), "no such limits file"):
        run(echo(), topics(3), limits=path)
    path.write_text('["openai/gpt-x"]\nconcurrency = "lots"\n', encoding="utf-8")
    with refused(ConfigError, str(path), '"openai/gpt-x"', "'lots'", "minimum-start-maximum"):
        run(echo(), topics(3), limits=path)
    path.write_text("[openai\n", encoding="utf-8")
    with refused(ConfigError, str(path), "not valid TOML", "line 1"):
        run(echo(), topics(3), limits=path)


def test_a_model_that_the_limits_do_not_know() -> None:
    with refused(AdmissionDenied, "openai/gpt-x", "did you mean openai/gpt-y?", '"*"'):
        run(echo(), topics(3), limits={"openai/gpt-y": {"concurrency": 4}})


def test_a_request_that_can_never_fit_its_limit_is_no_timeout() -> None:
    """A7, T7: it fails its cell with the numbers, and costs nothing."""
    pipeline = headgate.Pipeline("p")

    @pipeline.column(model="openai/gpt-x", tokens=2_000)
    async def answer(topic: str) -> str:
        calls.append(topic)
        return topic

    report = run(pipeline, topics(3), limits={"openai/gpt-x": {"tokens_per_minute": 1_000.0}})
    assert (report.done, report.failed, report.held) == (0, 3, 0)
    assert report.failure_counts == {("answer", "admission_denied"): 3}
    assert "openai/gpt-x" in report.failures[0].message
    assert "2000 + 0 tokens can never pass" in report.failures[0].message
    assert calls == []


def test_a_row_that_is_no_mapping() -> None:
    with refused(InputError, "row 2", "str", "mapping"):
        run(echo(), [{"topic": "a"}, {"topic": "b"}, "c"])


def test_a_row_that_is_no_mapping_in_a_stream_names_its_place() -> None:
    """It can be known only when it comes; what was committed before it stays."""

    def stream() -> Iterator[object]:
        yield from topics(5)
        yield ["t5"]

    with refused(InputError, "row 5", "list", "mapping", spent=5):
        run(echo(), stream())


@pytest.mark.parametrize("rows", ["text", b"bytes", {"topic": "a"}, 3.5, None])
def test_rows_that_are_no_rows(rows: object) -> None:
    with refused(InputError, "rows must be an iterable of mappings", type(rows).__name__):
        run(echo(), rows)


def test_a_negative_number_of_rows() -> None:
    with refused(InputError, "-1", "zero or more"):
        run(echo(), -1)


def test_the_same_row_id_twice() -> None:
    rows: list[dict[str, object]] = [{"topic": str(index), "key": index % 7} for index in range(10)]
    with refused(InputError, "row 7", "'0'", "unique"):
        run(echo(), rows, row_id="key")


def _half_a_pair(row: Mapping[str, object]) -> str:
    return "id\ud800" if row["topic"] == "t1" else "id"


def test_a_row_id_that_is_no_text() -> None:
    """It would have broken the run at the commit, without a word about the row."""
    with refused(InputError, "row 1", r"'id\ud800'", "Unicode"):
        run(echo(), topics(2), row_id=_half_a_pair)


@pytest.mark.parametrize(
    "usage",
    [{"prompt_tokens": 10**30, "completion_tokens": 3}, headgate.Usage(2**63, 1), headgate.Usage(1, 1, -(2**70))],
)
def test_a_count_of_tokens_that_no_request_can_use_is_not_believed(tmp_path: Path, usage: object) -> None:
    """No store takes a number of any size: one answer with such a one broke the run, and what waited was lost."""
    made = headgate.Pipeline("p")

    @made.column(model="acme/m")
    async def a(row: int) -> int:
        lease = headgate.current_lease()
        assert lease is not None
        lease.report(usage=usage if row == 1 else {"prompt_tokens": 2, "completion_tokens": 1})
        return row

    report = headgate.run(made, 3, store=tmp_path / "run.db")
    stated = isinstance(usage, dict)
    assert (report.done, report.usage) == (3, headgate.Usage(4, 5 if stated else 2))


def test_a_row_id_that_a_row_lacks() -> None:
    with refused(InputError, "row 0", "'uid'"):
        run(echo(), topics(3), row_id="uid")


def test_a_field_that_row_seven_lacks() -> None:
    rows = topics(10)
    rows[7] = {"topics": "t7"}
    with refused(InputError, "row 7", "'topic'", "'answer'", "topics"):
        run(echo(), rows)


def test_a_row_that_cannot_be_stored() -> None:
    with refused(InputError, "row 1", "socket", spent=1), closing(socket.socket()) as never_stored:
        run(echo(), [{"topic": "a"}, {"topic": "b", "extra": never_stored}])


def test_an_unknown_option() -> None:
    with refused(ConfigError, "'patients'", "patience"):
        run(echo(), topics(3), patients=3)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("patience", -1.0, ("patience", "-1.0", "zero or more")),
        ("deadline", float("nan"), ("deadline", "nan")),
        ("deadline", 10**400, ("deadline must be zero or more seconds", "1000", "...")),
        pytest.param(
            "grace", 10**5000, ("grace must be zero or more seconds", "too long to be written out"), id="grace-too-long"
        ),
        ("max_open_bytes", 10**400, ("max_open_bytes must be a whole number", "1000", "...")),
        ("budget", 10**400, ("budget: money must be zero or more", "1000", "...")),
        ("grace", "10", ("grace", "'10'", "zero or more")),
        ("set_aside", [("0", "value")], ("set_aside", "('0', 'value')", "from 0 on")),
        ("set_aside", [(-1, "value")], ("set_aside", "row -1")),
        ("set_aside", ["ab"], ("set_aside", "'ab'", "from 0 on")),
        ("max_attempts", 0, ("max_attempts", "0", "from 1 on")),
        ("group_size", 2.5, ("group_size", "2.5", "whole number")),
        ("on_failure", "stop", ("on_failure", "'stop'", '"raise"')),
        ("on_change", "ask", ("on_change", "'ask'", '"rerun"')),
    ],
)
def test_an_option_that_cannot_be_meant(option: str, value: object, words: tuple[str, ...]) -> None:
    with refused(ConfigError, *words):
        run(echo(), topics(3), **{option: value})


def test_a_request_for_a_name_that_is_no_model() -> None:
    async def main() -> None:
        async with headgate.Engine():
            with pytest.raises(ValueError, match="provider/model"):
                headgate.request("gpt-x")

    run_virtual(main)


def test_a_request_for_an_unknown_model_inside_a_body_fails_its_cell() -> None:
    """T11: not a timeout, not retried, named."""
    pipeline = headgate.Pipeline("p")

    @pipeline.column
    async def answer(topic: str) -> str:
        calls.append(topic)
        async with headgate.request("openai/gpt-y"):
            return topic

    report = run(pipeline, topics(2), limits={"openai/gpt-x": {"concurrency": 1}})
    assert report.failure_counts == {("answer", "admission_denied"): 2}
    assert len(calls) == 2
    assert "openai/gpt-y" in report.failures[0].message
    assert "did you mean openai/gpt-x?" in report.failures[0].message


@pytest.mark.parametrize("name", ["gpt-x", "x/", "/x", " / "])
def test_a_resource_key_that_names_no_model(name: str) -> None:
    with pytest.raises(ValueError, match="provider/model"):
        headgate.ResourceKey.parse(name)


@pytest.mark.parametrize("grace", [-1, float("nan"), 10**400])
def test_a_grace_time_that_cannot_be_meant(grace: float) -> None:
    async def main() -> headgate.RunReport:
        async with headgate.Engine(seed=1) as engine:
            run = await engine.start(asking(), 3)
            with pytest.raises(ConfigError, match="grace must be zero or more seconds"):
                run.stop(grace=grace)
            return await run.wait()

    assert run_virtual(main).status == "completed"
