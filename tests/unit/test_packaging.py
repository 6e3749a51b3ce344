"""What the package claims about itself is so: lists, stubs, public names, imports, pins."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import headgate

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src"
STUBS = ROOT / "tests" / "typings"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

CORE = {"admission", "scheduler", "salvage", "storage", "engine", "outbox", "restart", "reports"}
EXTRAS = (
    "aiohttp",
    "hypothesis",
    "trio",
    "rich",
    "openai",
    "httpx",
    "httpx2",
    "mcp",
    "plotly",
    "psycopg",
    "pytest",
    "typer",
)


def module_files() -> list[Path]:
    return sorted(SRC.rglob("*.py"))


def module_name(file: Path, root: Path = SRC, package: str = "headgate") -> str:
    """`src/admission/gate.py` is `headgate.admission.gate`, for stubs and modules alike."""
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join((package, *(part for part in parts if part != "__init__")))


def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def imported_names(tree: ast.Module) -> Iterator[str]:
    """Absolute dotted names that a module imports, wherever in it. `from a import b` gives `a` and `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


MODULES = {module_name(file): file for file in module_files()}
PACKAGES = {name for name, file in MODULES.items() if file.name == "__init__.py"}
IMPORTABLE = sorted(name for name in MODULES if not name.endswith(".__main__"))


def test_the_tests_see_this_working_copy() -> None:
    """A copied .venv still points to the tree that it was made in, and would test that one."""
    assert Path(headgate.__file__).resolve().parent == SRC


def test_packages_listed_are_the_folders() -> None:
    """setuptools cannot discover packages under a renamed root: one left out would miss in the wheel only."""
    assert sorted(PROJECT["tool"]["setuptools"]["packages"]) == sorted(PACKAGES)


def test_every_folder_with_modules_is_a_package() -> None:
    assert {module_name(file.parent / "__init__.py") for file in module_files()} == PACKAGES


def test_package_is_typed() -> None:
    assert (SRC / "py.typed").is_file()
    assert "py.typed" in PROJECT["tool"]["setuptools"]["package-data"]["headgate"]


def stub_files() -> dict[str, Path]:
    files = sorted((STUBS / "headgate").rglob("*.pyi"))
    stubs = {module_name(file, STUBS / "headgate"): file for file in files}
    assert len(stubs) == len(files), "a stub exists both as a file and as a folder"
    return stubs


def test_every_package_has_a_stub_that_can_hold_submodules() -> None:
    """Without it the type checkers see nothing behind `import headgate...` in the tests, silently."""
    missing = {name for name in PACKAGES if name not in stub_files()}
    flat = {name for name, file in stub_files().items() if name in PACKAGES and file.name != "__init__.pyi"}
    assert (missing, flat) == (set(), set())


def test_every_stub_is_the_alias_of_an_existing_module() -> None:
    faults = [name for name in stub_files() if name not in MODULES]
    for name, file in stub_files().items():
        alias = "src" + name.removeprefix("headgate")
        if file.read_text(encoding="utf-8").split() != f"from {alias} import *".split():
            faults.append(f"{name}: not exactly 'from {alias} import *'")
    assert faults == []


def test_every_module_used_outside_src_has_a_stub() -> None:
    stubs = stub_files()
    blind: set[str] = set()
    for folder in ("tests", "benchmarks", "examples"):
        for file in (ROOT / folder).rglob("*.py"):
            used = (name for name in imported_names(tree_of(file)) if name in MODULES and name not in stubs)
            blind.update(f"{file.relative_to(ROOT)} imports {name}" for name in used)
    assert sorted(blind) == []


@pytest.mark.parametrize("name", IMPORTABLE)
def test_public_names_exist(name: str) -> None:
    module = importlib.import_module(name)
    public = getattr(module, "__all__", None)
    assert isinstance(public, list), f"{name} has no __all__"
    names = cast("list[str]", public)
    assert sorted(set(names)) == sorted(names), "a name is listed twice"
    assert [missing for missing in names if not hasattr(module, missing)] == []


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_inside_the_package_are_relative(name: str) -> None:
    """An absolute one finds the user's own module of that name, or a second copy of ours, in some layouts."""
    absolute = [used for used in imported_names(tree_of(MODULES[name])) if used.split(".")[0] in {"headgate", "src"}]
    assert absolute == []


def test_one_version() -> None:
    declared = PROJECT["project"]["version"]
    assert importlib.metadata.version("headgate") == declared, "pyproject.toml changed: run 'make setup'"
    assert getattr(headgate, "__version__", declared) == declared


def test_one_oldest_python() -> None:
    major, minor = PROJECT["project"]["requires-python"].removeprefix(">=").split(".")
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{major}{minor}"
    checks = re.findall(r"version_info < \((\d+), (\d+)\)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert set(checks) == {(major, minor)}


def test_one_list_of_the_pythons_that_the_tests_passed_with() -> None:
    kinds: list[str] = PROJECT["project"]["classifiers"]
    tried = [found[1] for kind in kinds if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", kind))]
    oldest = int(PROJECT["project"]["requires-python"].removeprefix(">=3."))
    assert tried == [f"3.{minor}" for minor in range(oldest, oldest + len(tried))]
    told = re.search(
        r"The tests pass with CPython ([^(]*) on Linux \(([^)]*)\)", (ROOT / "README.md").read_text(encoding="utf-8")
    )
    assert told is not None
    assert re.findall(r"3\.\d+", told[1]) == tried
    assert list(dict.fromkeys(re.findall(r"(3\.\d+)\.\d+", told[2]))) == tried


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.+!]+)", line) for line in lines if line[:1] != "#"]
    assert all(found), "constraints.txt holds names and versions only"
    return {canonicalize_name(match[1]): match[2] for match in found if match}


def test_pins_satisfy_what_is_declared() -> None:
    """Every direct requirement is pinned, to a version that the declared range allows."""
    project = PROJECT["project"]
    declared: list[str] = [
        *PROJECT["build-system"]["requires"],
        *project["dependencies"],
        *(entry for extra in project["optional-dependencies"].values() for entry in extra),
        *PROJECT["dependency-groups"]["dev"],
    ]
    pinned = pins()
    faults: list[str] = []
    for requirement in map(Requirement, declared):
        version = pinned.get(canonicalize_name(requirement.name))
        if version is None or not requirement.specifier.contains(version):
            faults.append(f"{requirement} is pinned to {version}")
    assert faults == []


@pytest.mark.skipif(
    sys.platform != "linux" or sys.version_info[:2] != (3, 11),
    reason="the pins were made on Linux with Python 3.11",
)
def test_pins_are_closed() -> None:
    """What the pinned packages need is pinned too; else two set-ups of one commit would differ."""
    pinned = pins()
    faults: list[str] = []
    for name in pinned:
        needs = [Requirement(need) for need in importlib.metadata.requires(name) or []]
        wanted = [need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
        faults.extend(f"{name} needs {need}" for need in wanted if canonicalize_name(need.name) not in pinned)
    assert faults == []


BLOCKED_IMPORT = """
import importlib, sys

class Blocked:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {extras}:
            raise ModuleNotFoundError("blocked: " + name, name=name)

sys.meta_path.insert(0, Blocked)
for name in {names}:
    importlib.import_module(name)
"""


def import_without_extras(*names: str) -> str:
    """Import the modules in a fresh interpreter that has no extras. Returns its complaints."""
    script = BLOCKED_IMPORT.format(extras=set(EXTRAS), names=names)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False).stderr


def test_core_imports_without_extras() -> None:
    """Whoever installs plain headgate has none of the extras, and of observe imports at least the package."""
    core = [name for name in IMPORTABLE if name.split(".")[1:2] == [] or name.split(".")[1] in CORE]
    assert "headgate" in core
    assert import_without_extras(*core, "headgate.observe") == ""


def test_an_import_of_headgate_brings_no_extra() -> None:
    """Also where they are installed: whoever does not use them does not wait for them."""
    script = f"import sys, headgate; print(*sorted({set(EXTRAS)} & sys.modules.keys()))"
    brought = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert set(brought.split()) <= {"rich"}, "rich comes with structlog, where it is installed"


def test_extras_are_really_blocked() -> None:
    assert "blocked: aiohttp" in import_without_extras("headgate", "aiohttp")


# Addresses of package registries, and folders of one machine. The patterns do not match their own source.
LEAK = re.compile(
    r"https?://[^\s\"'`<>)]*(?:pypi|pythonhosted|npmjs|anaconda|crates\.io|artifactory)"
    r"|--(?:extra-)?index[-]url|--find[-]links"
    r"|(?<![\w.~-])/(?:work|root|tmp|opt|home/\w+|Users/\w+|var/folders)/",
    re.IGNORECASE,
)


@pytest.mark.parametrize(
    "text",
    [
        "see https:|//pypi.org/simple",
        "http:|//registry.npmjs.org",
        "file:///ro|ot/x",
        "open('/t|mp/x')",
        "cd /ho|me/me/headgate",
        "pip install --index|-url x",
    ],
)
def test_leaks_are_recognised(text: str) -> None:
    assert LEAK.search(text.replace("|", ""))


@pytest.mark.parametrize(
    "text", ["a framework/tmp/x", "~/work/x", "$HOME/tmp/", "https://example.com/tmp/", "tmp_path/"]
)
def test_harmless_text_is_no_leak(text: str) -> None:
    assert LEAK.search(text) is None


def committed_files() -> list[Path]:
    """Everything that is, or would be, committed."""
    git = shutil.which("git")
    listing = ["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git working copy")
    ran = subprocess.run([git, *listing], cwd=ROOT, capture_output=True, text=True, check=True)
    return [file for name in ran.stdout.split("\0") if name and (file := ROOT / name).is_file()]


def test_no_committed_file_names_a_registry_or_a_machine() -> None:
    leaks: list[str] = []
    for file in committed_files():
        data = file.read_bytes()
        if b"\0" in data:
            continue
        for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), start=1):
            if match := LEAK.search(line):
                leaks.append(f"{file.relative_to(ROOT)}:{number}: {match[0]}")
    assert leaks == []
