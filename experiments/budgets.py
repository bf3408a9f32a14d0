"""Budgets: how many seeds, which data, how long; and the overrides that a claim's sweep comes to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from experiments.claim import DATA_SETS, Budget, Claim, Sweep
from harness.config import RunSpec, compose, plan

BUDGETS: tuple[str, ...] = get_args(Budget)
SEEDS = {"toy": 2, "small": 12, "standard": 16, "full": 32}
EPOCHS = {"toy": 1, "small": 10, "standard": 20, "full": 20}
DATA = "HARNESS_DATA"  # environment: folder of downloaded data sets
CIFAR_PART = "cifar10-part.npz"  # x_train, y_train, x_test, y_test; where the whole of CIFAR-10 is not there
#: Training images of a data set that has more than the digits. The small budget takes as many as the digits
#: have, so that epochs and updates are theirs and nothing but the data differs.
IMAGES = {"toy": 300, "small": 1_437, "standard": 10_000, "full": 0}

#: Of every run, unless a claim says otherwise: a 3 × 64 ReLU MLP, a constant learning rate, few censuses.
COMMON = (
    "model=mlp",
    "model.depth=3",
    "model.width=64",
    "schedule=constant",
    "record=light",
    "record.gradients=true",
    "data.probe_size=10000",  # n is a part of "dead"; smaller test sets are taken whole
    "record.tensorboard=false",
    "device=cpu",
)


def specs(claim: Claim, budget: str, output: Path, data: str = "digits") -> list[tuple[str, RunSpec]]:
    """Every run of a claim on a data set: the name of its sweep, and its specification.

    Raises:
        ConfigError: an override that makes no sense.
        ValueError: no such budget.
    """
    return [
        (sweep.name, spec)
        for sweep in claim.sweeps
        for spec in plan([*overrides(sweep, budget, data), f"output={output}"], multirun=True)
    ]


def overrides(sweep: Sweep, budget: str, data: str = "digits") -> list[str]:
    """The command line of a sweep; of a key that is given twice the later one holds.

    Raises:
        ValueError: no such budget or data set.

    Example:
        >>> found = overrides(Sweep(("optim.lr=0.1,1", "model.depth=1")), "toy")
        >>> [word for word in found if word.startswith(("optim", "model.depth", "seed", "train.max"))]
        ['model.depth=1', 'optim.lr=0.1,1', 'seed=range(2)', 'train.max_steps=3']
    """
    if budget not in BUDGETS:
        raise ValueError(f"budget: expected one of {', '.join(BUDGETS)}, but got {budget!r}")
    own = any(word.startswith("data=") for word in sweep.overrides)
    words = [
        *COMMON,
        *([] if own else data_words(data, budget)),
        f"train.epochs={EPOCHS[budget]}",
        f"seed=range({SEEDS[budget]})",
    ]
    words += [*sweep.overrides, *sweep.budgets.get(budget, ()), *sweep.on.get(data, ())]
    if budget == "toy":
        words += ["seed=range(2)", "train.max_steps=3"]
    last = {word.partition("=")[0]: word for word in words}
    # A model without a width or depth of its own takes none of the common ones.
    groups = [word for key, word in last.items() if "." not in key]
    values = [word for key, word in last.items() if "." in key and not _foreign(key, last, sweep)]
    return sorted([*groups, *values])


def one_run(words: Sequence[str], budget: str, data: str, seed: int) -> RunSpec:
    """The run of one seed, for claims that train by themselves.

    Raises:
        ConfigError: an override that makes no sense.
        ValueError: no such budget or data set.
    """
    found = overrides(Sweep(tuple(words)), budget, data)
    return compose([*(word for word in found if not word.startswith("seed=")), f"seed={seed}"])


def data_words(name: str, budget: str) -> list[str]:
    """The overrides that choose a data set: the digits need no network, the others a folder of data sets.

    Raises:
        ValueError: no such data set.
    """
    if name not in DATA_SETS:
        raise ValueError(f"data: expected some of {', '.join(DATA_SETS)}, but got {name!r}")
    if name == "digits":
        return ["data=digits"]
    # 10,000 held-out inputs at every early census and after every epoch would cost more than the training.
    seldom = "record.early=false", "train.test_every=1000"
    return [*source(name, data_folder()), f"data.subset={IMAGES[budget]}", *seldom]


def source(name: str, root: Path) -> list[str]:
    """The overrides that read a data set from a folder; of CIFAR-10 also the part that a file holds."""
    if name == "cifar10" and (root / CIFAR_PART).is_file() and not (root / "cifar-10-batches-py").is_dir():
        return ["data=arrays", f"data.path={root / CIFAR_PART}"]
    return [f"data={name}", f"data.root={root}"]


def data_folder() -> Path:
    """Folder of downloaded data sets: `HARNESS_DATA`, or the default `data.root`."""
    return Path(os.environ.get(DATA, "~/.cache/dying-relu-harness")).expanduser()


def _foreign(key: str, last: dict[str, str], sweep: Sweep) -> bool:
    """Whether a size of the common model is of another model than the sweep's."""
    own = any(word.startswith(f"{key}=") for word in sweep.overrides)
    return key in ("model.depth", "model.width") and last["model"] != "model=mlp" and not own
