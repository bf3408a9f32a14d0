"""A choice that is read without Hydra is the one that Hydra composes."""

from __future__ import annotations

import pytest

from harness.config import compose
from harness.config.tree import choice, our_groups

SIMPLE = [
    (group, name)
    for group in ("activation", "init", "bias", "schedule", "remedy")
    for name in our_groups()[group]
    if name not in ("own", "stored")  # of model=custom alone; needs a path
]


@pytest.mark.parametrize(("group", "name"), SIMPLE)
def test_a_choice_is_as_composed(group: str, name: str) -> None:
    assert choice(group, name) == getattr(compose([f"{group}={name}"]), group)
