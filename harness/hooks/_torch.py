"""Everything private of torch that is used here, each with a public fallback.

A change in torch costs speed or leaves something unobserved; it never raises in somebody's training.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

try:
    from torch._C import _current_graph_task_id as graph_task
except ImportError:  # pragma: no cover

    def graph_task() -> int:
        """Number of the backward pass that runs, -1 without."""
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

_SPARED: list[Any] = []

_UNSEEN: Callable[[], Any] = getattr(torch._C, "DisableTorchFunction", nullcontext)

VERSION = tuple(int(part) for part in torch.__version__.split(".")[:2])
FEW = 1024  # numbers of an index that are compared
#: Whether a hook can be set on a tensor without a handle, in a third of the time.
DIRECT = hasattr((torch.zeros(1, requires_grad=True) * 1).grad_fn, "_register_hook_dict")


def is_recompute() -> bool:
    """Whether a backward pass runs: this forward is a checkpoint's recomputation. Fallback: never."""
    return graph_task() != -1


def accumulates(node: Any) -> bool:
    """Whether the running backward pass accumulates in the leaf of a node. Fallback: it always does."""
    try:
        return _reaches is None or (hasattr(node, "variable") and _reaches(node))
    except RuntimeError:  # torch.autograd.grad, which returns the leaf's gradient
        return False


def in_compiled_call() -> bool:
    """Whether compiled code has been called and not returned. Fallback: `can_trace_hooks` is False."""
    return _compiler is not None and _compiler() is not None


def can_trace_hooks() -> bool:
    """Whether `in_compiled_call` knows, and hooks are traced with what they do to their own attributes."""
    return _compiler is not None and VERSION >= (2, 13)


def never_traced(function: Callable[..., Any]) -> Any:
    """The function, never compiled; unlike `torch.compiler.disable` it does not import the compiler."""

    def eager(*args: Any) -> Any:  # torch keeps a note on what it is given, which a method does not take
        return function(*args)

    return _disable(eager)


def never_compiled(function: Function) -> Function:
    """A function whose own frame is not compiled, though it may be traced into a caller's.

    Called from Python between two graphs, hooks and modes would be compiled one by one, and torch takes one
    `Tensor.shape.__get__` for another. It holds once `spare_frames` has been called. Fallback: they are.
    """
    _SPARED.append(function)
    return function


def spare_frames() -> None:
    """Tell the compiler, once it has been imported, which frames it is to leave alone."""
    skip = getattr(sys.modules.get("torch._dynamo.eval_frame"), "skip_code", None)
    if skip is not None:
        for function in _SPARED:
            skip(function.__code__)


def guarded_hooks() -> AbstractContextManager[object]:
    """A context: code that is compiled in it runs for modules with the same hooks alone.

    Otherwise that of one model runs for another of the same class, which is watched. Fallback: it does.
    """
    config: Any = sys.modules.get("torch._dynamo.config")
    known = hasattr(config, "skip_nnmodule_hook_guards")
    return config.patch(skip_nnmodule_hook_guards=False) if known else nullcontext()


def mark_static(tensor: Tensor) -> None:
    """Tell the compiler that a tensor it writes to stays where it is, as a module's buffers do.

    Otherwise `mode="reduce-overhead"` makes no CUDA graph of code that writes to it. Fallback: it makes none.
    """
    mark = getattr(sys.modules.get("torch._dynamo"), "mark_static_address", None)
    if mark is not None:
        mark(tensor, guard=True)


def leaf_node(leaf: Tensor) -> Any:
    """The node that accumulates in a leaf; no function mode sees it asked for. Fallback: they do."""
    with _UNSEEN():
        return get_gradient_edge(leaf).node


def without_transforms(tensor: Tensor) -> Tensor | None:
    """The plain tensor inside function transforms; None under vmap: members and inputs look alike there."""
    while is_functorch_wrapped_tensor(tensor):
        if is_batchedtensor(tensor):
            return None
        tensor = get_unwrapped(tensor)
    return tensor


def outside_all_transforms() -> AbstractContextManager[object]:
    """A context in which plain tensors can be computed with; what is made there is plain."""
    return temporarily_clear_interpreter_stack()


def outside_transforms(tensor: Tensor, plain: Tensor) -> AbstractContextManager[object]:
    """A context in which `plain`, the inside of `tensor`, can be computed with."""
    return nullcontext() if plain is tensor else temporarily_clear_interpreter_stack()


def watch_gradient(z: Tensor, hook: Callable[[Tensor], None]) -> None:
    """`z.register_hook(hook)`, without the handle that nobody asks for."""
    node = z.grad_fn
    if node is None or z._backward_hooks is not None or not DIRECT:
        z.register_hook(hook)
        return
    hooks: OrderedDict[int, Callable[[Tensor], Any]] = OrderedDict()
    hooks[-1] = hook  # handles count up from 0
    z._backward_hooks = hooks
    node._register_hook_dict(z)  # pyright: ignore[reportAttributeAccessIssue]


def zero_all(tensors: list[Tensor]) -> None:
    """Fill tensors of one device with 0, in one launch. Fallback: one after the other."""
    together = getattr(torch, "_foreach_zero_", None)
    if together is not None:
        together(tensors)
        return
    for tensor in tensors:
        tensor.zero_()


def top_function_mode(otherwise: Any) -> Any:
    """The function mode entered last, None without any. Fallback: `otherwise`."""
    current = getattr(torch.overrides, "_get_current_function_mode", None)
    return otherwise if current is None else current()


def version_of(tensor: Tensor) -> int:
    """How often a tensor was written to."""
    return 0 if tensor.is_inference() else tensor._version


def numbers_of(node: Any) -> list[str]:
    """Names of the numbers that a node of autograd's graph holds, such as the start of a slice; no sizes."""
    names = [name for name in dir(node) if name.startswith("_saved_") and "size" not in name]
    return [name for name in names if number_of(node, name) is not None]


def number_of(node: Any, name: str) -> Any:
    """A number that a node holds, or several, as of an index; None for everything else."""
    return _plain(getattr(node, name, None))


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):  # a device is not asked
        few = value.is_cpu and not value.is_floating_point() and value.numel() <= FEW
        return tuple(value.flatten().tolist()) if few else None
    if isinstance(value, tuple):
        return tuple(_plain(part) for part in value)
    return value if isinstance(value, int) else None
