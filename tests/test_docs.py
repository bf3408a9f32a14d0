"""The documentation builds without a warning, and has what it promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import harness
from harness.config.schema import SCHEMAS
from harness.report import plots

ROOT = Path(__file__).parent.parent
CHARTS = [name for name in plots.CAPTIONS if hasattr(plots, name)]  # experiments have figures of their own
DOCS = ROOT / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages as HTML, built strictly."""
    folder = tmp_path_factory.mktemp("site")
    words = ["-W", "--keep-going", "-q", "-b", "html", "-d", str(folder / "doctrees")]
    command = [sys.executable, "-m", "sphinx", *words, str(DOCS), str(folder / "html")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder / "html"


def test_it_builds_strictly_and_is_complete(site: Path) -> None:
    api = (site / "reference" / "api.html").read_text(encoding="utf-8")
    assert all(f'id="harness.{name}"' in api for name in harness.__all__)
    keys = (site / "reference" / "configuration.html").read_text(encoding="utf-8")
    assert not [key for key in _keys() if f">{key}<" not in keys]
    gallery = (site / "gallery.html").read_text(encoding="utf-8")
    assert gallery.count("Read it as: ") >= len(CHARTS)
    assert all((site / "_images" / f"{name}.svg").is_file() for name in CHARTS)
    commands = (site / "reference" / "command_line.html").read_text(encoding="utf-8")
    assert all(
        f"harness-tools {name}" in commands for name in ("scan", "compare", "report", "threshold", "selftest")
    )


def _keys() -> set[str]:
    """Every dotted key of a group."""
    kinds = [(group, kind) for group, choices in SCHEMAS.items() for kind in choices.values()]
    return {f"{group}.{one}" for group, kind in kinds for one in kind.__dataclass_fields__ if one != "name"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_a_page_is_short_and_linked(page: Path) -> None:
    assert len(page.read_text(encoding="utf-8").splitlines()) <= 200
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    name = str(page.relative_to(DOCS).with_suffix(""))
    assert name == "index" or re.search(rf"^{re.escape(name)}$", index, re.M), "in no table of contents"
