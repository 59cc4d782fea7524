"""The house keeps its order: imports point down, every package ships and nothing else, the front door stays light."""

from __future__ import annotations

import ast
import fnmatch
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("ir", "frontend", "passes", "backends", "runtime")
MAY_IMPORT: dict[str, set[str]] = {
    "ir": set(),
    "frontend": {"ir"},
    "passes": {"ir"},
    "backends": {"ir"},
    "runtime": {"ir", "frontend", "passes", "backends"},
    "": {"runtime", "frontend", "ir"},  # the front door: __init__.py and __main__.py
}
# The rooms that an encrypted program passes, in order: each imports only from those before it.
ENCRYPTED = ("core", "lowering", "steps", "linear", "products", "chain", "planning", "execution")
# Loaded on first use only. `import stein` must not pay for them (tests/test_import.py looks at the running process).
HEAVY = {
    "click", "cotengra", "cryptography", "jax", "lark", "llvmlite", "matplotlib", "mpmath", "opt_einsum", "rich",
    "scipy", "tenseal", "torch", "triton",
}  # fmt: skip
MOST_LINES = 600  # a file is about one job; 500 lines is the aim


def _modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {"stein": ROOT / "__init__.py", "stein.__main__": ROOT / "__main__.py"}
    for layer in LAYERS:
        for path in sorted((ROOT / layer).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(("stein", *(parts[:-1] if parts[-1] == "__init__" else parts)))] = path
    return found


MODULES = _modules()


def _layer(module: str) -> str:
    """The layer of a dotted name: "" for the front door."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LAYERS else ""


def _imports(name: str, tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every (dotted name, line) that the nodes of `tree` import; `from a import b` gives a.b."""
    is_package = MODULES[name].name == "__init__.py"
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = name.split(".") if is_package else name.split(".")[:-1]
                parts = parts[: len(parts) - (node.level - 1)]
                base = ".".join([*parts, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f"{base}.{alias.name}", node.lineno


def _tree(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def _setuptools() -> dict[str, object]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        found: dict[str, object] = tomllib.load(file)["tool"]["setuptools"]
    return found


@pytest.mark.parametrize("layer", ["", *LAYERS])
def test_imports_point_down(layer: str) -> None:
    bad = []
    for name in MODULES:
        if _layer(name) != layer:
            continue
        for target, line in _imports(name, _tree(name)):
            if target.split(".")[0] != "stein":
                continue
            to = _layer(target)
            if to != layer and (not to or to not in MAY_IMPORT[layer]):
                bad.append(f"{MODULES[name].relative_to(ROOT)}:{line} imports {target}")
    assert not bad, bad


def test_the_rule_sees_both_kinds_of_import() -> None:
    tree = ast.parse("import stein.runtime\nfrom ..passes import plan\nfrom . import size")
    assert [t for t, _ in _imports("stein.ir.types", tree)] == ["stein.runtime", "stein.passes.plan", "stein.ir.size"]


def test_no_backend_imports_another() -> None:
    names = {path.name for path in (ROOT / "backends").iterdir() if (path / "__init__.py").exists()}
    bad = []
    for name in MODULES:
        parts = name.split(".")
        if parts[1:2] != ["backends"] or len(parts) < 3:
            continue
        for target, line in _imports(name, _tree(name)):
            to = target.split(".")
            if to[:2] == ["stein", "backends"] and len(to) > 2 and to[2] in names - {parts[2]}:
                bad.append(f"{name}:{line} imports {target}")
    assert not bad, bad


def test_rooms_of_encrypted_programs_import_from_those_before() -> None:
    base = ("stein", "backends", "ckks")
    rooms = {path.name for path in (ROOT / "backends" / "ckks").iterdir() if (path / "__init__.py").exists()}
    assert rooms == set(ENCRYPTED)
    bad = []
    for name in MODULES:
        parts = tuple(name.split("."))
        if parts[:3] != base or len(parts) < 5:
            continue
        for target, line in _imports(name, _tree(name)):
            to = tuple(target.split("."))
            if to[:3] == base and (to[3] not in rooms or ENCRYPTED.index(to[3]) > ENCRYPTED.index(parts[3])):
                bad.append(f"{name}:{line} imports {target}")
    assert not bad, bad


def test_inside_a_layer_imports_are_relative() -> None:
    bad = []
    for name in MODULES:
        for node in ast.walk(_tree(name)) if _layer(name) else ():
            absolute = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                absolute = [node.module or ""]
            bad += [f"{name}: {target}" for target in absolute if target.split(".")[0] == "stein"]
    assert not bad, bad


@pytest.mark.parametrize("folder", ["tests", "examples", "benchmarks"])
def test_outside_the_package_imports_are_absolute(folder: str) -> None:
    bad = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                bad.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not bad, bad


def test_every_package_is_listed() -> None:
    on_disk = {"stein"}
    for layer in LAYERS:
        for path in (ROOT / layer).rglob("*.py"):
            assert (path.parent / "__init__.py").exists(), f"{path.parent.relative_to(ROOT)} lacks __init__.py"
            on_disk.add(".".join(("stein", *path.parent.relative_to(ROOT).parts)))
    listed = _setuptools()["packages"]
    assert isinstance(listed, list)
    assert listed == sorted(set(listed)), "keep the list sorted"
    assert set(listed) == on_disk


def test_every_data_file_is_listed() -> None:
    listed = _setuptools()["package-data"]
    assert isinstance(listed, dict)
    missing = []
    for layer in LAYERS:
        for path in (ROOT / layer).rglob("*"):
            if path.is_dir() or path.suffix == ".py" or "__pycache__" in path.parts:
                continue
            package = ".".join(("stein", *path.parent.relative_to(ROOT).parts))
            if not any(fnmatch.fnmatch(path.name, pattern) for pattern in listed.get(package, [])):
                missing.append(str(path.relative_to(ROOT)))
    assert not missing, missing
    assert (ROOT / "py.typed").exists()


def test_no_other_module_at_the_root() -> None:
    # It would ship as stein.<name>.
    assert {path.name for path in ROOT.glob("*.py")} == {"__init__.py", "__main__.py"}


def _module_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run on import: not the bodies of functions, not what stands under TYPE_CHECKING."""
    for node in body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif isinstance(node, ast.If):
            typing_only = "TYPE_CHECKING" in ast.unparse(node.test)
            yield from _module_level(node.orelse if typing_only else node.body + node.orelse)
        elif isinstance(node, ast.Try):
            handlers = [statement for handler in node.handlers for statement in handler.body]
            yield from _module_level(node.body + handlers + node.orelse + node.finalbody)
        elif isinstance(node, (ast.With, ast.ClassDef, ast.For)):
            yield from _module_level(node.body)


def test_the_front_door_is_light() -> None:
    # The front door looks its public names up on first use; their homes count as reachable.
    door = [target for target, _ in _imports("stein", _tree("stein"))]
    homes = [target.rpartition(".")[0] for target in door if target.startswith("stein.")]
    assert homes
    todo, seen, bad = ["stein", *homes], set(), []
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        for statement in _module_level(_tree(name).body):
            for target, line in _imports(name, statement):
                if target.split(".")[0] in HEAVY:
                    bad.append(f"{name}:{line} imports {target}")
                parts = target.split(".")  # importing a.b.c runs a, a.b and a.b.c
                todo += [m for m in (".".join(parts[:k]) for k in range(1, len(parts) + 1)) if m in MODULES]
    assert not bad, bad


def test_files_stay_short() -> None:
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}


def test_every_phony_target_explains_itself() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = next(line for line in text.splitlines() if line.startswith(".PHONY:")).split()[1:]
    explained = [
        line.split(":")[0] for line in text.splitlines() if " ## " in line and not line.startswith(("\t", "#"))
    ]
    assert sorted(phony) == sorted(explained)
