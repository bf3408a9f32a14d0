"""Decide which runs of a sweep train together: runs of the same shape form cohorts, others train singly.

The decision uses the specifications and the limit on open files, without torch, so that a continued sweep
has the same cohorts as before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from harness.config import RunSpec, run_folder
from harness.config.schema import Mlp
from harness.sweeps.descriptors import most_members
from harness.training.stacking import stacking_blocker, stacking_key

MOST = 32  # members per cohort: more gain little, and leave other workers idle
HEAVY = 2**18  # number of weights above which the matrix products of one run keep a core busy
INPUTS = {"digits": 64, "mnist": 784, "fashion_mnist": 784, "kmnist": 784, "cifar10": 3072, "cifar100": 3072}
UNKNOWN_INPUTS = 784  # assumed for the user's own arrays


@dataclass(frozen=True)
class Task:
    """Unit of work of one worker: a single run, or a cohort of runs trained as one stack.

    Attributes:
        specs: the runs.
        why_single: why the run is not stacked; "" for a cohort.
    """

    specs: tuple[RunSpec, ...]
    why_single: str = ""

    @property
    def stacked(self) -> bool:
        return not self.why_single

    @property
    def name(self) -> str:
        """Name of the cohort: a hash of its members, in order."""
        names = "\n".join(run_folder(spec).name for spec in self.specs)
        return hashlib.sha256(names.encode()).hexdigest()[:12]


def why_not(spec: RunSpec) -> str:
    """Return why a run is not stacked with others (impossible or useless), or "" if it is.

    Example:
        >>> from harness.config import compose
        >>> why_not(compose(["model.width=32"])), why_not(compose(["data=mnist", "model.width=512"]))
        ('', '925,696 weights: its matrix products keep a core busy alone')
    """
    weights = _weights(spec)
    if not stacking_blocker(spec) and weights > HEAVY:
        return f"{weights:,} weights: its matrix products keep a core busy alone"
    return stacking_blocker(spec)


def divide(specs: Sequence[RunSpec], *, stack: bool = True, most: int = MOST) -> list[Task]:
    """Divide a sweep: cohorts of at most `most` runs of one shape, the largest first, then single runs.

    The limit on open files also bounds the size of a cohort. A run whose shape no other run has is a cohort
    of its own: even a stack of one takes half the time of a run by itself.

    Example:
        >>> from harness.config import plan
        >>> specs = plan(["model.width=32", "optim.lr=0.1,1", "model.depth=1,2", "seed=1,2,3"], multirun=True)
        >>> [len(task.specs) for task in divide(specs, most=4)]
        [3, 3, 3, 3]
    """
    most = min(most, most_members())
    groups: dict[str, list[RunSpec]] = {}
    single: list[Task] = []
    for spec in specs:
        reason = why_not(spec) if stack else "stacking is switched off"
        if reason:
            single.append(Task((spec,), reason))
        else:
            groups.setdefault(stacking_key(spec), []).append(spec)
    cohorts = []
    for members in groups.values():
        parts = -(-len(members) // most)
        size = -(-len(members) // parts)
        cohorts += [Task(tuple(members[k : k + size])) for k in range(0, len(members), size)]
    return sorted(cohorts, key=lambda task: -len(task.specs)) + single


def _weights(spec: RunSpec) -> int:
    if not isinstance(spec.model, Mlp):
        return 0
    inputs = INPUTS.get(spec.data.name, getattr(spec.data, "features", UNKNOWN_INPUTS))
    return inputs * spec.model.width + (spec.model.depth - 1) * spec.model.width**2
