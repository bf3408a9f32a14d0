"""The smallest claim, as the docs show it, works as one more file."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import experiments.claims
from experiments import command, registry

PAGE = Path(__file__).parent.parent.parent / "docs" / "howto" / "claims.md"
NAME = "small_batches"


@pytest.fixture
def _as_one_more_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    blocks = [
        part.partition("\n```")[0] for part in PAGE.read_text(encoding="utf-8").split("```python\n")[1:]
    ]
    (text,) = (block for block in blocks if f'name="{NAME}"' in block)
    folder = tmp_path / "claims"
    folder.mkdir()
    (folder / f"{NAME}.py").write_text(text, encoding="utf-8")
    monkeypatch.setattr(experiments.claims, "__path__", [*experiments.claims.__path__, str(folder)])
    monkeypatch.setattr(registry, "FOLDER", folder)
    registry.names.cache_clear()
    importlib.invalidate_caches()
    yield
    registry.names.cache_clear()
    registry.claim.cache_clear()
    sys.modules.pop(f"experiments.claims.{NAME}", None)


@pytest.mark.usefixtures("_as_one_more_file")
def test_it_is_found_run_and_judged(tmp_path: Path) -> None:
    assert registry.names() == (NAME,)
    (result,) = command.run([NAME], "toy", tmp_path / "out", workers=1)
    assert result.verdict is not None
    assert result.verdict.word == "undecided"
    assert (tmp_path / "out" / "pictures" / "toy" / "digits" / f"{NAME}.png").is_file()
