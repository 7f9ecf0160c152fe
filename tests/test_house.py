"""The house's own rules: floors, lazy imports, packaging, documents."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "codecs" / "codeczoo"
FLOORS = [
    {"core"},
    {"nn", "io"},
    {"quantizers", "backbones", "losses", "adversaries", "metrics"},
    {"image", "audio", "video"},
    {"zoo"},
    {"data", "export", "engine"},
    {"cli"},
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> list[tuple[int, str]]:
    """Line and dotted name of everything that a file imports, at any depth."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{path}:{node.lineno}: relative import"
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def part(dotted: str) -> str | None:
    """The first name below codeczoo, when it stands on a floor."""
    names = dotted.split(".")
    return names[1] if names[0] == "codeczoo" and len(names) > 1 and names[1] in FLOOR else None


def test_every_package_stands_on_a_floor() -> None:
    folders = {p.name for p in PACKAGE.iterdir() if p.is_dir() and (p / "__init__.py").is_file()}
    assert folders <= set(FLOOR), folders - set(FLOOR)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_only_go_down(path: Path) -> None:
    here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if here not in FLOOR:  # codeczoo/__init__ and __main__ are the doors
        return
    for line, name in imports(path):
        other = part(name)
        down = other is None or other == here or FLOOR[other] < FLOOR[here]
        assert down, f"{path.name}:{line}: {here} must not import {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_lightning_and_hydra_stay_upstairs(path: Path) -> None:
    here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if FLOOR.get(here, 0) <= FLOOR["zoo"] or here == "export":
        names = {name.split(".")[0] for _, name in imports(path)}
        assert not names & {"lightning", "hydra", "omegaconf", "pytorch_lightning"}


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_import_is_lazy() -> None:
    assert run("import sys, codeczoo; print('torch' in sys.modules, 'numpy' in sys.modules)") == "False False"
    assert run("import codeczoo; codeczoo.load; import sys; print('lightning' in sys.modules)") == "False"


def test_conf_and_recipes_are_found() -> None:
    for name in ("conf", "recipes"):
        assert run(f"from importlib.resources import files; print(files('codeczoo.{name}').is_dir())") == "True"


def test_no_package_index_is_named_and_nothing_is_unpickled() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, tracked.stdout.split("\0")):
        path = ROOT / name
        if not path.is_file() or path.suffix in (".png", ".safetensors") or path == Path(__file__):
            continue
        text = path.read_text(errors="replace")
        assert not re.search(r"(pypi\.(org|python)|index-url|pythonhosted)", text), name
        if path.suffix == ".py":
            assert not re.search(r"^\s*(import|from) pickle\b|allow_pickle=True|weights_only=False", text, re.M), name


def test_every_public_name_says_what_it_is() -> None:
    missing = []
    for path in FILES:
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree) or path.name in ("__main__.py",), f"{path}: no docstring"
        for node in ast.walk(tree):
            public = isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
            if public and not ast.get_docstring(node) and node in tree.body:
                missing.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}")
    assert not missing, missing
