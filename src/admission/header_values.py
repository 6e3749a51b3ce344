"""The small grammars inside rate-limit headers: numbers, durations, moments, structured-field lists.

Decides what a value says, or that it says nothing (None). Nothing here raises for bad input, reads a clock, or takes
more than linear time; what is longer than any real value is not looked at (A8).

Sources: RFC 9110 (HTTP-date, delay-seconds), RFC 3339, RFC 9651 (structured fields), Go's ``time.Duration`` format.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

__all__ = ["Item", "duration", "moment", "number", "sf_items"]

VALUE_CHARS_MAX: Final = 128
"""No real number, duration or date is longer."""

LIST_CHARS_MAX: Final = 2048
ITEMS_MAX: Final = 16
"""Bounds of a list of policies."""

LARGEST: Final = 1e15
"""Beyond it a float no longer counts in ones."""

NUMBER: Final = re.compile(r"\d{1,15}(?:\.\d{1,15})?", re.ASCII)
PART: Final = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)(ns|us|ms|h|m|s)", re.ASCII)
UNIT_S: Final = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)
HTTP_DATE: Final = re.compile(r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]{0,6},? [A-Za-z0-9 :-]{10,30}", re.ASCII)

QUOTED: Final = r'"(?:[^"\\]|\\.)*"'
BARE: Final = r'[^;,"\s]+'
PARAMETER: Final = re.compile(rf"\s*;\s*([a-z*][a-z0-9_.*-]*)(?:=({QUOTED}|{BARE}))?")
MEMBER: Final = re.compile(rf"\s*({QUOTED}|{BARE})")
COMMA: Final = re.compile(r"\s*(?:,|$)")


def number(text: str) -> float | None:
    """Read a plain decimal number of zero or more: no sign, no exponent, no words."""
    text = text.strip()
    return None if NUMBER.fullmatch(text) is None else float(text)


def duration(text: str) -> float | None:
    """Read seconds: a plain number, or as Go writes it (``1h2m3.5s``, ``6m0s``, ``120ms``)."""
    plain = number(text)
    if plain is not None:
        return plain
    text = text.strip().replace("µs", "us").replace("μs", "us")
    if len(text) > VALUE_CHARS_MAX:
        return None
    total, at = 0.0, 0
    while match := PART.match(text, at):
        total += float(match[1]) * UNIT_S[match[2]]
        at = match.end()
    return total if at == len(text) > 0 and total <= LARGEST else None


def moment(text: str) -> float | None:
    """Read a date as seconds since 1970: RFC 3339, or any of the three forms of an HTTP-date."""
    text = text.strip()
    if len(text) > VALUE_CHARS_MAX:
        return None
    try:
        if RFC3339.fullmatch(text) is not None:
            return datetime.fromisoformat(text.upper()).timestamp()
        if HTTP_DATE.fullmatch(text) is not None:
            at = parsedate_to_datetime(text)
            return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None  # well formed, and no such day
    return None


@dataclass(frozen=True, slots=True)
class Item:
    """One member of a structured-field list: its bare value, and its parameters as text (quotes removed)."""

    value: str
    parameters: dict[str, str] = field(default_factory=dict[str, str])


def sf_items(text: str) -> list[Item] | None:
    """Read a list such as ``"permin";q=50;w=60, "perhour";q=1000;w=3600``; None if it is not one."""
    if len(text) > LIST_CHARS_MAX:
        return None
    items: list[Item] = []
    at = 0
    while at < len(text):
        member = MEMBER.match(text, at)
        if member is None or len(items) == ITEMS_MAX:
            return None
        at = member.end()
        parameters: dict[str, str] = {}
        while parameter := PARAMETER.match(text, at):
            parameters[parameter[1]] = _unquoted(parameter[2] or "")
            at = parameter.end()
        items.append(Item(_unquoted(member[1]), parameters))
        comma = COMMA.match(text, at)
        if comma is None:
            return None
        at = comma.end()
    return items


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text
