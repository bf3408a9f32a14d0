"""The layers of the packages, and what is not imported when it is not needed."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

ROOT = Path(__file__).parent.parent


def test_imports_only_go_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert lint_imports(cache_dir=None) == EXIT_STATUS_SUCCESS


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import harness", "torch torchvision hydra tensorboard matplotlib pandas lightning"),
        (
            "import harness; harness.Recorder, harness.scan",
            "torchvision hydra tensorboard matplotlib lightning",
        ),
        ("import harness; harness.open_runs", "torch matplotlib tensorboard"),
        ("from harness.cli import run; run(['--help'])", "torch pandas pyarrow matplotlib"),
        ("import harness.report.plots, harness.report.tensorboard, harness.report.tables", "torch"),
    ],
)
def test_what_is_not_needed_is_not_imported(code: str, absent: str) -> None:
    program = f"import sys\n{code}\nprint('LOADED', *(m for m in {absent.split()!r} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.splitlines()[-1].split() == ["LOADED"]


@pytest.mark.parametrize("package", ["harness", "harness.compare", "harness.config"])
def test_no_name_of_a_package_is_that_of_a_module_in_it(package: str) -> None:
    """Importing such a module would put it in the place of the name."""
    found = importlib.import_module(package)
    modules = {module.name for module in pkgutil.iter_modules(found.__path__)}
    assert all(getattr(found, name) is not None for name in found.__all__)
    assert not set(found.__all__) & modules


def test_public_names_are_there() -> None:
    import harness

    assert all(getattr(harness, name) is not None for name in harness.__all__)
    assert set(harness.__all__) <= set(dir(harness))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = harness.nonsense  # type: ignore[attr-defined]


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    """An environment with the base install alone has what the commands need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {name_of(one) for one in project["dependencies"]}
    extras = {name_of(one) for group in project["optional-dependencies"].values() for one in group}
    owners = metadata.packages_distributions()
    imported: dict[str, str] = {}
    for path in sorted((ROOT / "harness").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names.append(node.module)
            imported |= {name.split(".")[0]: str(path) for name in names}
    ours = {"harness", "hydra_plugins", "triton", *sys.stdlib_module_names}  # triton comes with torch
    found = {
        name: {name_of(owner) for owner in owners.get(name, [name])} for name in imported if name not in ours
    }
    undeclared = {name: imported[name] for name, owner in found.items() if not owner & (declared | extras)}
    assert not undeclared
    assert declared <= set().union(*found.values())


def name_of(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None
    return found[0].lower().replace("_", "-")
