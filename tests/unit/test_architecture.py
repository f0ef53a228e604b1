"""The table of docs/architecture.md is true: layers import only those above, and its files are there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Folder of each layer with the files named in its line, in the order of the table.
LAYERS = {
    line.split("`")[1].rstrip("/"): re.findall(r"`(\w+\.py)`", line.rpartition(" | ")[2])
    for line in (ROOT / "docs" / "architecture.md").read_text().splitlines()
    if line.startswith("| `")
}


def layer_of(module: str) -> str:
    """The layer of a module, "" for what stands beside the layers or is not ours."""
    folder = "/".join(module.split(".")[: 2 if module.startswith("testbed.") else 1])
    return folder if folder in LAYERS else ""


def imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_those_above_it(layer):
    order = [*LAYERS]
    files = sorted((ROOT / layer).rglob("*.py"))
    assert files
    for path in files:
        for module in imports(path):
            other = layer_of(module)
            assert not other or order.index(other) <= order.index(layer), f"{path} imports {module}"


@pytest.mark.parametrize("layer", LAYERS)
def test_where_to_begin(layer):
    assert LAYERS[layer]
    for name in LAYERS[layer]:
        assert (ROOT / layer / name).exists(), name


def test_every_folder_of_the_package_is_a_layer():
    folders = {f"testbed/{path.parent.name}" for path in (ROOT / "testbed").glob("*/__init__.py")}
    assert folders <= {*LAYERS}


@pytest.mark.parametrize("layer", [layer for layer in LAYERS if layer != "experiments"])
def test_a_package_names_its_modules(layer):
    """But for experiments, which `./run` lists."""
    package = ROOT / layer / "__init__.py"
    told = re.findall(r"`(\w+)`", ast.get_docstring(ast.parse(package.read_text())) or "")
    there = {path.stem for path in package.parent.glob("*.py") if not path.stem.startswith("__")}
    assert there <= {*told}, f"{package} does not name {there - {*told}}"
