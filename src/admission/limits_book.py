"""The limits that a user configures: read from a TOML file, a mapping or an object, checked, and looked up by scope.

Decides what was asked for, not what is enforced. Errors are one line that names the scope, the key, the value and
the cure.

A file holds one table per scope, the widest first::

    ["*"]                        # every model that does not say otherwise
    queue_timeout = 30
    [openai]                     # the account: all its models together
    requests_per_minute = 5000
    ["openai/gpt-x"]
    concurrency = "4-20-150"     # adaptive: minimum, start, maximum
    ["openai/gpt-x:embedding"]
    concurrency = 8              # fixed

What a scope may carry (concurrency, rates, ``startup_ramp``) belongs to that scope alone; ``"*"`` fills it in for
models that leave it out. How to wait (``queue_timeout``, ``cooldown``, ``share``) is inherited: domain, model,
account, ``"*"``.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Final, cast

from pydantic import ValidationError

from ..errors import ConfigError
from ..values import ResourceKey, shown
from .limits import AUTO, Limits

__all__ = ["LimitsBook", "LimitsSource", "load_limits", "parse_limits", "wider_scopes"]

EVERY_MODEL: Final = "*"
OWN: Final = (
    "concurrency",
    "requests_per_minute",
    "input_tokens_per_minute",
    "output_tokens_per_minute",
    "tokens_per_minute",
    "startup_ramp",
    "queueing",
)
INHERITED: Final = ("queue_timeout", "cooldown", "share")

OTHER_NAMES: Final = {
    "rpm": "requests_per_minute",
    "tpm": "tokens_per_minute",
    "itpm": "input_tokens_per_minute",
    "otpm": "output_tokens_per_minute",
    "max_concurrency": "concurrency",
    "max_parallel_requests": "concurrency",
    "timeout": "queue_timeout",
    "alias": "alias_of",
}
"""What people write elsewhere for these keys."""


LimitsSource = str | os.PathLike[str] | Mapping[str, "Limits | Mapping[str, object]"] | Limits | None
"""A TOML file, a mapping of scopes, one :class:`Limits` for every model, or None: found out while running."""


@dataclass(frozen=True, slots=True)
class LimitsBook:
    """All configured limits, by scope name. ``closed``: models that it does not name are unknown."""

    entries: Mapping[str, Limits]
    closed: bool = False

    def for_scope(self, name: str, *, leaf: bool = False) -> Limits | None:
        """The limits of the scope ``name``; None if nothing limits it.

        ``leaf``: the scope is a resource itself, not an account or model above it. A resource always has limits: what
        neither it nor its model states comes from ``"*"``, and a concurrency that nobody states is ``"auto"``.
        """
        own = self.entries.get(name)
        if own is None and not leaf:
            return None
        default = self.entries.get(EVERY_MODEL)
        wider = [self.entries[scope] for scope in reversed(wider_scopes(name)) if scope in self.entries]
        values: dict[str, object] = {}
        for key in INHERITED:
            _fill(values, key, [own, *wider, default])
        model_stated = {key for scope in wider_scopes(name) if "/" in scope for key in self._stated(scope)}
        for key in OWN:
            _fill(values, key, [own, default if leaf and key not in model_stated else None])
        if leaf and values.get("concurrency") is None:
            values["concurrency"] = AUTO
        if own is not None and own.alias_of is not None:
            values["alias_of"] = own.alias_of
        return Limits.model_validate(values)

    def knows(self, resource: ResourceKey) -> bool:
        """Whether ``resource`` may be used. Not, when the book names models and neither it nor its provider."""
        if not self.closed or EVERY_MODEL in self.entries:
            return True
        if any(scope in self.entries for scope in resource.scopes()):
            return True
        return any(target.scopes()[1] == resource.scopes()[1] for target in self._targets())

    def alias_of(self, resource: ResourceKey) -> ResourceKey | None:
        """The resource that ``resource`` is another name of, or None."""
        own = self.entries.get(str(resource))
        return None if own is None or own.alias_of is None else ResourceKey.parse(own.alias_of)

    def suggest(self, name: str) -> str | None:
        """The name in the book that ``name`` is most like, or None."""
        names = [scope for scope in self.entries if scope != EVERY_MODEL]
        return next(iter(get_close_matches(name, names, 1)), None)

    def replaced(self, scope: str, limits: Limits) -> LimitsBook:
        """This book with other limits for ``scope``. What it knows stays as it is. Raises ConfigError."""
        name = _scope_name(scope)
        return _checked({**self.entries, name: limits}, closed=self.closed)

    def changed(self, scope: str, changes: Mapping[str, object]) -> dict[str, object]:
        """What ``scope`` states after these changes, yet to be checked. None takes a limit away."""
        stated = self.entries.get(scope)
        before: dict[str, object] = {} if stated is None else stated.model_dump(exclude_unset=True)
        return {name: value for name, value in {**before, **changes}.items() if value is not None or _may_be_none(name)}

    def _stated(self, scope: str) -> set[str]:
        entry = self.entries.get(scope)
        return set() if entry is None else entry.model_fields_set

    def _targets(self) -> list[ResourceKey]:
        return [ResourceKey.parse(entry.alias_of) for entry in self.entries.values() if entry.alias_of is not None]


def load_limits(source: LimitsSource) -> LimitsBook:
    """Read limits from wherever they are. Raises ConfigError that names what is wrong and the cure."""
    if source is None:
        return LimitsBook({})
    if isinstance(source, Limits):
        return _checked({EVERY_MODEL: source}, closed=False)
    if isinstance(source, Mapping):
        return _book(source, "limits")
    path = Path(source)
    return _book(_toml(path), str(path))


def parse_limits(scope: str, stated: Mapping[str, object], *, where: str = "limits") -> Limits:
    """Check the limits of one scope. Raises ConfigError that names the scope, the key, the value and the cure."""
    for key, value in stated.items():
        if key not in Limits.model_fields:
            raise ConfigError(f'{where}: "{scope}": {_unknown_key(scope, key, value)}')
    try:
        return Limits.model_validate(dict(stated))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = str(first["loc"][0])
        cure = str(first["msg"]).removeprefix("Value error, ")
        raise ConfigError(f'{where}: "{scope}": {key} = {shown(stated.get(key))}: {cure}') from error


def _toml(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such limits file (looked in {path.parent.absolute()})") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the limits file: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: the limits file is not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def _book(stated: Mapping[str, object], where: str) -> LimitsBook:
    entries: dict[str, Limits] = {}
    for scope, value in stated.items():
        if not isinstance(value, Limits | Mapping):
            raise ConfigError(f"{where}: {_not_a_table(scope, value)}")
        name = _scope_name(scope, where)
        if name in entries:
            raise ConfigError(f'{where}: "{name}" is there twice, once as "{scope}": keep one')
        if isinstance(value, Limits):
            entries[name] = value
        else:
            entries[name] = parse_limits(scope, cast("Mapping[str, object]", value), where=where)
    return _checked(entries, closed=any("/" in name for name in entries), where=where)


def _checked(entries: dict[str, Limits], *, closed: bool, where: str = "limits") -> LimitsBook:
    """The book of ``entries``, if every alias leads to a model in the end."""
    book = LimitsBook(entries, closed)
    for name, entry in entries.items():
        if entry.alias_of is None:
            continue
        if "/" not in name:
            raise ConfigError(f'{where}: "{name}": only a model can have alias_of: name one, e.g. "openai/gpt-x"')
        target, seen = book.alias_of(ResourceKey.parse(name)), {name}
        while target is not None:
            if str(target) in seen:
                raise ConfigError(f'{where}: "{name}": alias_of leads back to {target}: let one of them stand alone')
            seen.add(str(target))
            target = book.alias_of(target)
    return book


def _scope_name(scope: str, where: str = "limits") -> str:
    """The canonical name of a scope: ``openai/gpt-x:chat`` is ``openai/gpt-x``."""
    if scope == EVERY_MODEL:
        return scope
    if "/" not in scope and scope.strip() == scope and scope:
        return scope
    try:
        return str(ResourceKey.parse(scope))
    except ValueError as error:
        raise ConfigError(
            f'{where}: {scope!r} is no scope: write "openai" (an account), "openai/gpt-x" (a model) or "*" (all)'
        ) from error


def wider_scopes(name: str) -> tuple[str, ...]:
    """The scopes above ``name``, widest first."""
    return ResourceKey.parse(name).scopes()[:-1] if "/" in name else ()


def _fill(values: dict[str, object], key: str, entries: list[Limits | None]) -> None:
    """Take ``key`` from the first entry that states it."""
    for entry in entries:
        if entry is not None and key in entry.model_fields_set:
            values[key] = getattr(entry, key)
            return


def _unknown_key(scope: str, key: str, value: object) -> str:
    if isinstance(value, Mapping):
        return f'"{key}" is a table inside a table: write ["{scope}/{key}"] (with the quotes) for a model'
    guess = OTHER_NAMES.get(key.lower()) or next(iter(get_close_matches(key, Limits.model_fields, 1)), None)
    hint = f"did you mean {guess}?" if guess else f"there are {', '.join(Limits.model_fields)}"
    return f'unknown key "{key}" = {shown(value)}: {hint}'


def _not_a_table(scope: str, value: object) -> str:
    if scope in Limits.model_fields or scope in OTHER_NAMES:
        return f'"{scope}" = {shown(value)} stands outside any scope: put it below ["*"] to mean every model'
    return f'"{scope}" = {shown(value)}: a scope is a table of limits, e.g. concurrency = 8'


def _may_be_none(name: str) -> bool:
    """Whether to state None means something of its own. A name that there is not is left for the check to refuse."""
    field = Limits.model_fields.get(name)
    return field is None or field.default is None
