"""The import rule: packages of `utils/` import only packages above them; nothing imports a script."""

import ast
import re
from pathlib import Path

import pytest

from helpers.paths import PROJECT as ROOT


# In the order of docs/architecture.md.
PACKAGES = re.findall(
    r"^[├└]── (\w+)/ ", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"), re.MULTILINE
)
SCRIPTS = {path.stem for path in ROOT.glob("*.py")}


def imported(path: Path) -> set[str]:
    """The modules that a file imports, by their dotted names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_packages_above_it(package):
    below = {f"utils.{name}" for name in PACKAGES[PACKAGES.index(package) + 1 :]}
    for path in ROOT.joinpath("utils", package).rglob("*.py"):
        wrong = {name for name in imported(path) if any(f"{name}.".startswith(f"{other}.") for other in below)}
        assert not wrong, f"{path} imports {wrong}"


def test_every_package_has_its_place_in_the_rule():
    assert {path.parent.name for path in ROOT.glob("utils/*/__init__.py")} == set(PACKAGES)
    assert [path.name for path in ROOT.glob("utils/*.py")] == ["__init__.py"]


def test_nothing_imports_a_script():
    for folder in ("utils", "data", "benchmarks"):
        for path in ROOT.joinpath(folder).rglob("*.py"):
            assert not imported(path) & SCRIPTS, path
    for path in ROOT.glob("*.py"):
        assert not imported(path) & SCRIPTS, path


def test_no_module_is_over_400_lines_and_no_function_over_60():
    """A script's `main` may be longer: it is read from top to bottom."""
    for path in [*ROOT.glob("*.py"), *ROOT.joinpath("utils").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.name != "main":
                assert node.end_lineno - node.lineno < 60, f"{path}: {node.name}"
