"""Step metrics: fourteen scalars per training step, from which events can be dated.

Within a step, inputs come first, then the loss, the gradient and the update: the first to leave its baseline
names the event. All values stay on their device until the table is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from harness.attribution.distances import ReferenceCopy, norm
from harness.attribution.input_moments import InputMoments, moving_input, observed
from harness.attribution.output_norms import OutputNorms
from harness.hooks._torch import outside_transforms, without_transforms
from harness.kernels.countable import has_values
from harness.recording.batches import tensors_in
from harness.recording.listener import Guard

#: input_mean, input_rms: of one of the model's tensor inputs (see `moving_input`); written_norm: norm of
#: parameter changes since the optimizer's last step that it did not make; the learning rates are the largest
#: among groups with matrices (lr) and vectors (lr_bias); output_rms, output_grad_norm: see `OutputNorms`;
#: momentum: that of SGD and the like, which multiplies how far a gradient takes the parameters; layer_move:
#: the largest share of its own norm by which the optimizer moved a matrix.
COLUMNS = (
    *("input_mean", "input_rms", "written_norm", "loss", "grad_norm", "update_norm", "weight_norm"),
    *("lr", "lr_bias", "weight_decay", "output_rms", "output_grad_norm", "momentum"),
    "layer_move",
)
PLACES = ("", "1", "2", "3")  # of the tensor inputs that are watched
OTHERS = tuple(f"{name}{place}" for place in PLACES[1:] for name in ("input_mean", "input_rms"))
STORED = (*COLUMNS[:-2], *OTHERS, *COLUMNS[-2:])  # in the order in which they came to be
BUFFERED = 256  # steps whose scalars stay on the device


class StepMetrics:
    """Reads the scalars of every training step.

    Args:
        model: the model; inputs are those of its training forwards.
        optimizers: the optimizers whose parameters, gradients and updates are measured.
    """

    def __init__(self, model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
        self._model, self._optimizers = model, optimizers
        self._handles: list[RemovableHandle] = []
        self._references: list[ReferenceCopy] = []  # one per optimizer: its parameters after its last step
        self._row: dict[str, Any] = {}  # row of the running step
        self._inputs = [InputMoments()]  # of the first tensor input, and of others that have come
        self._outputs = OutputNorms()
        self._buffered: list[dict[str, Any]] = []
        self._rows: list[np.ndarray] = []
        self._stepping = False  # whether an optimizer makes a step now
        self.given = False  # whether a loss was handed over, be it finite or not
        self.decayed: dict[int, Tensor] = {}  # parameter id → Σ of movements due to weight decay

    def attach(self, guard: Guard) -> None:
        """Start; later writes into the parameters are detected."""
        add = self._handles.append
        add(self._model.register_forward_pre_hook(guard.hook(self.read_inputs), with_kwargs=True))
        add(self._model.register_forward_hook(guard.hook(self.read_output)))
        self._references = [ReferenceCopy(parameters(optimizer)) for optimizer in self._optimizers]
        for place, optimizer in enumerate(self._optimizers):
            add(optimizer.register_step_pre_hook(guard.hook(lambda *_, at=place: self._before_step(at))))
            add(optimizer.register_step_post_hook(guard.hook(lambda *_, at=place: self._after_step(at))))

    def detach(self) -> None:
        """Remove every hook and the copy of the parameters."""
        while self._handles:
            self._handles.pop().remove()
        self._references.clear()

    def step(self, loss: Tensor | float | None) -> None:
        """Complete a step."""
        for at, moments in zip(PLACES, self._inputs, strict=False):
            self._row[f"input_mean{at}"], self._row[f"input_rms{at}"] = moments.take()
        self._take_outputs()
        self.given |= loss is not None
        self._row["loss"] = loss.detach() if isinstance(loss, Tensor) else np.nan if loss is None else loss
        self._buffered.append(self._row)
        self._row = {}
        if len(self._buffered) >= BUFFERED:
            self._fetch()

    def read_inputs(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        """Read the inputs when a forward begins, of the model or of a submodule called on its own."""
        if not module.training:
            return
        found = [x for x in tensors_in((args, dict(kwargs))) if x.is_floating_point()]
        for place, x in enumerate(found[: len(PLACES)]):
            if place == len(self._inputs):
                self._inputs.append(InputMoments())
            plain = without_transforms(x)
            if plain is not None and plain.numel() and plain.layout is torch.strided and has_values(plain):
                with outside_transforms(x, plain):
                    self._inputs[place].add(plain.detach())

    def read_output(self, module: nn.Module, args: Any, output: Any) -> None:
        """Read the output when a forward of the model ends; those of its submodules may be hidden layers."""
        again = self._stepping and bool(self._outputs)  # a closure is evaluated again, with other parameters
        if module.training and torch.is_grad_enabled() and not again:
            self._outputs.add(output)

    def forget_inputs(self) -> None:
        """Discard the inputs of the running step."""
        for moments in self._inputs:
            moments.forget()

    def frame(self) -> pd.DataFrame:
        """One row per completed step, from step 1 on: `step` and `COLUMNS`; NaN if nothing was read."""
        table = self._all()
        pairs = [table[[f"input_mean{at}", f"input_rms{at}"]].to_numpy() for at in PLACES]
        table[["input_mean", "input_rms"]] = pairs[moving_input(pairs)]
        table = table[list(COLUMNS)]
        table.insert(0, "step", np.arange(1, len(table) + 1))
        return table

    def state_dict(self) -> dict[str, Any]:
        """The rows so far as one tensor, and movements due to decay, in the order of the parameters."""
        rows = self._all().to_numpy(float)
        decayed = [self.decayed.get(id(p)) for o in self._optimizers for p in parameters(o)]
        return {"rows": torch.from_numpy(rows.copy()), "decayed": decayed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue after the rows of `state_dict`; those of earlier versions have fewer columns."""
        rows = state["rows"].numpy()
        more = np.full((len(rows), len(STORED) - rows.shape[1]), np.nan)
        self._rows, self._buffered = [np.concatenate([rows, more], axis=1)], []
        owners = [p for o in self._optimizers for p in parameters(o)]
        pairs = zip(owners, state["decayed"], strict=True)
        self.decayed = {id(p): moved.to(p.device) for p, moved in pairs if moved is not None}

    # --- inside -------------------------------------------------------------------------------------

    @torch.no_grad()
    def _before_step(self, place: int) -> None:
        self._stepping = True
        if self._outputs:  # those before the first update; later ones in the step come from other parameters
            self._take_outputs()
        now = parameters(self._optimizers[place])
        if not self._references[place].fits(now):  # parameters were added, or moved to another device
            self._references[place] = ReferenceCopy(now)
        reference = self._references[place]
        self._add("written_norm", 0.0 if reference.is_unchanged(now) else observed(reference.update(now)[0]))
        gradients = [p.grad for p in now if p.grad is not None and p.grad.layout is torch.strided]
        scale = getattr(self._optimizers[place], "grad_scale", None)  # fused optimizers unscale them
        self._add("grad_norm", norm(gradients) / (1.0 if scale is None else scale))
        for group in self._optimizers[place].param_groups:
            lr, decay = group.get("lr", np.nan), group.get("weight_decay", 0.0)
            for matrices in {p.ndim > 1 for p in group["params"]}:
                self._take_largest("lr" if matrices else "lr_bias", lr)
            self._take_largest("weight_decay", decay)
            if not group.get("dampening"):
                self._take_largest("momentum", group.get("momentum", 0.0))
            if isinstance(decay, int | float) and decay:
                self._decay(group["params"], lr, decay, group)

    @torch.no_grad()
    def _after_step(self, place: int) -> None:
        self._stepping = False
        distance, size, largest = self._references[place].update(parameters(self._optimizers[place]))
        self._add("update_norm", distance)
        self._add("weight_norm", size)
        self._take_largest("layer_move", largest)

    def _decay(self, group: Sequence[Tensor], lr: Any, decay: float, options: Mapping[str, Any]) -> None:
        """Add the update due to weight decay: lr λ θ, which a momentum μ multiplies by 1 / (1 - μ)."""
        factor = -lr * decay / (1 - options.get("momentum", 0.0))
        for p in group:
            if p.requires_grad:
                if id(p) not in self.decayed:
                    self.decayed[id(p)] = torch.zeros_like(p, requires_grad=False)
                self.decayed[id(p)].add_(p.detach(), alpha=float(factor))

    def _add(self, name: str, value: Any) -> None:
        """Combine norms of several optimizers: their squares add up."""
        before = self._row.get(name)
        self._row[name] = value if before is None else (before**2 + value**2) ** 0.5

    def _take_largest(self, name: str, value: Any) -> None:
        """Keep the largest value of several groups or optimizers, on its device."""
        before = self._row.get(name, value)
        both = isinstance(before, Tensor) and isinstance(value, Tensor)
        self._row[name] = torch.maximum(before, value.to(before.device)) if both else max(before, value)

    def _take_outputs(self) -> None:
        rms, gradient = self._outputs.take()
        self._row.setdefault("output_rms", rms)
        self._row.setdefault("output_grad_norm", gradient)

    def _fetch(self) -> None:
        rows, self._buffered = self._buffered, []
        if not rows:
            return
        flat = [row.get(name, np.nan) for row in rows for name in STORED]
        by_device: dict[torch.device, list[Tensor]] = {}
        for value in flat:
            if isinstance(value, Tensor):
                by_device.setdefault(value.device, []).append(value.double().reshape(()))
        fetched = {device: iter(torch.stack(group).tolist()) for device, group in by_device.items()}
        plain = [next(fetched[v.device]) if isinstance(v, Tensor) else float(v) for v in flat]
        self._rows.append(np.array(plain).reshape(-1, len(STORED)))

    def _all(self) -> pd.DataFrame:
        """One row per completed step, with the inputs at all places."""
        self._fetch()
        self._rows = [np.concatenate(self._rows) if self._rows else np.empty((0, len(STORED)))]
        return pd.DataFrame(self._rows[0], columns=pd.Index(STORED))


def parameters(optimizer: Optimizer) -> list[Tensor]:
    """Parameters of an optimizer that require gradients, in its order, without lazy ones."""
    own = [p for group in optimizer.param_groups for p in group["params"]]
    return [p for p in own if p.requires_grad and not is_lazy(p)]
