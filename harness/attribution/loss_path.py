"""The loss's path: whether all of its gradient comes through the model's outputs, and how far off they are.

A penalty on activations or weights bypasses the outputs. Autograd's graph of the loss shows whether such a
path exists, and the gradients of the first step show its share; if there is one, so do those of the last of
the following steps. If the loss is a sum of squares, its value shows how far the outputs are from their
targets. During training, only the graph is walked, at steps 1, 2, 4, and so on, and at every 64th.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from harness.attribution.loss_graph import behind_loss, bypassed, hidden_of, is_rectified, outputs_of
from harness.attribution.model_inputs import Inputs, are_plain, copy_inputs
from harness.attribution.replay import Replay
from harness.attribution.snapshots import Snapshot, Values, copy_values
from harness.hooks.passes import GradientPasses, below
from harness.recording.listener import Guard

INPUTS = 512  # largest number of inputs kept of a batch
VALUES = 1 << 20  # largest number of values kept of a gradient, or of the parameters
OUTPUTS = 1 << 22  # largest number of values in the outputs of a step that is kept
WALKED = 64  # steps after which the loss's graph is walked again; a part of the loss may begin late
CLOSE = 0.03  # relative difference at which a replayed output is the same
UNTOLD = (float("nan"), float("nan"))
LIKE_SQUARES = 0.02  # tolerance for the factor of a squared loss


class KeptStep(NamedTuple):
    """A step that can be run again.

    Attributes:
        inputs: inputs of its only forward.
        outputs: its differentiable outputs that are not hidden layers.
        gradients: gradients of the loss with respect to them.
        parameters: name → gradient, as the optimizer receives it.
        values: name → parameter or buffer before it; empty for the first step.
    """

    inputs: Inputs
    outputs: list[Tensor]
    gradients: list[Tensor]
    parameters: dict[str, Tensor]
    values: Values


class LossPath:
    """Follows the loss of one model's training.

    Args:
        model: the root module.
        optimizers: the optimizers that step it.

    Attributes:
        penalty: whether a part of the loss bypasses the outputs; None if unknown.
        errors: rms of targets - outputs, and of the outputs, in the first step that shows them; NaN if the
            loss is not a sum of squares.
        rectified: whether the outputs are those of ReLUs; None if unknown.
    """

    def __init__(self, model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
        self._model, self._optimizers = model, optimizers
        self._guard = Guard("the loss's path")  # its errors disable only this
        self._handles: list[RemovableHandle] = []
        self._steps = 0
        self._passes = GradientPasses(model)
        self._outputs: list[Tensor] = []  # of the forwards of the running step
        self._gradients: dict[int, Tensor] = {}
        self._inputs: Inputs | None = None
        self._forwards = 0
        self._parameters: dict[str, Tensor] = {}
        self._values: Values = {}
        self._first: KeptStep | None = None
        self._late: KeptStep | None = None
        self.penalty: bool | None = None
        self.errors: tuple[float, float] = UNTOLD
        self.rectified: bool | None = None

    def attach(self) -> None:
        """Register the hooks."""
        add, guard = self._handles.append, self._guard
        add(self._model.register_forward_pre_hook(guard.hook(self._before), with_kwargs=True))
        add(self._model.register_forward_hook(guard.hook(self.read_output)))
        for optimizer in self._optimizers:
            add(optimizer.register_step_pre_hook(guard.hook(self._stepping)))

    def detach(self) -> None:
        """Remove every hook."""
        while self._handles:
            self._handles.pop().remove()
        self._clear()

    def step(self, loss: Any) -> None:
        """Complete a step."""
        self._guard.run(self._read, loss)
        self._steps += 1
        self._clear()

    def read_output(self, module: nn.Module, args: Any, output: Any) -> None:
        """Handle the end of a forward, of the model or of a submodule called on its own."""
        if not self._is_due or not torch.is_grad_enabled():
            return
        self._forwards += 1
        for out in outputs_of(output):
            self._outputs.append(out)
            out.register_hook(partial(self._guard.run, self._keep, id(out), below(out)))

    def facts(self, replay: Replay, start: Values, biases: Collection[str] = ()) -> dict[str, Any]:
        """The known facts; unknown ones are left out.

        Args:
            replay: replay of the model.
            start: its parameters and buffers before the first step.
            biases: names of further parameters that are biases, whatever they are called.

        Returns:
            penalty, rectified: as the attributes; penalty_share: its share of the first gradient's power;
            penalty_down: the share of its pull on the biases that lowers them; late_penalty_share,
            late_penalty_down: the same for a late step; target_error, output_rms: `errors`.
        """
        share, down = self._penalty(self._first, replay, start, biases)
        late, late_down = self._penalty(self._late, replay, {}, biases)
        error, size = self.errors
        found = {"penalty": self.penalty, "penalty_share": share, "penalty_down": down}
        found |= {"late_penalty_share": late, "late_penalty_down": late_down}
        found |= {"target_error": error, "output_rms": size}
        found["rectified"] = self.rectified
        return {name: value for name, value in found.items() if value is not None and value == value}

    def state_dict(self) -> dict[str, Any]:
        """State that consists of tensors and plain values."""
        plain = [k if k is not None and are_plain(k.inputs) else None for k in (self._first, self._late)]
        first, late = (None if kept is None else tuple(kept) for kept in plain)
        facts = {"penalty": self.penalty, "errors": self.errors, "rectified": self.rectified}
        return {"steps": self._steps, "first": first, "late": late, **facts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        self._steps, self.penalty = int(state["steps"]), state["penalty"]
        self.errors = state["errors"][0], state["errors"][1]
        self.rectified = state.get("rectified")
        first, late = state["first"], state.get("late")
        self._first = None if first is None else KeptStep(*[*first, {}][:5])
        self._late = None if late is None else KeptStep(*late)

    # --- inside -------------------------------------------------------------------------------------

    def _read(self, loss: Any) -> None:
        """Evaluate the loss of a step."""
        if self._is_due and isinstance(loss, Tensor) and self._outputs:
            hidden = hidden_of(self._outputs)
            outputs = [out for out in self._outputs if id(out) not in hidden]
            if outputs and self.rectified is None:
                self.rectified = all(map(is_rectified, outputs))
            given = [self._gradients[id(out)] for out in outputs if id(out) in self._gradients]
            reached = [out for out in outputs if id(out) in self._gradients]
            if (
                loss.grad_fn is not None and len(reached) > 1
            ):  # if a step has several backward passes, those of this loss
                behind = behind_loss(loss.grad_fn, reached)
                reached, given = behind, [self._gradients[id(out)] for out in behind]
            if loss.grad_fn is not None and reached:
                self.penalty = bool(self.penalty) or bypassed(loss.grad_fn, outputs, self._model)
            if self.errors[0] != self.errors[0]:
                forwards = self._forwards if len(reached) == 1 else 1  # else the loss is their sum
                self.errors = _errors(loss, reached, given, forwards)
            small = sum(out.numel() for out in reached) <= OUTPUTS
            if self._forwards == 1 and self._inputs is not None and reached and small:
                outs = [out.detach().clone() for out in reached]
                kept = KeptStep(self._inputs, outs, given, self._parameters, self._values)
                self._first, self._late = (self._first, kept) if self._steps else (kept, None)

    @property
    def _is_due(self) -> bool:
        step = self._steps + 1
        return step & (step - 1) == 0 or step % WALKED == 0

    def _clear(self) -> None:
        self._outputs, self._gradients, self._parameters, self._values = [], {}, {}, {}
        self._inputs, self._forwards = None, 0

    def _before(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        due = self._steps == 0 or (self._is_due and self.penalty)
        if not due or not module.training or not torch.is_grad_enabled() or self._forwards:
            return
        if self._steps == 0:
            self._inputs = copy_inputs(args, kwargs, INPUTS)
        elif sum(p.numel() for p in self._model.parameters()) <= VALUES:
            self._inputs, self._values = copy_inputs(args, kwargs, INPUTS), copy_values(self._model)

    def _keep(self, key: int, behind: Any, gradient: Tensor | None) -> None:
        """Keep ∂L/∂output; custom backwards may give None, and passes inside the loss are ignored."""
        if gradient is not None and self._passes.train(behind):
            self._gradients[key] = gradient.detach().clone()

    def _stepping(self, *_: Any) -> None:
        if self._inputs is None or self._parameters:
            return
        left = VALUES
        named = sorted(self._model.named_parameters(), key=lambda pair: pair[1].numel())
        for name, parameter in named:
            gradient = parameter.grad
            if gradient is not None and gradient.layout is torch.strided and gradient.numel() <= left:
                self._parameters[name] = gradient.detach().clone()
                left -= gradient.numel()

    def _penalty(
        self, first: KeptStep | None, replay: Replay, start: Values, biases: Collection[str]
    ) -> tuple[float, float]:
        """Share of a step's gradient's power that bypassed the outputs, and its downward pull on biases."""
        if first is None or not first.parameters or not self.penalty:
            return UNTOLD
        snapshot = Snapshot(first.values or start, [first.inputs])
        with replay.observing(), torch.enable_grad():
            leaves: Values = {}
            through: list[Tensor | None] = []

            def back(output: Any) -> None:
                outputs = outputs_of(output)
                hidden = hidden_of(outputs)
                outputs = [out for out in outputs if id(out) not in hidden]
                if len(outputs) == len(first.outputs) and all(map(_is_close, outputs, first.outputs)):
                    there = [leaves[name] for name in first.parameters]
                    through.extend(torch.autograd.grad(outputs, there, first.gradients, allow_unused=True))

            next(replay.outputs(snapshot, first.parameters, leaves, back))
            if not through:
                return UNTOLD  # not the same pass, for example with dropout
        # a parameter that the outputs do not need is the loss's own: a learned weight of its terms, say
        own = {name: g for name, g in zip(first.parameters, through, strict=True) if g is not None}
        if not own:
            return UNTOLD
        whole = torch.cat([first.parameters[name].flatten() for name in own]).double()
        expected = torch.cat([g.flatten() for g in own.values()]).double()
        if not float(whole.norm()) > 0 or not bool(whole.isfinite().all()):
            return UNTOLD
        both = float(whole.norm() * expected.norm())
        cosine = float(whole @ expected) / both if both else 0.0  # clipping only shortens a gradient
        share = min(1.0, max(0.0, 1 - cosine * abs(cosine)))
        parts = [
            (first.parameters[name] - part).flatten()
            for name, part in own.items()
            if name.endswith("bias") or name in biases
        ]
        pull = torch.cat(parts) if parts else whole[:0]
        size = float(pull.abs().sum())
        return share, float(pull.clamp(min=0).sum()) / size if size else float("nan")


def _errors(
    loss: Tensor, outputs: Sequence[Tensor], gradients: Sequence[Tensor], forwards: int
) -> tuple[float, float]:
    """Rms of outputs - targets, and of the outputs, if the loss is a Σ (output - target)²; else NaN.

    Then ‖∂L/∂output‖² = 4 a L, which gives a. Only its usual values are accepted, also divided by the number
    of forwards in the step, whose gradients are accumulated. Of several outputs, the sum of squares of one
    may be nearly the whole loss.
    """
    if loss.numel() != 1:
        return UNTOLD
    found = [_error(loss, out, own, forwards) for out, own in zip(outputs, gradients, strict=True)]
    return next((one for one in found if one != UNTOLD), UNTOLD)


def _error(loss: Tensor, output: Tensor, gradient: Tensor, forwards: int) -> tuple[float, float]:
    """The same for one output, whose sum of squares has to be nearly the whole loss."""
    out, value = output.detach().double(), float(loss.detach())
    power, count = float(gradient.double().square().sum()), out.numel()
    if not 0 < value < float("inf") or not 0 < power < float("inf"):
        return UNTOLD
    rows = len(out) if out.ndim else 1
    factor = power / (4 * value)
    used = max(1, int((gradient != 0).sum()))  # for a reward model, the outputs that were chosen
    usual = [share / whole for whole in (1, count, rows, used) for share in (1.0, 0.5)]
    usual += [one / forwards for one in usual]
    if not any(abs(factor / one - 1) < LIKE_SQUARES for one in usual):
        return UNTOLD
    return (value / factor / used) ** 0.5, float(out.square().mean().sqrt())


def _is_close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool((a.detach() - b).norm() <= CLOSE * b.norm().clamp_min(1e-12))
