"""The runner: every case through its checks, and the outcomes."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from harness.selftest.case import Case
from harness.selftest.checks import CHECKS, checks_of
from harness.selftest.compare import Difference

PASSED, FAILED, UNAVAILABLE = "passed", "failed", "not available"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of one case.

    Attributes:
        name: name of the case.
        group: its group.
        status: "passed", "failed" or "not available".
        differences: differences from the truth; each `where` begins with the check.
        reason: why it is not available.
        seconds: how long it took.
    """

    name: str
    group: str
    status: str
    differences: tuple[Difference, ...] = ()
    reason: str = ""
    seconds: float = 0.0


def run(groups: Mapping[str, Mapping[str, Case]], device: str = "cpu") -> Iterator[Outcome]:
    """Run cases one by one, on one thread; restores random states afterwards.

    Args:
        groups: group → name → case.
        device: name of the device in torch.

    Raises:
        ValueError: the device does not exist.

    Example:
        >>> from harness.selftest.cases import chosen
        >>> [outcome.status for outcome in run(chosen("shared relu"))]
        ['passed']
    """
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        raise ValueError(f"device: {str(error).splitlines()[0]}") from None
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for group, cases in groups.items():
            for name, case in cases.items():
                start = time.perf_counter()
                with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # torch's own warnings, which the user cannot act on
                    status, found, reason = outcome_of(case, device)
                yield Outcome(name, group, status, tuple(found), reason, time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)


def outcome_of(case: Case, device: str = "cpu") -> tuple[str, list[Difference], str]:
    """Status, differences and reason of one case."""
    absent = [name for name in case.needs if not _there(name)]
    if absent:
        return UNAVAILABLE, [], f"this torch has no {', '.join(absent)}"
    found: list[Difference] = []
    for check in checks_of(case):
        try:
            found += [
                Difference(f"{check}: {where}", expected, got)
                for where, expected, got in CHECKS[check](case, device)
            ]
        except NotImplementedError as error:  # raised by torch for operations that a device does not support
            return UNAVAILABLE, [], str(error).splitlines()[0]
        except Exception as error:
            found.append(Difference(check, "no exception", f"{type(error).__name__}: {error}"))
    return (FAILED if found else PASSED), found, ""


def _there(name: str) -> bool:
    place: object = torch
    for part in name.removeprefix("torch.").split("."):
        if not hasattr(place, part):
            return False
        place = getattr(place, part)
    return True
