"""What the layout promises: imports go one way, and the master stays free of everything that is the workers'."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("path", sorted((ROOT / "workers").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_workers_know_nothing_of_the_daemon(path: Path) -> None:
    assert not [name for name in imported(path) if name.startswith("preforkd.daemon")]


@pytest.mark.parametrize("path", sorted((ROOT / "daemon").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_daemon_uses_no_asyncio(path: Path) -> None:
    assert "asyncio" not in imported(path)


def test_a_command_that_forks_no_worker_imports_no_event_loop_and_no_parser() -> None:
    code = (
        "import sys, threading\n"
        "import preforkd.daemon.command\n"
        "print([m for m in ('asyncio', 'uvloop', 'httptools', 'multidict', 'subprocess') if m in sys.modules])\n"
        "print(threading.active_count())\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["[]", "1"]


BEFORE_THE_FIRST_FORK = """
import os, signal, sys, threading
from preforkd.daemon import command, roles

def alive():
    handlers = [signal.getsignal(one) for one in sorted(signal.valid_signals())]
    threads = len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 1
    return os.listdir("/dev/fd"), handlers, signal.set_wakeup_fd(-1), threading.enumerate(), threads

before = alive()
roles.import_workers('auto')
assert {"asyncio", "uvloop", "ssl", "multidict", "preforkd.workers.gateways.asgi.gateway"} <= set(sys.modules)
assert alive() == before, (alive(), before)
assert len(before[3]) == before[4] == 1
"""


def test_what_the_master_imports_for_its_workers_is_code_alone_so_that_forks_stay_safe() -> None:
    """No thread, no descriptor (an event loop has three) and no signal handler comes of it."""
    subprocess.run([sys.executable, "-c", BEFORE_THE_FIRST_FORK], check=True)


PURE = (
    "policy", "reconcile", "turn", "deaths", "slots", "backoff", "events", "actions", "attendant", "report",
    "tls_specs", "tls_values",
)  # fmt: skip


@pytest.mark.parametrize("module", PURE)
def test_decisions_touch_no_clock_no_process_and_no_socket(module: str) -> None:
    effects = {"os", "time", "socket", "select", "selectors", "subprocess", "threading", "random", "datetime"}
    assert not imported(ROOT / "daemon" / f"{module}.py") & effects


@pytest.mark.parametrize("module", ["snapshot", "history", "readiness", "status", "metrics"])
def test_what_the_admin_process_says_is_reckoned_without_a_system_call(module: str) -> None:
    effects = {"os", "time", "socket", "select", "subprocess", "threading", "random", "datetime", "psutil", "asyncio"}
    assert not imported(ROOT / "workers" / "admin" / f"{module}.py") & effects


def test_no_package_is_missing_from_the_wheel() -> None:
    import tomllib

    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {
        "preforkd." + ".".join(path.parent.relative_to(ROOT).parts)
        for folder in ("daemon", "workers")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert listed == found


# Circles. What only types need (`if TYPE_CHECKING`) counts as well: who reads a module has to know what it speaks of.


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(["preforkd", *parts]).removesuffix(".__init__")


MODULES = {name_of(path): path for folder in ("daemon", "workers") for path in sorted((ROOT / folder).rglob("*.py"))}


def imports(source: str, modules: dict[str, Path]) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (whole & modules.keys()) or {node.module}
    return found & modules.keys()


def circle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        return list(exc.args[1])
    return []


def test_a_circle_is_found() -> None:
    modules = dict.fromkeys(("a", "b", "c"), Path())
    sources = {"a": "import b", "b": "from c import x", "c": "def f():\n    from a import y\n"}
    assert set(circle({name: imports(source, modules) for name, source in sources.items()})) == {"a", "b", "c"}
    sources["c"] = "if TYPE_CHECKING:\n    from a import y\n"
    assert set(circle({name: imports(source, modules) for name, source in sources.items()})) == {"a", "b", "c"}
    sources["c"] = "import d\n"
    assert not circle({name: imports(source, modules) for name, source in sources.items()})


def test_imports_go_in_no_circle() -> None:
    graph = {name: imports(path.read_text(), MODULES) - {name} for name, path in MODULES.items()}
    assert circle(graph) == []


@pytest.mark.parametrize("path", sorted((ROOT / "workers/http").rglob("*.py")), ids=lambda p: p.name)
def test_the_protocol_knows_no_gateway(path: Path) -> None:
    assert not [name for name in imported(path) if name.startswith("preforkd.workers.gateways")]


# Private names. Those of a base class count as well, which linters do not see.


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def own_names(tree: ast.AST) -> set[str]:
    """The private names that a module defines: of functions, classes, attributes and slots."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            names.add(node.attr)
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__slots__" for t in node.targets):
            names |= {str(one.value) for one in ast.walk(node.value) if isinstance(one, ast.Constant)}
    return {name for name in names if is_private(name)}


def classes_of(trees: dict[Path, ast.Module]) -> dict[str, tuple[Path, set[str], list[str]]]:
    """Each class by its name: where it is, the private names that it defines, and the names of its bases."""
    return {
        node.name: (path, own_names(node), [base.id for base in node.bases if isinstance(base, ast.Name)])
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }


def taken(sources: dict[Path, str]) -> set[tuple[Path, str]]:
    """The private names that modules take from modules of other packages: of what they import, of objects, of bases."""
    trees = {path: ast.parse(source) for path, source in sources.items()}
    defined = {path: own_names(tree) for path, tree in trees.items()}
    classes = classes_of(trees)

    def owner(name: str, attribute: str) -> Path | None:
        """Where the class, or the nearest of its bases, is that defines an attribute."""
        if name not in classes:
            return None
        path, names, bases = classes[name]
        if attribute in names:
            return path
        return next((found for base in bases if (found := owner(base, attribute)) is not None), None)

    found: set[tuple[Path, str]] = set()
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                for one in ast.walk(node):
                    if isinstance(one, ast.Attribute) and is_private(one.attr) and ast.unparse(one.value) == "self":
                        where = owner(node.name, one.attr)
                        if where is not None and where.parent != path.parent:
                            found.add((path, one.attr))
            elif isinstance(node, ast.Attribute) and is_private(node.attr) and ast.unparse(node.value) != "self":
                near = any(node.attr in names for other, names in defined.items() if other.parent == path.parent)
                if not near and any(node.attr in names for names in defined.values()):
                    found.add((path, node.attr))
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("preforkd."):
                package = ".".join(["preforkd", *path.relative_to(ROOT).parts[:-1]])
                if node.module != package and not str(node.module).startswith(f"{package}."):
                    found |= {(path, alias.name) for alias in node.names if is_private(alias.name)}
    return {(path, name) for path, name in found if not name.startswith("_asyncio_")}  # asyncio's, for what it awaits


def test_a_private_name_of_another_package_is_found() -> None:
    base, heir = ROOT / "workers/http/base.py", ROOT / "workers/gateways/heir.py"
    sources = {
        base: "class Base:\n    __slots__ = ('_a',)\n    def _b(self): self._c = 1\n",
        heir: "class Heir(Base):\n    def f(self, other):\n        self._own = self._a, self._b(), other._c\n",
    }
    assert taken(sources) == {(heir, "_a"), (heir, "_b"), (heir, "_c")}


def test_no_private_name_is_taken_from_another_package() -> None:
    found = taken({path: path.read_text() for path in MODULES.values()})
    assert sorted(f"{path.relative_to(ROOT)}: {name}" for path, name in found) == []
