"""The page for students quotes every claim, with the verdict that the committed results give it."""

from __future__ import annotations

import re

from experiments import command, registry
from experiments.__main__ import HOME
from experiments.page import corrected
from experiments.shelf import Shelf

PAGE = HOME.parent / "docs" / "explanation" / "true.md"
QUOTED = re.compile(r"\*([a-z ]+)\*\s\(\[(\w+)\]\(\.\./results\.md#(\w+)\)\)")


def test_its_verdicts_are_those_of_the_results() -> None:
    shelf = Shelf(HOME / command.RESULTS)
    tried = [(claim, found) for claim in registry.claims() if (found := shelf.of(claim, "small"))]
    verdicts = {entry.claim.name: entry.word for entry in corrected(tried)}
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    quoted = QUOTED.findall(text)
    assert all(name == anchor for _, name, anchor in quoted)
    assert {name: word for word, name, _ in quoted} == verdicts
    assert len(quoted) == text.count("results.md#")
