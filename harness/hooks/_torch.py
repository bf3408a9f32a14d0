"""All uses of private torch APIs, each with a public fallback.

A change in torch may cost speed or leave something unobserved, but it never raises in the user's training.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

try:
    from torch._C import _current_graph_task_id as graph_task
except ImportError:  # pragma: no cover

    def graph_task() -> int:
        """Id of the running backward pass, -1 if none runs."""
        return -1


try:
    from torch._C import _will_engine_execute_node as _reaches
except ImportError:  # pragma: no cover
    _reaches = None

try:
    from torch._C._dynamo.eval_frame import get_eval_frame_callback as _compiler
except ImportError:  # pragma: no cover
    _compiler = None

try:
    from torch._compile import _disable_dynamo as _disable
except ImportError:  # pragma: no cover
    _disable = torch.compiler.disable

try:
    from torch._C._functorch import get_unwrapped, is_batchedtensor, is_functorch_wrapped_tensor
    from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
except ImportError:  # pragma: no cover

    def get_unwrapped(tensor: Tensor) -> Tensor:
        return tensor

    def is_batchedtensor(tensor: Tensor) -> bool:
        return False

    def is_functorch_wrapped_tensor(tensor: Tensor) -> bool:
        return False

    temporarily_clear_interpreter_stack = nullcontext


Function = TypeVar("Function", bound=Callable[..., Any])

#: Whether `torch.jit.trace` is running. Fallback: never.
is_jit_tracing: Callable[[], bool] = getattr(torch.jit, "is_tracing", bool)

_SPARED: list[Any] = []

_UNSEEN: Callable[[], Any] = getattr(torch._C, "DisableTorchFunction", nullcontext)

_UNDISPATCHED: Callable[[], Any] = getattr(
    sys.modules.get("torch.utils._python_dispatch"), "_disable_current_modes", nullcontext
)

VERSION = tuple(int(part) for part in torch.__version__.split(".")[:2])
FEW = 1024  # largest number of elements of an index that is compared
#: Whether a hook can be set on a tensor without creating a handle, which takes a third of the time.
DIRECT = hasattr((torch.zeros(1, requires_grad=True) * 1).grad_fn, "_register_hook_dict")


def is_recompute() -> bool:
    """Whether a backward pass runs: this forward is a checkpoint's recomputation. Fallback: never."""
    return graph_task() != -1


def accumulates(node: Any) -> bool:
    """Whether the running backward pass accumulates into the leaf of a node. Fallback: always True."""
    try:
        return _reaches is None or (hasattr(node, "variable") and _reaches(node))
    except RuntimeError:  # torch.autograd.grad, which returns the leaf's gradient
        return False


def in_compiled_call() -> bool:
    """Whether a call of compiled code is running. Fallback: False, and so is `can_trace_hooks`."""
    return _compiler is not None and _compiler() is not None


def can_trace_hooks() -> bool:
    """Whether `in_compiled_call` is reliable and hooks that write to their own attributes can be traced."""
    return _compiler is not None and VERSION >= (2, 13)


def never_traced(function: Callable[..., Any]) -> Any:
    """Exclude a function from compilation; unlike `torch.compiler.disable`, do not import the compiler."""

    def eager(*args: Any) -> Any:  # torch sets an attribute on it, which a bound method forbids
        return function(*args)

    return _disable(eager)


def never_compiled(function: Function) -> Function:
    """Mark a function whose own frame is not compiled, though it may be traced into a caller's.

    Hooks and modes that Python calls between two graphs would otherwise be compiled one by one, and torch
    confuses one `Tensor.shape.__get__` with another. Takes effect with `spare_frames`. Fallback: they are
    compiled.
    """
    _SPARED.append(function)
    return function


def spare_frames() -> None:
    """Tell the compiler, if it has been imported, which frames to skip."""
    skip = getattr(sys.modules.get("torch._dynamo.eval_frame"), "skip_code", None)
    if skip is not None:
        for function in _SPARED:
            skip(function.__code__)


@contextmanager
def guarded_hooks() -> Iterator[None]:
    """Context manager: code compiled in it runs only for modules with the same hooks.

    Otherwise an unobserved model's code also runs for an observed one of its class. Fallback: it does. It may
    end in another thread or task than it began in, which `config.patch` refuses.
    """
    config: Any = sys.modules.get("torch._dynamo.config")
    before = getattr(config, "skip_nnmodule_hook_guards", None)
    if before is None:
        yield
        return
    config.skip_nnmodule_hook_guards = False
    try:
        yield
    finally:
        config.skip_nnmodule_hook_guards = before


def without_compiler(model: nn.Module) -> nn.Module:
    """The model that `torch.compile` has wrapped; any other model itself. Fallback: the wrapper."""
    wrapper = getattr(sys.modules.get("torch._dynamo"), "OptimizedModule", None)
    inside = getattr(model, "_orig_mod", None) if wrapper is not None and type(model) is wrapper else None
    return without_compiler(inside) if isinstance(inside, nn.Module) else model


def mark_static(tensor: Tensor) -> None:
    """Tell the compiler that a tensor it writes to keeps its address, like a module's buffers.

    Otherwise `mode="reduce-overhead"` makes no CUDA graph of code that writes to it. Fallback: it makes none.
    """
    mark = getattr(sys.modules.get("torch._dynamo"), "mark_static_address", None)
    if mark is not None:
        mark(tensor, guard=True)


def leaf_node(leaf: Tensor) -> Any:
    """The node that accumulates into a leaf, hidden from modes. Fallback: they see the access.

    The dispatch mode of selective checkpointing refuses what the forward did not do.
    """
    with _UNSEEN(), _UNDISPATCHED():
        return get_gradient_edge(leaf).node


def without_transforms(tensor: Tensor) -> Tensor | None:
    """The plain tensor inside function transforms; None under vmap, where members and inputs look alike."""
    while is_functorch_wrapped_tensor(tensor):
        if is_batchedtensor(tensor):
            return None
        tensor = get_unwrapped(tensor)
    return tensor


def outside_all_transforms() -> AbstractContextManager[object]:
    """Context manager: computations on plain tensors give plain tensors."""
    return temporarily_clear_interpreter_stack()


def outside_transforms(tensor: Tensor, plain: Tensor) -> AbstractContextManager[object]:
    """Context manager for computations on `plain`, the tensor inside `tensor`."""
    return nullcontext() if plain is tensor else temporarily_clear_interpreter_stack()


def base_to_watch(z: Tensor, writes: Callable[[], bool]) -> Tensor | None:
    """The tensor that z is a view of, if z is about to be written to; else None.

    Autograd then gives the view a new node, and no gradient reaches its old one.

    Args:
        z: a pre-activation.
        writes: whether its activation works in place; asked for views alone.
    """
    base = z._base
    if base is None or base.grad_fn is None or not writes():
        return None
    return base if type(base) is Tensor and base.dtype == z.dtype else None


def is_view(z: Tensor) -> bool:
    """Whether a tensor is a view of another."""
    return z._base is not None


def watch_gradient(z: Tensor, hook: Callable[[Tensor], None], base: Tensor | None = None) -> None:
    """`z.register_hook(hook)`, without creating the unused handle.

    Args:
        z: the tensor.
        hook: receives its gradient.
        base: the result of `base_to_watch`. The gradient of z is then the same part of its gradient.
    """
    node = z.grad_fn
    if base is not None and base.grad_fn is not None:
        base.grad_fn.register_prehook(_GradientOfView(z, base, hook))
        return
    if node is None or z._backward_hooks is not None or not DIRECT:
        z.register_hook(hook)
        return
    hooks: OrderedDict[int, Callable[[Tensor], Any]] = OrderedDict()
    hooks[-1] = hook  # handles count up from 0
    z._backward_hooks = hooks
    node._register_hook_dict(z)  # pyright: ignore[reportAttributeAccessIssue]


class _GradientOfView:
    """A hook on the node of a tensor that takes out the gradient of a view; keeps neither of them alive."""

    __slots__ = ("_base", "_hook", "_output", "_view")

    def __init__(self, view: Tensor, base: Tensor, hook: Callable[[Tensor], None]) -> None:
        start = view.storage_offset() - base.storage_offset()
        self._view, self._base = (view.shape, view.stride(), start), (base.shape, base.stride())
        self._output, self._hook = base.output_nr, hook

    def __call__(self, gradients: Sequence[Tensor | None]) -> None:
        gradient = gradients[self._output]
        if gradient is None:
            return
        shape, strides = self._base
        with torch.no_grad():
            if gradient.stride() != strides:
                laid_out = torch.empty_strided(shape, strides, dtype=gradient.dtype, device=gradient.device)
                gradient = laid_out.copy_(gradient)
            shape, strides, start = self._view
            gradient = gradient.as_strided(shape, strides, gradient.storage_offset() + start)
        self._hook(gradient)


def remove_hooks(module: nn.Module, kind: type) -> None:
    """Remove a module's forward hooks of one type, for which nobody has a handle."""
    own = [
        vars(module)[name]
        for name in vars(module)
        if name.startswith(("_forward_hooks", "_forward_pre_hooks"))
    ]
    for key in [key for hooks in own for key, hook in hooks.items() if isinstance(hook, kind)]:
        for hooks in own:
            hooks.pop(key, None)


def zero_all(tensors: list[Tensor]) -> None:
    """Fill tensors of one device with 0 in one launch. Fallback: one launch per tensor."""
    together = getattr(torch, "_foreach_zero_", None)
    if together is not None:
        together(tensors)
        return
    for tensor in tensors:
        tensor.zero_()


def top_function_mode(otherwise: Any) -> Any:
    """The function mode entered last, None if there is none. Fallback: `otherwise`."""
    current = getattr(torch.overrides, "_get_current_function_mode", None)
    return otherwise if current is None else current()


def version_of(tensor: Tensor) -> int:
    """How often a tensor was modified in place."""
    return 0 if tensor.is_inference() else tensor._version


def numbers_of(node: Any) -> list[str]:
    """Names of the numbers that an autograd node stores, such as the start of a slice, but not sizes."""
    names = [name for name in dir(node) if name.startswith("_saved_") and "size" not in name]
    return [name for name in names if number_of(node, name) is not None]


def number_of(node: Any, name: str) -> Any:
    """The number, or numbers of an index, that a node stores under a name; None for everything else."""
    return _plain(getattr(node, name, None))


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):  # values on a device are not read: that would synchronize
        few = value.is_cpu and not value.is_floating_point() and value.numel() <= FEW
        return tuple(value.flatten().tolist()) if few else None
    if isinstance(value, tuple):
        return tuple(_plain(part) for part in value)
    return value if isinstance(value, int) else None
