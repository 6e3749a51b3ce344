"""The thresholds of admission as a page: every named number with its reason, read from the source.

``python -m tests.constants_page`` writes ``architecture/constants.md`` anew; a test holds the page against the source.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "admission"
PAGE = ROOT / "architecture" / "constants.md"

HEAD = """# The numbers of admission

Every threshold has one name and one place, and its reason beside it. This page is written from the source by
`python -m tests.constants_page`. What a user may set is in `Limits`; the rest holds for every provider.
Names that end in `_S` are seconds. The rules that use them: [admission.md](admission.md#the-control-law).
"""


class Constant(NamedTuple):
    """One named number; constants in a row share the reason that follows the last of them."""

    name: str
    value: str
    reason: str


def constants(file: Path) -> list[Constant]:
    """The named numbers of a module in the order of the source; a reason is empty where none is given."""
    found: list[Constant] = []
    row: list[tuple[str, str]] = []
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        match node:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=ast.Name(id="Final"), value=ast.expr() as value):
                if is_number(value):
                    row.append((name, ast.unparse(value)))
                    continue
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name.isupper():
                if is_number(value):
                    row.append((name, ast.unparse(value)))
                    continue
            case ast.Expr(value=ast.Constant(value=str(reason))) if row:
                found += [Constant(name, value, " ".join(reason.split())) for name, value in row]
                row = []
                continue
            case _:
                pass
        found += [Constant(name, value, "") for name, value in row]
        row = []
    found += [Constant(name, value, "") for name, value in row]
    return [one for one in found if not one.name.startswith("_")]


def is_number(value: ast.expr) -> bool:
    """Whether an expression is a number, or arithmetic with numbers and names of numbers."""
    parts = [part for part in ast.walk(value) if isinstance(part, ast.Constant | ast.Name | ast.Call | ast.Attribute)]
    return bool(parts) and all(
        (isinstance(part, ast.Constant) and isinstance(part.value, int | float) and not isinstance(part.value, bool))
        or isinstance(part, ast.Name)
        for part in parts
    )


def page() -> str:
    """The whole page."""
    return HEAD + "".join([section(file) for file in sorted(SOURCE.glob("*.py")) if constants(file)])


def section(file: Path) -> str:
    """One module's table."""
    rows = [f"| `{one.name}` | {one.value} | {one.reason.replace('|', '/')} |\n" for one in constants(file)]
    return f"\n## {file.name}\n\n| name | value | reason |\n|---|---|---|\n" + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
