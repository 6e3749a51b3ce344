"""What a function does, as text that changes when its source does and is the same in every process and Python version.

Reads the source of the function, of the functions that it calls by name and of the literals that it reads by name, as
far as they stand in the same file: prompts are often constants beside the function. Comments, docstrings, formatting,
type annotations and decorators do not count, nor do values: what another module, a closure or the environment provides
is not seen. Runs nothing. A function without source is known by its name alone.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import warnings
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType

__all__ = ["function_text"]

_Function: TypeAlias = "ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda"
_Scope: TypeAlias = "ast.Module | _Function"

_NO_MATTER: Final = frozenset(
    {"decorator_list", "returns", "annotation", "type_comment", "type_params", "kind", "ctx", "simple"}
)
_TRIMMERS: Final = frozenset({"dedent", "cleandoc"})
_PUT_TOGETHER: Final = (
    *(ast.JoinedStr, ast.FormattedValue, ast.BinOp, ast.UnaryOp),
    *(ast.List, ast.Tuple, ast.Set, ast.Dict),
)


def function_text(function: Callable[..., object]) -> str:
    """Return the text of what ``function`` does: see the module."""
    bound: list[str] = []
    while isinstance(function, partial):
        bound.extend(f"{name}={_literal(value)}" for name, value in sorted(function.keywords.items()))
        bound.extend(_literal(value) for value in function.args)
        function = function.func
    target = inspect.unwrap(function if inspect.isroutine(function) else _call_of(function))
    name = getattr(target, "__qualname__", type(target).__qualname__)
    code: CodeType | None = getattr(target, "__code__", None)
    said = None if code is None else _text_of(code, _source_of(code, getattr(target, "__globals__", {})))
    return "\n".join([name if said is None else said, *bound])


def _call_of(function: Callable[..., object]) -> Callable[..., object]:
    return cast("Callable[..., object]", type(function).__call__)


def _literal(value: object) -> str:
    """A bound argument: its value if that is the same in every process, else its type."""
    return ascii(value) if isinstance(value, (str, int, float, bool, type(None))) else type(value).__qualname__


def _source_of(code: CodeType, names: dict[str, Any]) -> str:
    """The file that ``code`` was compiled from; empty if there is none."""
    if code.co_filename == "<string>":  # so all is called that exec() makes; Python 3.13 alone keeps what -c was given
        return ""
    return "".join(linecache.getlines(code.co_filename, names))


@lru_cache(maxsize=1024)
def _text_of(code: CodeType, source: str) -> str | None:
    """What is remembered of a function, so that a pipeline that runs again and again is read once."""
    found = _find(code, source)
    return None if found is None else _Reader(*found).text()


def _find(code: CodeType, source: str) -> tuple[_Function, tuple[_Scope, ...]] | None:
    """The definition that ``code`` was compiled from, and the scopes around it, innermost first."""
    try:
        tree = _parsed(source)
    except (SyntaxError, ValueError, RecursionError):
        return None
    line = code.co_firstlineno
    found = [
        one for one in _functions(tree, (tree,), line) if _first_line(one[0]) == line and _named(one[0]) == code.co_name
    ]
    if len(found) > 1:
        at = _last_place(code)
        found = [one for one in found if _covers(one[0], at)]
    return found[-1] if found else None


@lru_cache(maxsize=8)
def _parsed(source: str) -> ast.Module:
    # Whoever imports the file is told of a doubtful "\d", once. Told again here, and with warnings made errors, the
    # function would have another text than without.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="<unknown>")  # what is parsed without a name
        return ast.parse(source)


def _functions(node: ast.AST, scopes: tuple[_Scope, ...], line: int) -> Iterator[tuple[_Function, tuple[_Scope, ...]]]:
    """The functions around ``line``. What lies before or behind it is not looked into: a file may be long, and a
    pipeline asks for one of its functions after the other.
    """
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.expr) and not _first_line(child) <= line <= (child.end_lineno or line):
            continue
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield child, scopes
            yield from _functions(child, (child, *scopes), line)
        else:
            yield from _functions(child, scopes, line)


def _first_line(node: ast.stmt | ast.expr) -> int:
    """The line on which ``node`` begins, with its decorators."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(one.lineno for one in decorators)]) if decorators else node.lineno


def _named(node: _Function) -> str:
    return "<lambda>" if isinstance(node, ast.Lambda) else node.name


def _last_place(code: CodeType) -> tuple[int, int]:
    """The last line and column of which something stands in the code: the way to tell lambdas on one line apart."""
    return max(((line or 0, column or 0) for line, _, column, _ in code.co_positions()), default=(0, 0))


def _covers(node: _Function, at: tuple[int, int]) -> bool:
    return (node.lineno, node.col_offset) <= at < (node.end_lineno or 0, node.end_col_offset or 0)


class _Reader:
    """Writes down a function and what it reads by name, each definition once."""

    def __init__(self, node: _Function, scopes: tuple[_Scope, ...]) -> None:
        self._node = node
        self._scopes = scopes
        self._written: dict[str, str] = {}

    def text(self) -> str:
        """The whole of it."""
        main = self._write(self._node, self._scopes)
        return "\n".join([main, *(f"{name} = {said}" for name, said in sorted(self._written.items()))])

    def _write(self, node: ast.AST, scopes: tuple[_Scope, ...]) -> str:
        names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Load)}
        for name in sorted(names - set(_own_names(node))):
            if name not in self._written and (found := _defined(name, scopes)) is not None:
                self._written[name] = ""  # a function may call itself
                self._written[name] = self._write(found[0], found[1])
        return _plain(node)


def _own_names(node: ast.AST) -> Iterator[str]:
    """The parameters and variables of a function: what they are called may mean something else outside."""
    for one in ast.walk(node):
        if isinstance(one, ast.arg):
            yield one.arg
        elif isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store):
            yield one.id


def _defined(name: str, scopes: tuple[_Scope, ...]) -> tuple[ast.AST, tuple[_Scope, ...]] | None:
    """The one function or literal that ``name`` stands for in the innermost scope that assigns it."""
    for place, scope in enumerate(scopes):
        found = _assigned(scope).get(name)
        if found:
            node = found[0] if len(found) == 1 else None
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                return node, scopes[place:]
            value = getattr(node, "value", None)
            return (value, scopes[place:]) if value is not None and _is_literal(value) else None
    return None


@lru_cache(maxsize=256)
def _assigned(scope: _Scope) -> dict[str, list[ast.stmt]]:
    """The statements of ``scope`` that give a name its meaning, by name."""
    found: dict[str, list[ast.stmt]] = {}
    for node in [] if isinstance(scope, ast.Lambda) else scope.body:
        for name in set(_targets(node)):
            found.setdefault(name, []).append(node)
    return found


def _targets(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name
        return
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    for target in targets:
        yield from (one.id for one in ast.walk(target) if isinstance(one, ast.Name))


def _is_literal(node: ast.expr) -> bool:
    """Whether the value is written down here: constants, put together in any way, text trimmed or formatted."""
    match node:
        case ast.Constant():
            return True
        case ast.Call(func=ast.Attribute(value=owner), args=arguments):
            return isinstance(owner, ast.Constant) and all(map(_is_literal, arguments))
        case ast.Call(func=ast.Name(id=called), args=[argument]):
            return called in _TRIMMERS and _is_literal(argument)
        case ast.Name():
            return True  # another constant, which is looked up in its turn
        case _:
            parts = [part for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr)]
            return isinstance(node, _PUT_TOGETHER) and all(map(_is_literal, parts))


def _plain(node: object) -> str:
    """A node as text: kinds and fields, without positions and without what is empty, which differs between versions.

    In ASCII, because each version writes out as they are the characters that its tables know.
    """
    if isinstance(node, list):
        return "[" + ",".join(map(_plain, cast("list[object]", node))) + "]"
    if not isinstance(node, ast.AST):
        return ascii(node)
    if isinstance(node, ast.Constant):
        return ascii(node.value)
    fields = [
        f"{name}={_plain(_without_docstring(node, name, value))}"
        for name, value in _fields(node)
        if name not in _NO_MATTER and value is not None and value != []
    ]
    return f"{type(node).__name__}({','.join(fields)})"


def _fields(node: ast.AST) -> Iterator[tuple[str, object]]:
    """The fields of a node. Python 3.12 ends the format of ``f"{x:{y}}"`` with an empty text, others do not."""
    if isinstance(node, ast.JoinedStr):
        yield "values", [one for one in node.values if not (isinstance(one, ast.Constant) and one.value == "")]
    else:
        yield from ast.iter_fields(node)


def _without_docstring(node: ast.AST, name: str, value: object) -> object:
    if name != "body" or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return value
    return node.body if ast.get_docstring(node) is None else node.body[1:]
