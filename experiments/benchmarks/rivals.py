"""Ways to watch the units of a network as people write them, and the Recorder beside them.

Each is a context manager of a model and its optimizer, and yields what comes after every step.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn

from harness import Recorder


@contextmanager
def forward_hooks(model: nn.Module, hook: Callable[[str], Callable[..., None]]):
    """`hook(name)` on every ReLU module, for the block."""
    relus = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.ReLU)]
    handles = [module.register_forward_hook(hook(name)) for name, module in relus]
    yield
    for handle in handles:
        handle.remove()


@contextmanager
def zero_share(model: nn.Module, optimizer: Any):
    """`(x == 0).float().mean().item()` per layer."""
    seen: dict[str, float] = {}

    def hook(name: str) -> Callable[..., None]:
        def record(module: nn.Module, args: Any, out: Tensor) -> None:
            seen[name] = (out == 0).float().mean().item()

        return record

    with forward_hooks(model, hook):
        yield lambda: None


@contextmanager
def per_unit_sums(model: nn.Module, optimizer: Any):
    """`(x > 0).sum` per unit, with a full backward hook."""
    active: dict[str, Tensor] = {}
    gradients: dict[str, Tensor] = {}

    def forward(name: str) -> Callable[..., None]:
        def record(module: nn.Module, args: Any, out: Tensor) -> None:
            dims = [d for d in range(out.ndim) if d != 1]
            active[name] = active.get(name, 0) + (out > 0).sum(dims)

        return record

    def backward(name: str) -> Callable[..., None]:
        def record(module: nn.Module, grad_in: Any, grad_out: Any) -> None:
            dims = [d for d in range(grad_in[0].ndim) if d != 1]
            gradients[name] = gradients.get(name, 0) + grad_in[0].pow(2).sum(dims)

        return record

    handles = []
    for name, module in model.named_modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # a full backward hook crashes in-place modules
            handles.append(module.register_forward_hook(forward(name)))
            handles.append(module.register_full_backward_hook(backward(name)))
    yield lambda: None
    for handle in handles:
        handle.remove()


@contextmanager
def histograms(model: nn.Module, optimizer: Any):
    """Mean, std, near-zero share and a 40-bin histogram per layer."""
    stats: dict[str, list[Any]] = {}

    def hook(name: str) -> Callable[..., None]:
        def record(module: nn.Module, args: Any, out: Tensor) -> None:
            x = out.detach()
            bins = x.float().cpu().histc(40, 0, 10)
            stats[name] = [x.mean().item(), x.std().item(), (x.abs() < 0.05).float().mean().item(), bins]

        return record

    with forward_hooks(model, hook):
        yield lambda: None


def _nothing(_: Tensor) -> None:
    return None


@contextmanager
def reading(model: nn.Module, optimizer: Any):
    """No statistics: `x.sum()` of every pre-activation and gradient, the least that seeing them costs."""

    def hook(name: str) -> Callable[..., None]:
        def record(module: nn.Module, args: Any, out: Tensor) -> None:
            args[0].detach().sum()
            args[0].register_hook(lambda gradient: _nothing(gradient.sum()))

        return record

    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    with forward_hooks(model, hook):
        yield lambda: None


@contextmanager
def recorder(model: nn.Module, optimizer: Any):
    """harness.Recorder, defaults."""
    with Recorder(model, optimizer=optimizer) as watching:
        yield watching.step


VARIANTS: dict[str, Callable[..., Any]] = {
    "bare": lambda model, optimizer: nullcontext(lambda: None),
    "Recorder": recorder,
    "one read": reading,
    "zero share": zero_share,
    "sums + backward hook": per_unit_sums,
    "histograms": histograms,
}
