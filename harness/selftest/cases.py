"""All cases, by group."""

from __future__ import annotations

from fnmatch import fnmatchcase

from harness.selftest import (
    arrangements,
    attention,
    axes,
    convolutions,
    forms,
    machinery,
    own,
    plain,
    repeated,
    sharing,
    stuck,
    unseen,
)
from harness.selftest.case import Case

GROUPS: dict[str, dict[str, Case]] = {
    "plain nets and awkward inputs": plain.CASES,
    "spellings of activations": forms.CASES,
    "activations of one's own": own.CASES,
    "units stuck in the flat part": stuck.CASES,
    "axes, norms and dropout": axes.CASES,
    "units arranged otherwise": arrangements.CASES,
    "convolutions": convolutions.CASES,
    "shared modules and sums": sharing.CASES,
    "repeated and tied blocks": repeated.CASES,
    "transformers": attention.CASES,
    "checkpoints, autocast, compile, lazy layers": machinery.CASES,
    "what cannot be seen": unseen.CASES,
}
CASES: dict[str, Case] = {name: case for group in GROUPS.values() for name, case in group.items()}
assert len(CASES) == sum(map(len, GROUPS.values())), "a name stands for one case"


def chosen(pattern: str | None) -> dict[str, dict[str, Case]]:
    """The cases whose name contains `pattern` or matches it as a glob; None: all.

    Raises:
        ValueError: no case matches.

    Example:
        >>> list(chosen("layernorm*").values())[0].keys()
        dict_keys(['layernorm', 'layernorm sequence dropout'])
    """
    if pattern is None:
        return GROUPS
    wanted = pattern.lower()
    found = {
        group: {n: case for n, case in cases.items() if wanted in n.lower() or fnmatchcase(n.lower(), wanted)}
        for group, cases in GROUPS.items()
    }
    found = {group: cases for group, cases in found.items() if cases}
    if not found or not pattern:
        raise ValueError(f"expected a part of a case's name or a glob such as 'conv*', but got {pattern!r}")
    return found
