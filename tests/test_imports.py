"""Import boundaries: imports point down only, and pretraining needs none of the transfer frameworks.

The rules are read from the source (``ast``), so that an import inside a function counts too.
"""

import ast
import gc
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "slotcon_plugin"
ROOT = Path(__file__).resolve().parent.parent
FRAMEWORKS = {"mmcv", "mmdet", "mmseg", "detectron2"}
# Rooms that speak with the transfer frameworks. All others are needed for pretraining.
SPEAKS_WITH_FRAMEWORKS = {"convert", "transfer", "d2_timm"}
# Those that are only imported where a framework is installed.
INSIDE_FRAMEWORKS = {"transfer", "d2_timm"}

# The ground: any room may stand on it.
GROUND = {"errors", "files", "normalization", "devices"}
# room -> rooms of the project that it may import beside the ground. 'models.losses' is a room of its own.
MAY_IMPORT = {
    "errors": set(),
    "devices": set(),
    "files": {"errors"},
    "normalization": set(),
    "geometry": set(),
    "resnet": set(),
    "photos": set(),
    "models.losses": set(),
    "registry": set(),
    "config": set(),
    "results": set(),
    "page": set(),
    "declaration": set(),
    "checkpoints": set(),
    "convert": {"arguments", "checkpoints", "resnet", "declaration", "models", "d2_timm"},
    "command": set(),
    "arguments": {"key_values"},
    "key_values": set(),
    "launch": {"command", "errors"},
    "data": {"registry", "geometry", "photos"},
    "demo_scenes": {"registry", "data"},
    "models": {"registry", "geometry", "resnet", "models.losses", "declaration"},
    "engine": {"registry", "checkpoints", "command", "config", "models", "convert"},
    "profiling": {"registry", "config", "data", "models", "engine", "photos"},
    "initialization": {"convert", "models"},
    "apis": {"config", "models", "engine", "initialization"},
    "loading": {"registry", "checkpoints", "config", "models", "engine"},
    "d2_timm": {"models"},
    "transfer": {"checkpoints", "convert", "results", "engine", "d2_timm", "evaluation", "models", "photos"},
    "evaluation": {
        *{"registry", "checkpoints", "data", "models", "models.losses", "convert"},
        *{"results", "loading", "config", "engine", "photos"},
    },
    "visualization": {"registry", "geometry", "data", "models", "engine", "loading", "photos", "page"},
    "benchmark": {"key_values", "registry", "command", "results", "config", "convert", "page"},
    "embedding": {"evaluation", "models", "photos"},
    "actions": {
        *{"apis", "checkpoints", "config", "convert", "declaration", "embedding", "engine"},
        *{"evaluation", "initialization", "loading", "models", "photos", "results", "transfer", "visualization"},
    },
    "cli": {
        *{"actions", "arguments", "benchmark", "command", "config", "convert"},
        *{"key_values", "launch", "quickstart"},
    },
    "__main__": {"cli"},
    "quickstart": {
        *{"apis", "checkpoints", "command", "config", "convert", "data"},
        *{"engine", "evaluation", "photos", "registry", "visualization"},
    },
}


def imports(path: Path) -> Iterator[tuple[str, int, bool]]:
    """(absolute dotted name, line, at module level) of every import in a file of the package that can ever run."""
    package = ".".join(path.relative_to(ROOT).with_suffix("").parts[:-1])
    gc.disable()  # Python 3.11 fails when a finaliser parses, too (cpython 106905)
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    finally:
        gc.enable()
    inside = {node for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for node in ast.walk(f)}
    for_types = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    never = {node for branch in for_types for node in ast.walk(branch)}
    for node in ast.walk(tree):
        if node in never:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{stem}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield name, node.lineno, node not in inside


def room_of(dotted: str) -> str:
    """``slotcon_plugin.models.losses.grouping`` -> ``models.losses``; ``slotcon_plugin`` itself -> ``''``."""
    parts = dotted.split(".")[1:]
    return "models.losses" if parts[:2] == ["models", "losses"] else (parts[0] if parts else "")


def allowed_for(room: str) -> set[str]:
    return MAY_IMPORT[room] | (set() if room in GROUND else GROUND)


def package_files() -> list[Path]:
    return sorted((ROOT / PACKAGE).rglob("*.py"))


def room_of_file(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return room_of(".".join(part for part in parts if part != "__init__"))


def test_the_reader_resolves_relative_imports_and_sees_functions(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    source = tmp_path / PACKAGE / "data" / "x.py"
    source.parent.mkdir(parents=True)
    source.write_text("from ..geometry import a\nfrom . import b\ndef f():\n    import mmdet.apis\n")
    assert list(imports(source)) == [
        ("slotcon_plugin.geometry.a", 1, True),
        ("slotcon_plugin.data.b", 2, True),
        ("mmdet.apis", 4, False),
    ]


@pytest.mark.parametrize("path", package_files(), ids=lambda p: str(p.relative_to(ROOT / PACKAGE)))
def test_imports_point_down(path):
    room = room_of_file(path)
    for name, line, at_top in imports(path):
        where = f"{path.relative_to(ROOT)}:{line} imports {name}"
        top = name.split(".")[0]
        assert top != "tools", f"{where}: nothing imports tools/"
        if top in FRAMEWORKS:
            assert room in SPEAKS_WITH_FRAMEWORKS, f"{where}: pretraining never needs a transfer framework"
            assert not at_top or room in INSIDE_FRAMEWORKS, f"{where}: import frameworks inside the function"
        if room in ("checkpoints", "convert") and at_top:
            allowed = {"torch", "numpy", PACKAGE, *sys.stdlib_module_names}
            assert top in allowed, f"{where}: of libraries, these rooms import torch and numpy alone"
        if top == PACKAGE and room:
            target = room_of(name)
            allowed = allowed_for(room) | {room, ""}
            assert target in allowed, f"{where}: {room} may import {sorted(allowed)} only"


def test_no_rule_allows_what_nobody_does():
    used = {room: set() for room in MAY_IMPORT}
    for path in package_files():
        used.get(room_of_file(path), set()).update(room_of(name) for name, _, _ in imports(path) if PACKAGE in name)
    unused = {room: sorted(allowed - used[room]) for room, allowed in MAY_IMPORT.items() if allowed - used[room]}
    assert not unused, f"take these out of the rules, nothing imports them: {unused}"


def test_every_room_has_its_rule_and_every_rule_its_room():
    assert {room_of_file(path) for path in package_files()} - {""} == set(MAY_IMPORT)


def test_the_rules_allow_no_circle_between_rooms():
    assert circle_in({room: allowed_for(room) for room in MAY_IMPORT}) is None


def test_no_files_import_each_other_in_a_circle():
    """A package's face (``__init__.py``) only hands names on: who imports a name from it depends on all it imports."""
    files = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in package_files()}

    def file_of(name: str) -> str | None:
        """``slotcon_plugin.data.keys.SampleKey`` -> ``slotcon_plugin.data.keys``; the face for a name of a package."""
        while name and name not in files and f"{name}.__init__" not in files:
            name = name.rpartition(".")[0]
        return name if name in files or not name else f"{name}.__init__"

    graph = {
        name: {file_of(target) for target, _, _ in imports(path)} - {None, "", name} for name, path in files.items()
    }
    assert len(graph["slotcon_plugin.apis"]) > 3, "the imports are not seen"
    found = circle_in(graph)
    assert found is None, " -> ".join(found)


def circle_in(graph: dict[str, set[str]]) -> list[str] | None:
    """A way that comes back to where it began, or None."""
    way: list[str] = []
    done = set()

    def walk(node: str) -> list[str] | None:
        if node in way:
            return [*way[way.index(node) :], node]
        if node not in done:
            way.append(node)
            for target in sorted(graph[node]):
                if found := walk(target):
                    return found
            done.add(way.pop())
        return None

    return next(filter(None, map(walk, sorted(graph))), None)


def test_circles_are_found():
    assert circle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": {"b"}}) == ["b", "c", "d", "b"]
    assert circle_in({"a": {"a"}}) == ["a", "a"]


def test_the_map_of_rooms_in_the_docs_is_that_of_the_package():
    table = (ROOT / "docs/extend.md").read_text(encoding="utf-8").split("## Where things are")[1].split("\n## ")[0]
    named = re.findall(r"`(?:slotcon_plugin/)?([\w.]+?)(?:/|\.py)`", table)
    there = {path.relative_to(ROOT / PACKAGE).parts[0].removesuffix(".py") for path in package_files()} - {"__init__"}
    assert there <= set(named), f"docs/extend.md has no row for {sorted(there - set(named))}"
    assert set(named) - there <= {"configs", "tools", "tests", "losses", "pretrainers"}


def test_pretraining_imports_without_the_frameworks():
    """Also for what dependencies drag in: with the frameworks blocked, every room of pretraining imports."""
    modules = [
        ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for p in package_files()
        if room_of_file(p) not in INSIDE_FRAMEWORKS
    ]
    blocked = "\n".join(f"sys.modules[{name!r}] = None" for name in sorted(FRAMEWORKS))
    code = f"import sys, importlib\n{blocked}\nfor m in {modules!r}: importlib.import_module(m)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
