"""The house rules that a machine can check: import rows, no cycles, sizes, docstrings, a light `--help`."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tutelage"
# A module imports only from rows above its own, or from its own package. In the first three rows modules of one row may
# use each other (never in a circle); below, packages of one row may not.
ROWS = (
    {"errors", "canon"},
    {
        "records",
        "wire",
        "config",
        "training_config",
        "compare_config",
        "proof_config",
        "run_file",
        "hosts",
        "redact",
        "schema",
        "resources",
        "jsonl",
        "progress",
        "energy",
        "hardware",
        "meter",
    },
    {"signals", "tasks", "prompts"},
    {"losses", "stats"},
    {"store", "ledger", "terms"},
    {"models"},
    {"collect", "curate", "train", "ship", "prove"},
    {"report", "serve"},
    {"view"},
    {"pipeline"},
    {"cli", "recipes"},
    {"__main__"},
)
ROW_OF = {room: number for number, rooms in enumerate(ROWS) for room in rooms}
VERIFIER = Path("tutelage") / "ledger" / "verify.py"
MODULES = sorted(path.relative_to(PACKAGE.parent) for path in PACKAGE.rglob("*.py"))


def room_of(module: Path) -> str:
    return module.parts[1].removesuffix(".py")


def imported_modules(tree: ast.AST) -> set[str]:
    """Dotted names of this package's modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "tutelage":
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "tutelage"}
    return found


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_only_from_rows_above(module: Path) -> None:
    room = room_of(module)
    if room == "__init__":
        return
    for name in imported_modules(ast.parse((PACKAGE.parent / module).read_text())):
        parts = name.split(".")
        if len(parts) < 2 or parts[1] not in ROW_OF:
            continue  # the package itself
        other = parts[1]
        if other == room:
            continue
        above = ROW_OF[other] < ROW_OF[room]
        neighbour = ROW_OF[other] == ROW_OF[room] and ROW_OF[room] <= 2
        assert above or neighbour, f"{module} (row {ROW_OF[room]}) imports {name} (row {ROW_OF[other]})"


def test_every_room_has_a_row() -> None:
    assert {room_of(module) for module in MODULES} - {"__init__"} <= set(ROW_OF)


def test_no_import_cycles() -> None:
    known = {".".join(module.with_suffix("").parts).removesuffix(".__init__") for module in MODULES}
    graph = {}
    for module in MODULES:
        name = ".".join(module.with_suffix("").parts).removesuffix(".__init__")
        tree = ast.parse((PACKAGE.parent / module).read_text())
        graph[name] = imported_modules(tree) & known - {name}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for other in graph[name]:
                if not name.startswith(other + "."):  # a package's __init__ imports nothing here
                    visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_sizes_and_docstrings(module: Path) -> None:
    text = (PACKAGE.parent / module).read_text()
    most = 1660 if module == VERIFIER else 400  # the verifier is one file that travels with a record, by design
    assert len(text.splitlines()) <= most, "a reader should hold any file in the head"
    tree = ast.parse(text)
    if module.name != "py.typed":
        assert ast.get_docstring(tree), f"{module} says nothing about itself"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 80, f"{module}: {node.name} is too long"
    for node in tree.body:
        public = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name[0] != "_"
        if public and not isinstance(node, ast.ClassDef) and len(node.body) > 4:
            assert ast.get_docstring(node), f"{module}: {node.name} has no docstring"


@pytest.mark.parametrize(
    "command",
    [["--help"], ["run", "--help"], ["verify", "--help"], ["terms", "list"], ["plan", "--help"]],
    ids=" ".join,
)
def test_reading_commands_load_no_torch(command: list[str]) -> None:
    script = (
        "import sys, json\nfrom tutelage.cli.main import main\n"
        f"try:\n    main({command!r})\nexcept SystemExit as ended:\n    code = ended.code\n"
        "heavy = [name for name in ('torch', 'transformers', 'scipy', 'xllamacpp') if name in sys.modules]\n"
        "print(json.dumps([code, heavy]), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stderr.splitlines()[-1]) == [0, []]


def test_base_install_needs_no_training_packages() -> None:
    """terms, verify, report, store and the API client run without torch."""
    modules = (
        "terms.check",
        "ledger.verify",
        "report.build",
        "store.store",
        "models.ask",
        "models.openai",
        "pipeline.gate",
    )
    script = "import sys\n" + "".join(f"import tutelage.{name}\n" for name in modules)
    script += "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_verifier_is_one_standard_library_file() -> None:
    tree = ast.parse((PACKAGE.parent / VERIFIER).read_text())
    names = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    names |= {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert names <= set(sys.stdlib_module_names)


def test_nothing_names_this_machine() -> None:
    """No absolute path of whoever develops it in what is shipped."""
    for path in (PACKAGE.parent / module for module in MODULES):
        assert f"{Path.home()}/" not in path.read_text(), path
