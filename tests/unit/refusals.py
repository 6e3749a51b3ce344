"""Runs that are refused, and what such a refusal must be like."""

from __future__ import annotations

from typing import Any

import pytest

import headgate
from headgate.testing.clock import run_virtual

calls: list[object] = []


def echo() -> headgate.Pipeline:
    """One column that remembers each call: what was spent."""
    pipeline = headgate.Pipeline("echo")

    @pipeline.column(model="openai/gpt-x")
    async def answer(topic: str) -> str:
        calls.append(topic)
        return topic.upper()

    return pipeline


def topics(count: int) -> list[dict[str, object]]:
    return [{"topic": f"t{index}"} for index in range(count)]


def run(pipeline: headgate.Pipeline, rows: Any, **more: Any) -> headgate.RunReport:
    async def main() -> headgate.RunReport:
        return await headgate.arun(pipeline, rows, seed=1, **more)

    return run_virtual(main)


def refused(kind: type[Exception], *words: str, spent: int = 0) -> Any:
    """A context in which ``kind`` must be raised, with ``words`` in its message, after ``spent`` calls at most."""
    return _Refused(kind, words, spent)


class _Refused:
    def __init__(self, kind: type[Exception], words: tuple[str, ...], spent: int) -> None:
        self._caught = pytest.raises(kind)
        self._words = words
        self._spent = spent
        self._info: pytest.ExceptionInfo[Exception] | None = None

    def __enter__(self) -> None:
        self._info = self._caught.__enter__()

    def __exit__(self, *error: Any) -> bool:
        swallowed = self._caught.__exit__(*error)
        if not swallowed:
            return False
        assert self._info is not None
        message = str(self._info.value)
        for word in self._words:
            assert word in message, f"{word!r} is not in: {message}"
        assert len(message) < 400, f"too long to read: {message}"
        assert "\n" not in message, f"more than one line: {message}"
        assert len(calls) <= self._spent, f"{len(calls)} requests were spent first"
        return True
