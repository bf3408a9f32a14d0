"""Vitals: a dozen scalars per step of a training, from which events can be dated.

Inputs come first in a step, then the loss, then the gradient, then the update: what leaves its own past
first names the event. Everything stays on its device until somebody looks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from harness.attribution.distances import Places, norm
from harness.hooks.hook import Call

#: input_mean, input_rms: of the model's first tensor input; written_norm: of what others than the optimizer
#: wrote into the parameters since its last step; the learning rates are the largest of the groups that hold
#: matrices (lr) and vectors (lr_bias).
COLUMNS = (
    "input_mean",
    "input_rms",
    "written_norm",
    "loss",
    "grad_norm",
    "update_norm",
    "weight_norm",
    "lr",
    "lr_bias",
    "weight_decay",
)
KEPT = 256  # steps whose scalars wait on the device


class Vitals:
    """Reads the scalars of every step of a loop.

    Args:
        model: its training forwards tell the inputs.
        optimizers: their steps tell gradients and updates; all parameters are theirs.
    """

    def __init__(self, model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
        self._model, self._optimizers = model, optimizers
        self._handles: list[RemovableHandle] = []
        self._places: dict[int, Places] = {}  # optimizer → where its parameters were last seen
        self._now: dict[str, Any] = {}
        self._seen: dict[str, list[Tensor]] = {"input_mean": [], "input_rms": []}
        self._waiting: list[dict[str, Any]] = []
        self._rows: list[np.ndarray] = []
        self.decayed: dict[int, Tensor] = {}  # parameter id → Σ of what weight decay has moved

    def attach(self) -> None:
        """Begin; what is written into the parameters from now on is noticed."""
        keep = self._handles.append
        keep(self._model.register_forward_pre_hook(Call(self._forward), with_kwargs=True))
        for place, optimizer in enumerate(self._optimizers):
            self._places[place] = Places(parameters(optimizer))
            keep(optimizer.register_step_pre_hook(Call(lambda *_, at=place: self._pre(at))))
            keep(optimizer.register_step_post_hook(Call(lambda *_, at=place: self._post(at))))

    def detach(self) -> None:
        """Remove every hook; the copy of the parameters goes too."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._places.clear()

    def step(self, loss: Tensor | float | None) -> None:
        """A step is over."""
        for name, values in self._seen.items():
            self._now[name] = torch.stack(values).mean() if values else np.nan
            values.clear()
        self._now["loss"] = loss.detach() if isinstance(loss, Tensor) else np.nan if loss is None else loss
        self._waiting.append(self._now)
        self._now = {}
        if len(self._waiting) >= KEPT:
            self._fetch()

    def frame(self) -> pd.DataFrame:
        """One row per completed step, from step 1 on: `step` and `COLUMNS`; NaN where nothing was read."""
        self._fetch()
        values = np.concatenate(self._rows) if self._rows else np.empty((0, len(COLUMNS)))
        self._rows = [values]
        table = pd.DataFrame(values, columns=pd.Index(COLUMNS))
        table.insert(0, "step", np.arange(1, len(table) + 1))
        return table

    def state_dict(self) -> dict[str, Any]:
        """The rows so far, as one tensor, and what decay has moved, in the order of the parameters."""
        rows = self.frame()[list(COLUMNS)].to_numpy(float)
        decayed = [self.decayed.get(id(p)) for o in self._optimizers for p in parameters(o)]
        return {"rows": torch.from_numpy(rows.copy()), "decayed": decayed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue after the rows of `state_dict`."""
        self._rows, self._waiting = [state["rows"].numpy()], []
        owners = [p for o in self._optimizers for p in parameters(o)]
        kept = zip(owners, state["decayed"], strict=True)
        self.decayed = {id(p): moved.to(p.device) for p, moved in kept if moved is not None}

    # --- inside -------------------------------------------------------------------------------------

    def _forward(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        if not module.training:
            return
        x = first_tensor(args, kwargs)
        if x is None or not x.is_floating_point() or not x.numel():
            return
        x = x.detach().float()
        self._seen["input_mean"].append(x.mean())
        rms = torch.linalg.vector_norm(x) / x.numel() ** 0.5
        self._seen["input_rms"].append(rms.nan_to_num(torch.inf, torch.inf))  # NaN means: not observed

    @torch.no_grad()
    def _pre(self, place: int) -> None:
        now = parameters(self._optimizers[place])
        if len(self._places[place]) != len(now):  # parameters were added to the optimizer
            self._places[place] = Places(now)
        places = self._places[place]
        self._add("written_norm", 0.0 if places.untouched(now) else _told(places.moved(now)[0]))
        gradients = [p.grad for p in now if p.grad is not None and p.grad.layout is torch.strided]
        self._add("grad_norm", norm(gradients))
        rates: dict[str, list[Any]] = {"lr": [], "lr_bias": [], "weight_decay": []}
        for group in self._optimizers[place].param_groups:
            lr, decay = group.get("lr", np.nan), group.get("weight_decay", 0.0)
            shapes = {p.ndim > 1 for p in group["params"]}
            rates["lr"] += [lr] if True in shapes else []
            rates["lr_bias"] += [lr] if False in shapes else []
            rates["weight_decay"].append(decay)
            if isinstance(decay, int | float) and decay:
                self._decay(group["params"], lr, decay, group)
        for name, values in rates.items():
            known = [*values, *([self._now[name]] if name in self._now else [])]
            self._now[name] = max(known) if known else np.nan

    @torch.no_grad()
    def _post(self, place: int) -> None:
        now = parameters(self._optimizers[place])
        distance, size = self._places[place].moved(now)
        self._add("update_norm", distance)
        self._add("weight_norm", size)

    def _decay(self, group: Sequence[Tensor], lr: Any, decay: float, options: Mapping[str, Any]) -> None:
        """Weight decay's own part of the update: lr λ θ, which a momentum μ multiplies by 1 / (1 - μ)."""
        factor = -lr * decay / (1 - options.get("momentum", 0.0))
        for p in group:
            if p.requires_grad:
                moved = self.decayed.get(id(p))
                if moved is None:
                    moved = self.decayed[id(p)] = torch.zeros_like(p, requires_grad=False)
                moved.add_(p.detach(), alpha=float(factor))

    def _add(self, name: str, value: Any) -> None:
        """Norms of several optimizers add up in squares."""
        before = self._now.get(name)
        self._now[name] = value if before is None else (before**2 + value**2) ** 0.5

    def _fetch(self) -> None:
        if not self._waiting:
            return
        values = [[row.get(name, np.nan) for name in COLUMNS] for row in self._waiting]
        flat = [v for row in values for v in row]
        tensors = [v.double().reshape(()) for v in flat if isinstance(v, Tensor)]
        by_device: dict[torch.device, list[Tensor]] = {}
        for tensor in tensors:
            by_device.setdefault(tensor.device, []).append(tensor)
        fetched = {device: iter(torch.stack(group).tolist()) for device, group in by_device.items()}
        plain = [next(fetched[v.device]) if isinstance(v, Tensor) else float(v) for v in flat]
        self._rows.append(np.array(plain).reshape(-1, len(COLUMNS)))
        self._waiting = []


def _told(norm: Any) -> Any:
    """A norm that was observed: infinite where it is not finite, since NaN means that it was not."""
    if isinstance(norm, Tensor):
        return norm.nan_to_num(torch.inf, torch.inf)
    return norm if norm == norm else np.inf


def parameters(optimizer: Optimizer) -> list[Tensor]:
    """What an optimizer steps, in its order; without what autograd never fills."""
    return [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]


def first_tensor(args: Any, kwargs: Mapping[str, Any]) -> Tensor | None:
    """The model's input: the first tensor among its arguments."""
    return next(tensors_in((args, dict(kwargs))), None)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested tuples, lists and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from tensors_in(inner)
    elif isinstance(value, tuple | list):
        for inner in value:
            yield from tensors_in(inner)
