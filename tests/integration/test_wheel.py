"""What users install: the wheel built from the sdist, and an editable install, each in its own environment.

The environments borrow headgate's dependencies from the running one, so that no index is needed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
DIST_INFO = f"headgate-{VERSION}.dist-info"

THEIRS = (
    "admission",
    "engine",
    "errors",
    "events",
    "observe",
    "salvage",
    "scheduler",
    "src",
    "storage",
    "values",
)
SCRIPT = """
import admission, engine, errors, events, observe, salvage, scheduler, src, storage, values
import headgate, headgate.admission, headgate.engine, headgate.salvage, headgate.scheduler, headgate.storage
import headgate.values

mine = [admission, engine, errors, events, observe, salvage, scheduler, src, storage, values]
assert all(module.OWNER == "user" for module in mine), mine
ours = [headgate.admission, headgate.engine, headgate.salvage, headgate.scheduler, headgate.storage]
assert not any(hasattr(module, "OWNER") for module in ours), ours
assert headgate.values.Usage(1, 2).output_tokens == 2
print("both are themselves")
"""


@dataclass(frozen=True)
class Environment:
    """A virtual environment that holds headgate."""

    home: Path

    @property
    def site_packages(self) -> Path:
        return Path(sysconfig.get_path("purelib", "venv", {"base": str(self.home), "platbase": str(self.home)}))

    def python(self, *arguments: str, folder: Path) -> str:
        return self.script("python", *arguments, folder=folder)

    def script(self, name: str, *arguments: str, folder: Path) -> str:
        scripts = Path(sysconfig.get_path("scripts", "venv", {"base": str(self.home)}))
        return run(scripts / name, *arguments, folder=folder)


def run(*command: str | Path, folder: Path) -> str:
    surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(command, cwd=folder, env=surroundings, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{command} failed:\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


def environment_with(wheel: Path, home: Path) -> Environment:
    venv.create(home, with_pip=False)
    made = Environment(home)
    pip = (
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(made.home),
        "--quiet",
        "install",
        "--no-deps",
        "--no-index",
    )
    run(*pip, wheel, folder=home)
    # Only now: with these in sight pip would find the headgate of the running environment. A folder that a
    # .pth file adds has its own .pth files ignored, so what is editable there stays there.
    (made.site_packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the build needs, so that building leaves nothing in the working copy."""
    copy = tmp_path_factory.mktemp("a tree")
    shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "_headgate_pytest.py"):
        shutil.copy(ROOT / name, copy)
    stale = copy / "build" / "lib" / "headgate"
    stale.mkdir(parents=True)
    (stale / "deleted_long_ago.py").touch()
    return copy


@pytest.fixture(scope="module")
def wheel(tree: Path) -> Path:
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", tree / "dist", folder=tree)
    assert (tree / "dist" / f"headgate-{VERSION}.tar.gz").is_file()
    return tree / "dist" / f"headgate-{VERSION}-py3-none-any.whl"


@pytest.fixture(scope="module")
def editable_wheel(tree: Path) -> Path:
    """What `pip install -e` builds and installs, by the same hook of the build backend."""
    hook = "import setuptools.build_meta as backend; backend.build_editable('editable')"
    (tree / "editable").mkdir()
    run(sys.executable, "-c", hook, folder=tree)
    return next((tree / "editable").glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return environment_with(wheel, tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="module")
def editable(editable_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return environment_with(editable_wheel, tmp_path_factory.mktemp("editable"))


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """All that is in src, below one name, and the plugin; what was deleted stays deleted."""
    files = [file for file in (ROOT / "src").rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    expected = {f"headgate/{file.relative_to(ROOT / 'src').as_posix()}" for file in files} | {"_headgate_pytest.py"}
    names = zipfile.ZipFile(wheel).namelist()
    assert {name for name in names if not name.startswith(f"{DIST_INFO}/")} == expected
    assert f"{DIST_INFO}/licenses/LICENSE" in names


def test_the_wheel_installs_one_top_level_name_beside_the_plugin(installed: Environment) -> None:
    added = {file.name for file in installed.site_packages.iterdir()} - {"__pycache__", "borrowed.pth"}
    assert added == {"headgate", "_headgate_pytest.py", DIST_INFO}


@pytest.mark.parametrize("kind", ["installed", "editable"])
def test_the_command_is_installed(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """And it runs in a folder that has a module of the same name as one of ours."""
    environment: Environment = request.getfixturevalue(kind)
    (tmp_path / "cli.py").write_text('raise RuntimeError("not this one")\n', encoding="utf-8")
    assert environment.script("headgate", "--version", folder=tmp_path) == f"headgate {VERSION}\n"
    help_text = environment.script("headgate", "--help", folder=tmp_path)
    assert environment.python("-m", "headgate", "--help", folder=tmp_path) == help_text


def test_the_wheel_imports_from_where_it_was_installed(installed: Environment, tmp_path: Path) -> None:
    where = installed.python("-c", "import headgate; print(headgate.__file__)", folder=tmp_path).strip()
    assert Path(where).parent == installed.site_packages / "headgate"
    assert (installed.site_packages / "headgate" / "py.typed").is_file()


def test_the_editable_install_imports_the_tree(editable: Environment, tree: Path, tmp_path: Path) -> None:
    where = editable.python("-c", "import headgate; print(headgate.__file__)", folder=tmp_path).strip()
    assert Path(where).parent == tree / "src"


@pytest.mark.parametrize("kind", ["installed", "editable"])
def test_no_other_top_level_name_is_taken(
    kind: str, tree: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    environment: Environment = request.getfixturevalue(kind)
    ours = {file.stem for file in (tree / "src").iterdir() if file.suffix in {"", ".py"}}
    names = sorted(ours - {"__init__", "__main__", "__pycache__"} | {"src", "tests"})
    assert "admission" in names
    find = f"from importlib.util import find_spec; print([name for name in {names} if find_spec(name)])"
    assert environment.python("-c", find, folder=tmp_path).strip() == "[]"


@pytest.mark.parametrize("kind", ["installed", "editable"])
def test_modules_of_the_user_with_our_names_break_nobody(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Elsewhere a `scheduler.py` beside the user's script took the place of the library's own."""
    environment: Environment = request.getfixturevalue(kind)
    for name in THEIRS:
        (tmp_path / f"{name}.py").write_text('OWNER = "user"\n', encoding="utf-8")
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    assert environment.python("script.py", folder=tmp_path) == "both are themselves\n"
