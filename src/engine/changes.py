"""What becomes of outcomes whose column has changed since they were stored: they are kept, or made anew.

Decides, and says what it has decided before anything is spent. Nothing that was paid for is thrown away: what is made
anew is put aside in the store, and comes back when the column becomes again what it was.

Nothing comes back but beside the very outcomes that it was made of: the marks of fingerprints (:mod:`.marks`) tell them
apart from others that had the same fingerprint.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from ..errors import FingerprintMismatch
from .marks import mark, marked, reading, unmarked

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

__all__ = ["PARTS", "OnChange", "Plan", "decide", "differences"]

PARTS: Final = ("parameters", "model", "scope", "return type", "version", "function", "upstream")
"""What can differ between two fingerprints, in their order."""

OnChange = Literal["auto", "rerun", "keep", "refuse"]
"""``auto``: what was declared otherwise (parameters, model, scope, return type, version) is made anew, an edited
function keeps what it has made. ``rerun``: an edited function counts too. ``keep``: nothing is made anew. ``refuse``:
an error."""

_UNDECLARED: Final = frozenset({"function", "upstream"})


@dataclass(frozen=True, slots=True)
class Plan:
    """``renewed`` columns begin anew, ``kept`` ones go on with what they have; both name the parts that differ.

    ``fingerprints`` are those to open the run with. ``eclipsed`` are kept columns that would have something back if
    they were renewed: whoever finds that there is nothing to keep decides again.
    """

    renewed: Mapping[str, tuple[str, ...]]
    kept: Mapping[str, tuple[str, ...]]
    fingerprints: Mapping[str, str] = field(default_factory=dict[str, str])
    eclipsed: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.renewed or self.kept)


def decide(
    run: str,
    stored: Mapping[str, str],
    given: Mapping[str, str],
    reads: Mapping[str, Sequence[str]],
    on_change: OnChange,
    *,
    aside: Mapping[str, Collection[str]] = MappingProxyType({}),
    bare: Collection[str] = (),
) -> Plan:
    """What to do about each column of ``given`` whose fingerprint differs from the stored one.

    ``reads`` names the columns that each column reads, and the keys of ``given`` come after those that they read. A
    column that reads a renewed one is renewed. ``aside`` are the fingerprints of what is put aside, ``bare`` columns
    that have nothing: with nothing to keep, what is put aside comes back whatever ``on_change`` says. Raises
    FingerprintMismatch if nothing may change, or if the stored fingerprint has another format, so that nobody can say
    what has changed.
    """
    renewed: dict[str, tuple[str, ...]] = {}
    kept: dict[str, tuple[str, ...]] = {}
    opened: dict[str, str] = {}
    eclipsed: list[str] = []
    for name, fingerprint in given.items():
        read = {other: opened[other] for other in reads[name]}
        plain = fingerprint if all(given[other] == one for other, one in read.items()) else reading(fingerprint, read)
        before = stored.get(name, plain)
        if unmarked(before) == plain:
            opened[name] = before
            continue
        parts = differences(before, plain)
        if parts is None and on_change == "auto":
            raise FingerprintMismatch(
                f"column {name!r} of run {run!r} was described in another way when the run was started, so nobody "
                f"can tell whether it has changed: {_CURES}"
            )
        own = parts is None or (parts != ("upstream",) if on_change == "rerun" else not _UNDECLARED.issuperset(parts))
        anew = on_change != "keep" and (own or not renewed.keys().isdisjoint(reads[name]))
        anew = anew or name in bare
        (renewed if anew else kept)[name] = parts or ("description",)
        others = aside.get(name, ())
        made_with = [other for other in others if unmarked(other) == plain]
        unused = 1 + max(map(mark, (before, *others)))
        if anew:
            opened[name] = max(made_with, key=mark, default=marked(plain, unused))
            continue
        opened[name] = marked(plain, mark(before))
        if opened[name] in made_with:  # before there were marks, everything had the same
            opened[name] = marked(plain, unused)
        if made_with:
            eclipsed.append(name)
    plan = Plan(renewed, kept, opened, frozenset(eclipsed))
    if plan and on_change == "refuse":
        raise FingerprintMismatch(f"{_names(run, {**renewed, **kept})}: restore them, or {_CURES}")
    return plan


def differences(stored: str, given: str) -> tuple[str, ...] | None:
    """Return the parts in which two fingerprints differ, marks aside; None if ``stored`` has another format."""
    before, now = unmarked(stored).split(":"), unmarked(given).split(":")
    if len(before) != len(now) or before[0] != now[0]:
        return None
    return tuple(part for part, one, other in zip(PARTS, before[1:], now[1:], strict=True) if one != other)


_CURES: Final = (
    'say on_change="keep" to keep what is done, or "rerun" to make it anew (what was done is put aside), or give the '
    "run another name"
)


def _names(run: str, changed: Mapping[str, tuple[str, ...]]) -> str:
    told = ", ".join(f"{name!r} ({', '.join(parts)})" for name, parts in changed.items())
    return f"run {run!r} was started with other columns; changed since: {told}"
