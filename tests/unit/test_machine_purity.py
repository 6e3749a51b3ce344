"""Machines decide and shells act: which modules are machines, and that these do nothing else.

A machine awaits nothing, reads no clock, draws no random numbers, logs nothing and touches no file or socket,
and imports no module of ours that does. So the property tests, the simulation and the engine can run the same
code. A new module is a machine in the folders of machines and a shell in the folders of shells; elsewhere it
has to be listed here as the one or the other.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

SRC = Path(__file__).resolve().parents[2] / "src"
LINES_MAX = 400

MACHINE_FOLDERS = ("admission/", "scheduler/", "salvage/", "outbox/", "prices/", "reports/", "restart/")
SHELL_FOLDERS = ("observe/", "testing/")

# Machines in folders that hold both.
MACHINES = {
    "cli/durations.py",
    "cli/exit_codes.py",
    "cli/text.py",
    "clients/bodies.py",
    "control/protocol.py",
    "clients/naming.py",
    "engine/changes.py",
    "engine/conditions.py",
    "engine/core.py",
    "engine/deadlines.py",
    "engine/effects.py",
    "engine/forecast.py",
    "engine/forecast_text.py",
    "engine/group_ends.py",
    "engine/grouping.py",
    "engine/halt.py",
    "engine/held_before.py",
    "engine/journal.py",
    "engine/left_lanes.py",
    "engine/marks.py",
    "engine/meter.py",
    "engine/open_rows.py",
    "engine/options.py",
    "engine/outcomes.py",
    "engine/part_reports.py",
    "engine/planned.py",
    "engine/report.py",
    "engine/spans.py",
    "engine/spending.py",
    "engine/tally.py",
    "engine/usage.py",
    "engine/values.py",
    "errors.py",
    "events/around.py",
    "events/fields.py",
    "events/kinds.py",
    "events/levels.py",
    "storage/claims.py",
    "storage/memory_state.py",
    "storage/postgres_errors.py",
    "storage/postgres_functions.py",
    "storage/postgres_merge.py",
    "storage/postgres_tables.py",
    "storage/references.py",
    "storage/room.py",
    "export/shapes.py",
    "storage/rules.py",
    "storage/sqlite_checksums.py",
    "values.py",
}

# All other modules there, and exceptions in the folders of machines, each with what it does.
SHELLS = {
    "__main__.py": "is the command line",
    "cli/app.py": "is the command line",
    "cli/arguments.py": "describes arguments to typer",
    "cli/data.py": "serialises with pydantic",
    "cli/ctl_commands.py": "is the command line",
    "cli/demo.py": "runs the loop of a program",
    "cli/demo_command.py": "is the command line",
    "cli/life.py": "looks after the process",
    "cli/places.py": "runs the loop of a program",
    "cli/row_files.py": "reads files",
    "cli/run_commands.py": "is the command line",
    "cli/running.py": "runs the loop of a program",
    "cli/simulate_command.py": "is the command line",
    "cli/store_commands.py": "is the command line",
    "cli/supervise_command.py": "is the command line",
    "cli/targets.py": "imports the user's modules",
    "admission/answers.py": "wakes tasks",
    "admission/controller.py": "waits, reads the clock",
    "admission/limits.py": "checks configuration with pydantic",
    "admission/limits_book.py": "reads configuration with pydantic",
    "clients/aiohttp_sessions.py": "stands in the way of requests",
    "clients/attaching.py": "changes clients",
    "clients/attempts.py": "waits for leases",
    "clients/httpx_clients.py": "stands in the way of requests",
    "control/client.py": "talks to engines",
    "control/places.py": "works on files and sockets",
    "control/server.py": "serves a socket",
    "engine/accounts.py": "reads price tables",
    "engine/building.py": "reads prices through the account",
    "engine/column.py": "validates with pydantic",
    "engine/committer.py": "waits for the store",
    "engine/controls.py": "is called by commands from outside",
    "engine/dispatch.py": "asks the controller for leases",
    "engine/event_lines.py": "writes files in a thread of its own",
    "engine/engine.py": "owns the task group and the clocks",
    "engine/faces.py": "starts loops and threads",
    "engine/first_request.py": "calls the user's estimates",
    "engine/fingerprints.py": "reads sources",
    "engine/function_text.py": "reads sources",
    "engine/flight.py": "calls the user's functions on workers",
    "engine/feeding.py": "waits for room",
    "engine/interrupts.py": "listens to signals",
    "engine/intake.py": "waits for rows",
    "engine/jobs.py": "calls the user's functions",
    "engine/listeners.py": "opens files, logs",
    "engine/keeping.py": "serialises through the codec",
    "engine/main_loop.py": "runs the loop of a run",
    "engine/pace.py": "asks the controller for its pace",
    "engine/performer.py": "performs effects",
    "engine/pipeline.py": "takes in the user's functions",
    "engine/planning.py": "reads stores and rows",
    "engine/plan.py": "reads the pipeline that the user built",
    "engine/records.py": "serialises through the codec",
    "engine/recording.py": "asks the controller for its limits, serialises through the codec",
    "engine/requests.py": "waits for leases",
    "engine/restore.py": "deserialises through the codec",
    "engine/resuming.py": "opens runs, logs",
    "engine/rows.py": "pulls rows from async iterables",
    "engine/runs.py": "waits for the run's end",
    "events/sinks.py": "tells a listener",
    "engine/shared_part.py": "works on row groups, is awaited",
    "engine/sharing.py": "joins runs, is awaited",
    "engine/sampling.py": "runs an engine, reads stores and rows",
    "engine/signatures.py": "builds pydantic validators",
    "engine/statistics.py": "asks the controller for its numbers",
    "engine/supervised.py": "runs engines, one after another",
    "engine/steps.py": "performs effects, asks the controller",
    "engine/starts.py": "calls the user's estimates, starts jobs",
    "engine/telling.py": "reads the clock",
    "engine/advice.py": "words for numbers that a report holds",
    "engine/summary.py": "renders numbers that shells collected",
    "engine/turnstile.py": "waits for the next turn of the loop",
    "engine/workers.py": "owns tasks",
    "export/exporting.py": "reads stores, writes files",
    "export/files.py": "writes files",
    "export/html.py": "writes files",
    "export/jsonl.py": "writes files",
    "export/parquet.py": "writes files",
    "export/rows.py": "reads stores",
    "outbox/http.py": "talks to receivers",
    "outbox/memory.py": "is awaited",
    "outbox/outbox.py": "owns the tasks of deliveries",
    "outbox/sqlite.py": "is awaited, reads the clock",
    "prices/lookup.py": "reads files, asks genai-prices",
    "reports/data.py": "serialises with pydantic",
    "reports/figures.py": "validates with pydantic",
    "reports/page.py": "reads the files that it puts together",
    "reports/reading.py": "reads stores",
    "restart/asking.py": "awaits sources",
    "restart/codec.py": "serialises with pydantic",
    "restart/config.py": "reads configuration with pydantic",
    "restart/configured.py": "makes clients",
    "restart/coordinator.py": "owns the tasks of a decision, reads the clock",
    "restart/http.py": "talks to services",
    "restart/in_flight.py": "maps a file",
    "restart/mcp.py": "talks to servers",
    "restart/process.py": "runs processes",
    "restart/sources.py": "calls the user's functions",
    "restart/supervisor.py": "owns the tasks of a life",
    "storage/bounded_disk.py": "works on files",
    "storage/codec.py": "serialises with pydantic",
    "storage/disk.py": "works on files",
    "storage/file_entry.py": "serialises with pydantic",
    "storage/file_registers.py": "works on files",
    "storage/files.py": "is awaited, reads the clock",
    "storage/generations.py": "works on files",
    "storage/group_work.py": "owns tasks",
    "storage/patience.py": "waits for the store",
    "storage/job_thread.py": "owns a thread",
    "storage/handle.py": "is awaited",
    "storage/memory.py": "reads the clock, is awaited",
    "storage/opening.py": "looks at paths",
    "storage/overview.py": "reads stores",
    "storage/payload_files.py": "works on files",
    "storage/postgres.py": "is awaited, reads the clock",
    "storage/postgres_groups.py": "is awaited",
    "storage/postgres_link.py": "connects",
    "storage/postgres_reads.py": "reads rows of the database",
    "storage/postgres_records.py": "writes rows of the database",
    "storage/postgres_registers.py": "reads and writes rows of the database",
    "storage/postgres_run.py": "is awaited",
    "storage/postgres_schema.py": "creates the tables",
    "storage/postgres_writer.py": "owns the writer thread",
    "storage/run_index.py": "keeps a database",
    "storage/run_log.py": "works on files",
    "storage/run_logs.py": "works on files",
    "storage/run_sweep.py": "works on files",
    "storage/signals.py": "wakes tasks from threads",
    "storage/sqlite.py": "is awaited, reads the clock",
    "storage/sqlite_columns.py": "reads and writes columns of the database",
    "storage/sqlite_file.py": "opens the database",
    "storage/sqlite_format.py": "creates databases",
    "storage/sqlite_insert.py": "writes rows of the database",
    "storage/sqlite_reads.py": "reads rows of the database",
    "storage/sqlite_records.py": "writes rows of the database",
    "storage/sqlite_registers.py": "reads and writes rows of the database",
    "storage/sqlite_schema.py": "names what creates the database",
    "storage/sqlite_sweep.py": "deletes rows of the database",
    "storage/sqlite_writer.py": "owns the writer thread",
    "log.py": "logs",
    "wakeup.py": "waits",
}

# Protocols that shells await, and the values that cross them. A machine may import those values.
PORTS = {"control/ports.py", "outbox/ports.py", "restart/ports.py", "storage/ports.py", "storage/sharing.py"}

FORBIDDEN = {
    *("anyio", "asyncio", "trio", "concurrent", "multiprocessing", "subprocess", "threading"),
    *("time", "random", "secrets", "uuid"),
    *("logging", "structlog", "pydantic"),
    *("os", "pathlib", "socket", "sqlite3"),
}


def modules() -> list[str]:
    """Paths below src. A package's own `__init__.py` only gathers names: neither machine nor shell."""
    files = (file for file in SRC.rglob("*.py") if file.name != "__init__.py")
    return sorted(file.relative_to(SRC).as_posix() for file in files)


def is_machine(module: str) -> bool:
    return module in MACHINES or (module.startswith(MACHINE_FOLDERS) and module not in SHELLS.keys() | PORTS)


def is_port(module: str) -> bool:
    return module in PORTS


def is_shell(module: str) -> bool:
    return module in SHELLS or module.startswith(SHELL_FOLDERS)


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node except what only type checkers see (`if TYPE_CHECKING:`)."""
    yield tree
    if isinstance(tree, ast.If) and isinstance(tree.test, ast.Name) and tree.test.id == "TYPE_CHECKING":
        children: Iterator[ast.AST] = iter(tree.orelse)
    else:
        children = ast.iter_child_nodes(tree)
    for child in children:
        yield from runtime_nodes(child)


def defined_in(folder: Path, name: str) -> Path | None:
    """Return the file behind `from <folder> import <name>`: a submodule, or where `__init__` has it from."""
    for file in (folder / f"{name}.py", folder / name / "__init__.py"):
        if file.is_file():
            return file
    for node in ast.parse((folder / "__init__.py").read_text(encoding="utf-8")).body:
        if (
            isinstance(node, ast.ImportFrom)
            and node.level
            and name in {item.asname or item.name for item in node.names}
        ):
            return next(imported_files(node, folder / "__init__.py"), None)
    return None


def imported_files(node: ast.ImportFrom, importer: Path) -> Iterator[Path]:
    """Files of ours that a relative import reads."""
    folder = importer.parents[node.level - 1].joinpath(*(node.module or "").split("."))
    if folder.with_suffix(".py").is_file():
        yield folder.with_suffix(".py")
    elif folder.is_dir():
        yield from filter(None, (defined_in(folder, item.name) for item in node.names))


def faults_of_node(node: ast.AST, file: Path) -> Iterator[str]:
    match node:
        case ast.Import():
            yield from (f"imports {item.name}" for item in node.names if item.name.split(".")[0] in FORBIDDEN)
        case ast.ImportFrom(level=0, module=str(module)) if module.split(".")[0] in FORBIDDEN:
            yield f"imports {module}"
        case ast.ImportFrom() if node.level:
            ours = (read.relative_to(SRC).as_posix() for read in imported_files(node, file))
            yield from (f"imports the shell {module}" for module in ours if is_shell(module))
        case ast.AsyncFunctionDef() | ast.Await() | ast.AsyncFor() | ast.AsyncWith() | ast.comprehension(is_async=1):
            yield "is async"
        case ast.Call(func=ast.Name(id="open")):
            yield "opens a file"
        case ast.Call(func=ast.Attribute(value=ast.Name(id="datetime" | "date"), attr="now" | "utcnow" | "today")):
            yield "reads the clock"
        case _:
            pass


def faults(source: str, file: Path) -> list[str]:
    found: list[str] = []
    for node in runtime_nodes(ast.parse(source)):
        found.extend(f"line {getattr(node, 'lineno', '?')} {fault}" for fault in faults_of_node(node, file))
    return found


@pytest.mark.parametrize("module", [module for module in modules() if is_machine(module)])
def test_machines_are_pure(module: str) -> None:
    assert faults((SRC / module).read_text(encoding="utf-8"), SRC / module) == []


@pytest.mark.parametrize("module", sorted(PORTS))
def test_ports_only_declare(module: str) -> None:
    found = faults((SRC / module).read_text(encoding="utf-8"), SRC / module)
    assert [fault for fault in found if not fault.endswith("is async")] == []


def test_every_module_is_a_machine_or_a_shell() -> None:
    """A new module has to be listed above, so that nobody forgets to ask whether it decides or acts."""
    kinds = (is_machine, is_port, is_shell)
    assert [module for module in modules() if sum(kind(module) for kind in kinds) != 1] == []


def test_the_lists_are_current() -> None:
    assert sorted((MACHINES | PORTS | SHELLS.keys()) - set(modules())) == []


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("import time", "imports time"),
        ("def f():\n    import os.path", "imports os.path"),
        ("from random import Random", "imports random"),
        ("from anyio.abc import TaskGroup", "imports anyio.abc"),
        ("from .controller import AdmissionController", "imports the shell admission/controller.py"),
        ("from . import controller", "imports the shell admission/controller.py"),
        ("from ..wakeup import Wakeup", "imports the shell wakeup.py"),
        ("from .. import wakeup", "imports the shell wakeup.py"),
        ("async def f(): ...", "is async"),
        ("x = lambda: [y async for y in z]", "is async"),
        ("def f():\n    return open('x')", "opens a file"),
        ("at = datetime.now()", "reads the clock"),
        ("if TYPE_CHECKING:\n    x = 1\nelse:\n    import socket", "imports socket"),
    ],
)
def test_an_impure_machine_is_found(source: str, fault: str) -> None:
    assert [found.split(" ", 2)[2] for found in faults(source, SRC / "admission" / "gate.py")] == [fault]


@pytest.mark.parametrize(
    "source",
    [
        "from heapq import heappush\nfrom ..values import Usage\nfrom .values import Lease",
        "if TYPE_CHECKING:\n    import random\n    from anyio.abc import TaskGroup",
        "def step(now: float) -> float:\n    return now",
        "from datetime import datetime\nat = datetime.fromtimestamp(0.0)",
    ],
)
def test_a_pure_machine_has_no_faults(source: str) -> None:
    assert faults(source, SRC / "admission" / "gate.py") == []


def test_no_module_grows_into_a_monster() -> None:
    """Past this size a file holds two things. Split it where the decision ends and the acting begins."""
    sizes = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in SRC.rglob("*.py")}
    assert {file.relative_to(SRC).as_posix(): size for file, size in sizes.items() if size > LINES_MAX} == {}
