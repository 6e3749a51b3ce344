"""What becomes of outcomes whose column has changed since they were stored: they are kept, or made anew.

Decides, and says what it has decided before anything is spent. Nothing that was paid for is thrown away: what is made
anew is put aside in the store, and comes back when the column becomes again what it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from ..errors import FingerprintMismatch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
    """``renewed`` columns begin anew, ``kept`` ones go on with what they have; both name the parts that differ."""

    renewed: Mapping[str, tuple[str, ...]]
    kept: Mapping[str, tuple[str, ...]]

    def __bool__(self) -> bool:
        return bool(self.renewed or self.kept)


def decide(
    run: str,
    stored: Mapping[str, str],
    given: Mapping[str, str],
    reads: Mapping[str, Sequence[str]],
    on_change: OnChange,
) -> Plan:
    """What to do about each column of ``given`` whose fingerprint differs from the stored one.

    ``reads`` names the columns that each column reads, and the keys of ``given`` come after those that they read. A
    column that reads a renewed one is renewed. Raises FingerprintMismatch if nothing may change, or if the stored
    fingerprint has another format, so that nobody can say what has changed.
    """
    changed = {
        name: differences(stored[name], fingerprint)
        for name, fingerprint in given.items()
        if stored.get(name, fingerprint) != fingerprint
    }
    if changed and on_change == "refuse":
        raise FingerprintMismatch(f"{_names(run, changed)}: restore them, or {_CURES}")
    strange = [name for name, parts in changed.items() if parts is None]
    if strange and on_change == "auto":
        raise FingerprintMismatch(
            f"column {strange[0]!r} of run {run!r} was described in another way when the run was started, so nobody "
            f"can tell whether it has changed: {_CURES}"
        )
    renewed: dict[str, tuple[str, ...]] = {}
    kept: dict[str, tuple[str, ...]] = {}
    for name, parts in changed.items():
        own = parts is None or (parts != ("upstream",) if on_change == "rerun" else not _UNDECLARED.issuperset(parts))
        anew = on_change != "keep" and (own or not renewed.keys().isdisjoint(reads[name]))
        (renewed if anew else kept)[name] = parts or ("description",)
    return Plan(renewed, kept)


def differences(stored: str, given: str) -> tuple[str, ...] | None:
    """Return the parts in which two fingerprints differ; None if ``stored`` has another format."""
    before, now = stored.split(":"), given.split(":")
    if len(before) != len(now) or before[0] != now[0]:
        return None
    return tuple(part for part, one, other in zip(PARTS, before[1:], now[1:], strict=True) if one != other)


_CURES: Final = (
    'say on_change="keep" to keep what is done, or "rerun" to make it anew (what was done is put aside), or give the '
    "run another name"
)


def _names(run: str, changed: Mapping[str, tuple[str, ...] | None]) -> str:
    told = ", ".join(f"{name!r} ({', '.join(parts or ('description',))})" for name, parts in changed.items())
    return f"run {run!r} was started with other columns; changed since: {told}"
