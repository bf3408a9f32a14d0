"""Decide which runs of a sweep train together: runs of the same shape form cohorts, others train singly.

The decision uses the specifications, the limit on open files and whether there is a GPU, so that a continued
sweep has the same cohorts as before.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from math import prod

from harness.config import RunSpec, run_folder
from harness.config.schema import CustomModel, Device, Mlp
from harness.store.files import cores
from harness.store.reading import named_line
from harness.sweeps.descriptors import most_members
from harness.training.stacking import stacking_blocker, stacking_key

MOST = 32  # members per cohort on a CPU: more gain little, and leave other workers idle
FEW = 4  # members from which a stack of a network that is no MLP pays off on a core
HEAVY = 2**18  # multiplications per input above which the matrix products of one run keep a core busy
MOST_ON_GPU, GPU_BYTES = 1024, 2**33  # most members of a cohort on a GPU, and their memory there
#: Data set → shape of an input.
SHAPES = {"digits": (1, 8, 8)}
SHAPES |= dict.fromkeys(("mnist", "fashion_mnist", "kmnist"), (1, 28, 28))
SHAPES |= dict.fromkeys(("cifar10", "cifar100"), (3, 32, 32))
UNKNOWN = (1, 28, 28)  # assumed for the user's own arrays


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
        ('', '925,696 multiplications per input: its matrix products keep a core busy alone')
    """
    reason = stacking_blocker(spec)
    if reason or (on_gpu(spec) and isinstance(spec.model, Mlp)):
        return reason
    try:
        work = _multiplications(spec)
        if work > HEAVY and not on_gpu(spec):
            return f"{work:,} multiplications per input: its matrix products keep a core busy alone"
        if isinstance(spec.model, CustomModel):
            from harness.training.stacked.dry_step import dry_step

            dry_step(spec, _shape(spec))
    except Exception as error:
        return f"model={spec.model.name}: {named_line(error)}"
    return ""


def on_gpu(spec: RunSpec) -> bool:
    """Whether a run is probably trained on a GPU, judged without torch."""
    if spec.device is not Device.auto:
        return spec.device is Device.cuda
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1")
    return not hidden and shutil.which("nvidia-smi") is not None and "+cpu" not in version("torch")


def divide(specs: Sequence[RunSpec], *, stack: bool = True, most: int | None = None) -> list[Task]:
    """Divide a sweep: cohorts of at most `most` runs of one shape, the largest first, then single runs.

    By default, a cohort has as many members as pay off on its device. The limit on open files also bounds
    its size. An MLP whose shape no other run has is a cohort of its own: even a stack of one takes half the
    time of a run by itself. Other networks gain from a few members on, so few runs train faster singly.

    Example:
        >>> from harness.config import plan
        >>> specs = plan(["model.width=32", "optim.lr=0.1,1", "model.depth=1,2", "seed=1,2,3"], multirun=True)
        >>> [len(task.specs) for task in divide(specs, most=4)]
        [3, 3, 3, 3]
    """
    groups: dict[tuple[str, str], list[RunSpec]] = {}
    for spec in specs:
        groups.setdefault((stacking_blocker(spec), stacking_key(spec)), []).append(spec)
    cohorts: list[Task] = []
    single: list[Task] = []
    for members in groups.values():
        first = members[0]
        reason = why_not(first) if stack else "stacking is switched off"
        shared = not isinstance(first.model, Mlp) and not on_gpu(first)  # a stack occupies one core
        if not reason and shared and len(members) < FEW * cores():
            reason = (
                f"fewer than {FEW * cores()} runs of one shape: {cores()} core(s) train them faster singly"
            )
        if reason:
            single += [Task((spec,), reason) for spec in members]
            continue
        parts = -(-len(members) // min(most or _most(first), most_members()))
        parts = max(parts, cores()) if shared else parts
        size = -(-len(members) // parts)
        cohorts += [Task(tuple(members[k : k + size])) for k in range(0, len(members), size)]
    return sorted(cohorts, key=lambda task: -len(task.specs)) + single


def _most(spec: RunSpec) -> int:
    """Most members of a cohort."""
    if not on_gpu(spec):
        return MOST
    from harness.training.network_cost import network_cost

    try:
        needed = network_cost(spec, _shape(spec)).step_bytes
    except Exception:  # a network that cannot be made is reported before the sweep begins
        return MOST
    return max(1, min(MOST_ON_GPU, GPU_BYTES // needed))


def _multiplications(spec: RunSpec) -> int:
    """Multiplications of a run's network per input; torch is imported only if it is no MLP."""
    if isinstance(spec.model, Mlp):
        return prod(_shape(spec)) * spec.model.width + (spec.model.depth - 1) * spec.model.width**2
    from harness.training.network_cost import network_cost

    return network_cost(spec, _shape(spec)).multiplications


def _shape(spec: RunSpec) -> tuple[int, ...]:
    features = getattr(spec.data, "features", None)
    return SHAPES.get(spec.data.name, UNKNOWN) if features is None else (features,)
