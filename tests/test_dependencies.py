"""What an extra brings is imported under its integration alone; the version stands in one place."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections import defaultdict
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
#: Extra → its module, and the files of `harness/` that may import it.
OPTIONAL = {
    "lightning": ("lightning", {"integrations/lightning.py"}),
    "transformers": ("transformers", {"integrations/transformers.py", "integrations/any_trainer.py"}),
    "wandb": ("wandb", {"tracking/loggers/wandb.py"}),
    "mlflow": ("mlflow", set()),
    "timm": ("timm", set()),
    "ray": ("ray", set()),
}
#: Comes with torch where there is a GPU.
WITH_TORCH = {"triton": {"kernels/triton_kernels.py", "kernels/triton_reduction.py"}}


def imports() -> dict[str, set[str]]:
    """Top-level module → the files of `harness/` that import it."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in (ROOT / "harness").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            for name in names:
                found[name.partition(".")[0]].add(str(path.relative_to(ROOT / "harness")))
    return found


def test_extras_are_imported_under_their_integration_alone() -> None:
    found, extras = imports(), PROJECT["optional-dependencies"]
    for extra, (module, files) in OPTIONAL.items():
        assert found[module] <= files
        assert any(module in one for one in extras[extra])
    for module, files in WITH_TORCH.items():
        assert found[module] <= files


def test_the_version_is_that_of_the_project() -> None:
    import harness

    assert harness.__version__ == PROJECT["version"] == metadata.version(PROJECT["name"])
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {PROJECT['version']}\n" in citation
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_version_is_looked_up_when_it_is_asked_for() -> None:
    program = "import sys, harness; a = 'importlib.metadata' in sys.modules; print(a, harness.__version__)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == ["False", "unknown"]  # -S: without installed packages
