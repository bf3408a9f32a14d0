"""Decide from the specifications, without torch, which runs can be trained as one stack."""

from __future__ import annotations

from harness.activations.registry import RECORDS
from harness.config import RunSpec, to_mapping
from harness.config import schema as s

#: Keys in which the members of a stack may differ (or that have no effect in it).
FREE = {
    *("seed", "output", "force", "schedule", "remedy", "init", "bias", "detect"),
    *("record.gate_eps", "record.evidence", "record.tensorboard"),
    *("data.standardise", "data.negate", "data.scale", "data.shift", "data.label_noise"),
    *("optim.lr", "optim.weight_decay", "optim.momentum", "optim.nesterov", "optim.betas"),
    *("train.clip_grad", "train.stop_when_dead", "train.checkpoint_seconds"),
}

LEARNED = ("prelu",)  # activations whose parameters a stack can train


def stacking_blocker(spec: RunSpec) -> str:
    """Why a run cannot be part of a stack; "" if it can.

    Example:
        >>> from harness.config import compose
        >>> stacking_blocker(compose(["model=cnn"])), stacking_blocker(compose(["model=cnn", "remedy=redo"]))
        ('', 'remedy=redo: only MLPs are stacked with a remedy')
    """
    if isinstance(spec.remedy, s.Auto):
        return "remedy=auto: its diagnosis needs evidence of one run alone, which is not stacked"
    if not isinstance(spec.model, s.Mlp) and spec.remedy.name != "none":
        return f"remedy={spec.remedy.name}: only MLPs are stacked with a remedy"
    if spec.dtype is s.Dtype.bfloat16:
        return "dtype=bfloat16: autocast is not stacked"
    if RECORDS[spec.activation.name].units and spec.activation.name not in LEARNED:
        return f"activation={spec.activation.name}: its learned parameters are not stacked"
    return ""


def stacking_key(spec: RunSpec) -> str:
    """Return a text that describes what runs of a stack must share: runs with equal texts can be stacked.

    Example:
        >>> from harness.config import compose
        >>> a, b, c = (compose([o]) for o in ("optim.lr=0.1", "activation=elu", "model.width=8"))
        >>> stacking_key(a) == stacking_key(b), stacking_key(a) == stacking_key(c)
        (True, False)
    """
    shared = {
        group: {k: v for k, v in value.items() if f"{group}.{k}" not in FREE}
        if isinstance(value, dict)
        else value
        for group, value in to_mapping(spec).items()
        if group not in FREE
    }
    if isinstance(spec.model, s.Mlp):  # members can have activations of their own
        shared["activation"] = {"outputs": RECORDS[spec.activation.name].outputs}
    return repr(shared)
