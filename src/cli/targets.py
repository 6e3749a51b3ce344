"""What the user names on the command line: a pipeline and rows, by module, by file, or as a count."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import AsyncIterable, Iterable, Mapping, Sized
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from ..engine.pipeline import Pipeline
from ..engine.rows import COUNT_FIELD
from ..engine.signatures import signature
from ..errors import ConfigError, HeadgateError
from .row_files import ENDINGS, FileRows

if TYPE_CHECKING:
    from types import ModuleType

    from ..engine.rows import Rows

__all__ = ["GivenRows", "load_pipeline", "load_rows"]

_PIPELINE_FORMS = "a pipeline is named as module:name or path/to/file.py:name"
_ROWS_FORMS = f"rows are a file ({', '.join(ENDINGS)}), module:name, path/to/file.py:name, or a number"


class GivenRows(NamedTuple):
    """Rows; how many they are, and the fields of the first one, where that is known."""

    rows: Rows
    total: int | None
    fields: frozenset[str] | None = None


def load_pipeline(target: str) -> Pipeline:
    """Return the pipeline that ``target`` names, or that a function of that name returns; ``:pipeline`` is the default.

    Raises ConfigError that says what is not there, or what went wrong while the module was loaded.
    """
    place, name = _split(target, "pipeline", _PIPELINE_FORMS)
    found = _value(place, name, target, (type,))
    if not isinstance(found, Pipeline):
        raise ConfigError(f"{target!r} is a {type(found).__name__}, not a headgate.Pipeline: {_PIPELINE_FORMS}")
    return found


def load_rows(target: str) -> GivenRows:
    """Return the rows that ``target`` means. A file is read through once, so that a bad line is known before all else.

    Raises ConfigError and InputError.
    """
    if target.isascii() and target.isdigit():
        return GivenRows(int(target), int(target), frozenset({COUNT_FIELD}))
    path = Path(target).expanduser()
    if path.suffix in ENDINGS:
        file = FileRows(path)
        count = file.count()
        return GivenRows(file, count, frozenset(next(iter(file))) if count else None)
    if ":" not in target and path.suffix != ".py":
        raise ConfigError(f"rows {target!r}: {_ROWS_FORMS}")
    place, name = _split(target, "rows", _ROWS_FORMS)
    found = _value(place, name, target, (Iterable, AsyncIterable))
    kind = type(found).__name__
    if isinstance(found, str | bytes | Mapping) or not isinstance(found, int | Iterable | AsyncIterable):
        raise ConfigError(f"{target!r} is a {kind}, not rows: {_ROWS_FORMS}")
    rows = cast("Rows", found)
    total = rows if isinstance(rows, int) else len(rows) if isinstance(rows, Sized) else None
    return GivenRows(rows, total)


def _split(target: str, default: str, forms: str) -> tuple[str, str]:
    place, colon, name = target.rpartition(":")
    if not colon:
        place, name = target, default
    if not place or not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f"{target!r}: {forms}")
    return place, name


def _value(place: str, name: str, target: str, not_called: tuple[type, ...]) -> object:
    """What has that name, or what it returns if it is a function, but for what is meant as it is."""
    found = _look_up(place, name, target)
    return _call(found, target) if callable(found) and not isinstance(found, not_called) else found


def _look_up(place: str, name: str, target: str) -> object:
    module = _load_file(Path(place).expanduser()) if place.endswith(".py") else _load_module(place)
    try:
        return cast("object", reduce(getattr, name.split("."), module))
    except AttributeError:
        public = sorted(one for one in vars(module) if not one.startswith("_"))
        raise ConfigError(f"{target!r}: {place} has no {name!r}; it has {', '.join(public) or 'nothing'}") from None


def _load_module(name: str) -> ModuleType:
    _first_on_path(Path.cwd())
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a package above it is not there
        found = None
    except Exception as error:
        raise _broken(name, error) from error
    if found is None:
        raise ConfigError(f"there is no module {name!r} here or installed; a file is named with its ending, {name}.py")
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise _broken(name, error) from error


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"there is no file {str(path)!r}")
    path = path.resolve()
    _first_on_path(path.parent)
    name = path.stem
    known = sys.modules.get(name)
    if known is not None:
        if getattr(known, "__file__", None) == str(path):
            return known
        name = f"{name} of {path.parent}"  # somebody else has that name; this one is nobody's
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _broken(path.name, error) from error
    return module


def _first_on_path(folder: Path) -> None:
    """As Python itself does for a script: what stands beside it can be imported."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _call(function: object, target: str) -> object:
    assert callable(function)
    try:
        needs = [
            name
            for name, one in signature(function).parameters.items()
            if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
        ]
    except (TypeError, ValueError):
        needs = []
    if needs:
        raise ConfigError(f"{target!r} is a function that needs {', '.join(needs)}: name one that needs nothing")
    try:
        return function()
    except Exception as error:
        raise _broken(target, error) from error


def _broken(what: str, error: BaseException) -> HeadgateError:
    """Say what went wrong in the user's own code, and where."""
    if isinstance(error, HeadgateError):
        return error
    if isinstance(error, SystemExit):
        return ConfigError(f"loading {what} ended the program: put what it runs under if __name__ == '__main__'")
    if isinstance(error, SyntaxError):
        at = f"{Path(error.filename or what).name}, line {error.lineno}"
        return ConfigError(f"loading {what} failed: {error.msg} ({at})")
    frames = traceback.extract_tb(error.__traceback__)
    at = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else what
    return ConfigError(f"loading {what} failed: {type(error).__name__}: {error} ({at})")
