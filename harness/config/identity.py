"""The identity of a run: a readable name and a hash of everything that affects its result."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from harness.config.errors import ConfigError
from harness.config.schema import CustomData, CustomModel, Data, Model, RunSpec
from harness.config.stored import flatten, to_mapping

FORMAT = 1  # increase it when the meaning of a configuration changes, so that old results are not reused

LONG = (list, dict)  # types of arguments that a name omits
LONGEST = 40  # largest number of characters of a label
UNSAFE = re.compile(r"[^\w.+-]")  # characters removed from folder names
#: Keys that do not affect a run's result: locations, display, and how often it is saved.
WITHOUT_EFFECT = (
    *("output", "force", "data.root", "data.path", "init.path"),
    *("record.evidence", "record.tensorboard", "train.checkpoint_seconds"),
)
WITHOUT_EFFECT_GROUPS = ("detect.",)
#: Keys added in later versions, with the value that keeps a run's old identity.
LATER = {
    "remedy.name": "none",
    "data.permute_inputs_every": 0,
    "data.scale": 1.0,
    "train.stop_when_dead": None,
    "train.test_every": 1,
    "record.census_share": None,
    "remedy.choose": "dormant",
}


def run_id(spec: RunSpec) -> str:
    """Return `<readable>-<hash8>`, which is equal for runs with equal results, whatever their folder.

    Raises:
        ConfigError: `data.path` or `init.path` is not a file (its content is part of the hash).

    Example:
        >>> from harness.config import compose
        >>> run_id(compose(["seed=1"])) == run_id(compose(["seed=1", "output=elsewhere"]))
        True
    """
    decisive = {
        key: value
        for key, value in flatten(to_mapping(spec)).items()
        if key not in WITHOUT_EFFECT and not key.startswith(WITHOUT_EFFECT_GROUPS)
    }
    for key, off in LATER.items():
        if decisive.get(key) == off:
            decisive.pop(key, None)
    for group, kind in (("data", ".npz file"), ("init", "file of weights")):
        path = getattr(getattr(spec, group), "path", None)
        if path is not None:
            decisive[f"{group}.content"] = _digest(f"{group}.path", kind, Path(path).expanduser())
    text = json.dumps({"format": FORMAT, **decisive}, sort_keys=True)
    return f"{readable(spec)}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def readable(spec: RunSpec) -> str:
    """Return the readable part of a run's name, from the keys that are swept most often."""
    parts = [label(spec.data), label(spec.model)]
    if spec.model.name != "custom" or spec.activation.name != "relu":
        parts.append(spec.activation.name)
    usual = "own" if spec.model.name == "custom" else "kaiming_normal"
    if (spec.init.name, spec.init.gain, spec.init.mean) != (usual, 1.0, 0.0):
        parts.append(spec.init.name)
    parts += [spec.optim.name, f"lr{spec.optim.lr:g}"]
    if spec.bias.offset:
        parts.append(f"bias{spec.bias.offset:g}")
    if spec.remedy.name != "none":
        parts.append(spec.remedy.name)
    return "-".join([*parts, f"s{spec.seed}"])


def label(part: Data | Model) -> str:
    """Return a short label of a data set or network: its name, or its function with plain arguments.

    Example:
        >>> from harness.config import compose
        >>> label(compose(["model=custom", "model.target=nets:Wide", "model.args.width=64"]).model)
        'Wide_width64'
    """
    if not isinstance(part, CustomData | CustomModel):
        return part.name
    values = [f"{key}{value}" for key, value in sorted(part.args.items()) if not isinstance(value, LONG)]
    words = "_".join([part.target.rpartition(":")[2].rpartition(".")[2], *values])
    return UNSAFE.sub("", words)[:LONGEST]


def run_folder(spec: RunSpec) -> Path:
    """Return the folder of the run."""
    return Path(spec.output).expanduser() / run_id(spec)


def _digest(key: str, kind: str, path: Path) -> str:
    if not path.is_file():
        raise ConfigError(key, expected=f"an existing {kind}", came=_what_is(path))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _what_is(path: Path) -> Any:
    return f"{path} ({'a folder' if path.is_dir() else 'no such file'})"
