"""What was learned as plain data (dicts, lists, numbers, text), and back.

Decides what is believed of such data when it comes back: a version of its own, the fields that it has to have, of the
right type and finite. What does not fit is as good as never learned, scope by scope: a later headgate, a damaged file
or somebody's editor never keeps a run from going on. Unknown fields count as not fitting: they may change the meaning
of the known ones.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Final, TypeVar, cast

from ..values import LimitKind
from .estimates import FLOWS_MAX, FlowMemory, TokenMemory
from .law_values import LawMemory
from .memory import ScopeMemory
from .moments import MomentsMemory
from .rate_values import LearnedSnapshot

__all__ = ["SCOPES_MAX", "VERSION", "from_plain", "to_plain"]

VERSION: Final = 1
"""Of the shape below. Another one is not read."""

SCOPES_MAX: Final = 256
"""How many scopes are written; a record stays below a few hundred kilobytes."""

LARGEST: Final = 1e15
"""No number of ours is larger: neither seconds, nor tokens, nor tokens a second. NaN is no number either."""

T = TypeVar("T", LawMemory, LearnedSnapshot, MomentsMemory)


class _Misfit(Exception):
    """Something does not have the shape that was written."""


def to_plain(memories: Mapping[str, ScopeMemory]) -> dict[str, object]:
    """``memories`` by scope name as plain data. The youngest are kept where there are too many."""
    youngest = sorted(memories.items(), key=lambda item: item[1].age_s)[:SCOPES_MAX]
    return {"version": VERSION, "scopes": {name: _plain_scope(memory) for name, memory in youngest}}


def from_plain(plain: object) -> dict[str, ScopeMemory]:
    """The memories in ``plain`` that fit. Never raises."""
    try:
        outer = _mapping(plain, "version", "scopes")
        scopes = _mapping(outer["scopes"])
    except _Misfit:
        return {}
    if outer["version"] != VERSION:
        return {}
    found: dict[str, ScopeMemory] = {}
    for name, memory in scopes.items():
        try:
            found[name] = _scope(memory)
        except _Misfit:
            continue
    return found


def _plain_scope(memory: ScopeMemory) -> dict[str, object]:
    tokens = memory.tokens
    return {
        "age_s": memory.age_s,
        "concurrency": _plain(memory.concurrency),
        "measured": memory.measured,
        "rates": {kind.value: _plain(rate) for kind, rate in memory.rates.items()},
        "tokens": None
        if tokens is None
        else {
            "together": _plain_flow(tokens.together),
            "flows": [[name, _plain_flow(flow)] for name, flow in tokens.flows.items()],
        },
    }


def _plain_flow(flow: FlowMemory | None) -> dict[str, object] | None:
    if flow is None:
        return None
    return {field.name: _plain(getattr(flow, field.name)) for field in fields(flow)}


def _plain(value: LawMemory | LearnedSnapshot | MomentsMemory | None) -> dict[str, object] | None:
    """A flat dataclass as a dict."""
    return None if value is None else {field.name: getattr(value, field.name) for field in fields(value)}


def _scope(plain: object) -> ScopeMemory:
    found = _mapping(plain, "age_s", "concurrency", "measured", "rates", "tokens")
    age_s = _number(found["age_s"])
    if age_s < 0.0 or not isinstance(found["measured"], bool):
        raise _Misfit
    kinds = {kind.value: kind for kind in LimitKind if kind is not LimitKind.CONCURRENCY}
    rates = {kinds[name]: _flat(LearnedSnapshot, rate) for name, rate in _mapping(found["rates"], within=kinds).items()}
    return ScopeMemory(
        age_s=age_s,
        concurrency=None if found["concurrency"] is None else _flat(LawMemory, found["concurrency"]),
        measured=found["measured"],
        rates={kind: rate for kind, rate in rates.items() if rate.base is not None},
        tokens=None if found["tokens"] is None else _tokens(found["tokens"]),
    )


def _tokens(plain: object) -> TokenMemory:
    found = _mapping(plain, "together", "flows")
    flows: dict[str, FlowMemory] = {}
    for pair in _list(found["flows"])[-FLOWS_MAX:]:
        match _list(pair):
            case [str(name), flow]:
                flows[name] = _flow(flow)
            case _:
                raise _Misfit
    return TokenMemory(None if found["together"] is None else _flow(found["together"]), flows)


def _flow(plain: object) -> FlowMemory:
    found = _mapping(plain, *(field.name for field in fields(FlowMemory)))
    moments = {name: None if value is None else _flat(MomentsMemory, value) for name, value in found.items()}
    if not all(value is None or value.sensible for value in moments.values()):
        raise _Misfit
    return FlowMemory(**moments)


def _flat(kind: type[T], plain: object) -> T:
    """A dataclass of finite numbers, truth values and None from a dict of all its fields and no other."""
    known = {field.name: field for field in fields(kind)}
    found = _mapping(plain, *known)
    optional = {name for name, field in known.items() if field.default is None}
    values = {name: None if value is None and name in optional else _number(value) for name, value in found.items()}
    return kind(**values)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def _number(plain: object) -> float | bool:
    if isinstance(plain, bool):
        return plain
    if not isinstance(plain, (int, float)) or not -LARGEST <= plain <= LARGEST:
        raise _Misfit
    return float(plain)


def _mapping(plain: object, *names: str, within: Mapping[str, object] | None = None) -> dict[str, object]:
    """``plain`` as a dict with exactly these names; with any names, or any ``within``, if none are given."""
    if not isinstance(plain, Mapping):
        raise _Misfit
    found = cast("Mapping[object, object]", plain)
    given = {name: value for name, value in found.items() if isinstance(name, str)}
    if len(given) != len(found) or (names and given.keys() != set(names)):
        raise _Misfit
    if within is not None and not given.keys() <= within.keys():
        raise _Misfit
    return given


def _list(plain: object) -> list[object]:
    if not isinstance(plain, list):
        raise _Misfit
    return cast("list[object]", plain)
