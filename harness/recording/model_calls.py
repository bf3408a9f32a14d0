"""Call a model with a batch: decide which parts of it are inputs and which are targets."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from harness.hooks.discovery import tensors_inside
from harness.kernels.same_values import same_values
from harness.recording.batches import (
    Batch,
    as_batches,
    device_of,
    in_doubt,
    is_mapping,
    is_object,
    tensors_in,
)

SEVERAL = (
    "batches: tensors of one length, type and number of axes are taken as one (input, target) batch, whose "
    "first is the input. Several batches are [(first,), (second,)]; one is [(input, target)]."
)


class Arguments(NamedTuple):
    """Arguments of a forward method.

    Attributes:
        required: names of the positional arguments without a default.
        names: names of all arguments that can be passed by keyword.
        any_name: whether it accepts any other keyword too.
    """

    required: tuple[str, ...]
    names: tuple[str, ...]
    any_name: bool

    def __str__(self) -> str:
        optional = [f"[{name}]" for name in self.names if name not in self.required]
        return f"forward({', '.join((*self.required, *optional, *(['…'] if self.any_name else [])))})"


def arguments_of(model: nn.Module) -> Arguments:
    """Return the arguments of a model's forward; for a wrapper (DDP, compiled), those of the inner model.

    Example:
        >>> str(arguments_of(nn.Bilinear(2, 2, 1)))
        'forward(input1, input2)'
    """
    children = dict(model.named_children())
    inside = children.get("_orig_mod")
    if inside is not None:
        return arguments_of(inside)
    try:
        found = list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError, AttributeError, RuntimeError):
        return Arguments((), (), True)
    kinds = {p.kind for p in found}
    inside = children.get("module")
    if inside is not None and inspect.Parameter.POSITIONAL_OR_KEYWORD not in kinds:
        return arguments_of(inside)
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = tuple(p.name for p in found if p.kind in positional and p.default is p.empty)
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    anything = inspect.Parameter.VAR_KEYWORD in kinds
    return Arguments(required, tuple(p.name for p in found if p.kind in named), anything)


def call(model: nn.Module, batch: Batch, device: torch.device | None) -> Any:
    """Compute the model's output on a batch.

    A tensor is the input. For a tuple or list, the input is the first item, or the first k items if the
    forward takes k arguments. For a dict, the inputs are the items that the forward takes by name, or the
    dict itself if it takes none of them.

    Raises:
        TypeError: the batch is of another kind, or the model has no forward.
    """
    _require_forward(model)
    args, kwargs = _inputs(arguments_of(model), batch)
    return model(*_moved(args, device), **_moved(kwargs, device))


def _require_forward(model: nn.Module) -> None:
    """Refuse a model without a forward, such as an agent with methods alone."""
    own = inspect.getattr_static(type(model), "forward", None)  # scripted classes refuse to be asked
    if own is nn.Module.forward and "forward" not in vars(model):
        name = type(model).__name__
        raise TypeError(
            f"model: {name} has no forward() that could be called on the batch. Give a module whose forward "
            f"calls the method to observe: class Observed(nn.Module): __init__ keeps the {name}, and "
            "forward(x) returns its method's output"
        )


def outputs(
    model: nn.Module,
    batches: Batch | Iterable[Batch],
    *,
    graph: bool = False,
    before: Callable[[Batch], None] | None = None,
) -> Iterator[tuple[Batch, Any]]:
    """Call a model with every batch.

    Args:
        model: any module.
        batches: as `harness.scan` takes them.
        graph: whether autograd records the calls.
        before: called with every batch before the model.

    Yields:
        The batch and the output.

    Raises:
        ValueError: the model raised on a batch.
        TypeError: a batch is of another kind, or the model has no forward.
    """
    _require_forward(model)
    device, arguments = device_of(model), arguments_of(model)

    def run(batch: Batch) -> Any:
        args, kwargs = _inputs(arguments, batch)
        if before is not None:
            before(batch)
        try:
            with torch.set_grad_enabled(graph):
                return model(*_moved(args, device), **_moved(kwargs, device))
        except (torch.OutOfMemoryError, Warning):
            raise
        except Exception as error:
            raise ValueError(_refused(arguments, batch, (args, kwargs), error)) from error

    items = as_batches(batches, len(arguments.required))
    if isinstance(items, tuple | list) and in_doubt(items):
        output = run(items[0])
        if _is_pair(items, output):
            yield items, output
            return
        yield items[0], output
        items = items[1:]
    for batch in items:
        yield batch, run(batch)


def _inputs(arguments: Arguments, batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and keyword arguments for the forward."""
    if isinstance(batch, tuple | list) and batch and not isinstance(batch, PackedSequence):
        count = len(arguments.required)
        if count > 1 and isinstance(batch[0], tuple | list):
            batch = batch[0]  # ((first, second), target)
        if count > 1 and len(batch) >= count:
            return tuple(batch[:count]), {}
        batch = batch[0]
    if is_mapping(batch):
        known = [name for name in batch if arguments.any_name or name in arguments.names]
        if not known and len(arguments.required) == 1:
            return (dict(batch),), {}  # a forward that takes the whole batch
        return (), {name: batch[name] for name in known or batch}
    if isinstance(batch, tuple | list) and batch and all(isinstance(image, Tensor) for image in batch):
        return (batch if isinstance(batch, PackedSequence) else list(batch),), {}  # a detector's images
    if not isinstance(batch, Tensor) and next(tensors_inside(batch), None) is None:
        raise TypeError(
            "a batch: expected a tensor, a tuple or list whose first item is the input, a dict of keyword "
            f"arguments, or an object that holds tensors, but got {type(batch).__name__}"
        )
    return (batch,), {}


def _is_pair(items: Any, output: Any) -> bool:
    """Whether similar tensors are an input and its target, which resembles the output."""
    first, second = items[:2]
    outs = [out for out in tensors_in(output) if out.ndim]
    like = any(out.numel() == second.numel() and len(out) == len(second) for out in outs)
    if first.shape != second.shape:
        sized = (
            first.ndim > 2 or not first.is_floating_point()
        )  # images or sentences, which can also be batches of different sizes
        if sized and not like:
            warnings.warn(SEVERAL, stacklevel=4)
        return True
    indices = not second.is_floating_point()
    like |= indices and any(second.shape in (out.shape[:-1], out.shape[:1] + out.shape[2:]) for out in outs)
    memory = first.untyped_storage().data_ptr()
    parts = first is not second and memory == second.untyped_storage().data_ptr() != 0
    if len(items) > 2 or not like or (parts and first.data_ptr() != second.data_ptr()):
        return False
    if not same_values(first, second.to(first.device)):
        warnings.warn(SEVERAL, stacklevel=4)
    return True


def _refused(arguments: Arguments, batch: Any, passed: tuple[Any, dict[str, Any]], error: Exception) -> str:
    args, kwargs = passed
    inputs = ", ".join([*map(_shown, args), *(f"{name}={_shown(value)}" for name, value in kwargs.items())])
    lines = str(error).strip().splitlines() or [""]
    name = (arguments.required or ("x",))[0]
    return (
        f"batches: the model raised on a batch. Expected what its {arguments} takes, but got "
        f"{_shown(batch)}, of which it was called with ({inputs}): {type(error).__name__}: {lines[0]}. Give "
        "batches that are a tensor, a tuple (input, target), or (first, second, …) where the forward takes "
        "several inputs, or a dict of its keyword arguments, such as "
        f'({{"{name}": batch[0]}} for batch in loader).'
    )


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"tensor {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name!r}: {_shown(part)}" for name, part in value.items()) + "}"
    if isinstance(value, tuple | list):
        some = [*map(_shown, value[:4]), *(["…"] if len(value) > 4 else [])]
        return f"[{', '.join(some)}]" if isinstance(value, list) else f"({', '.join(some)})"
    return type(value).__name__


def _moved(value: Any, device: torch.device | None) -> Any:
    """Move nested tensors to a device."""
    if device is None:
        return value
    if isinstance(value, Tensor | PackedSequence):
        return cast("Any", value).to(device)
    if isinstance(value, dict) and is_mapping(value):
        return {name: _moved(part, device) for name, part in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_moved(part, device) for part in value)
    return cast("Any", value).to(device) if is_object(value) else value
