"""CompilerStance: switches compiled code off while models are observed, until taps exist for its graphs.

Does nothing before torch's compiler has been imported, which takes two seconds.
"""

from __future__ import annotations

import gc
import logging
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling

from harness.hooks._torch import guarded_hooks, spare_frames

log = logging.getLogger("harness")


class CompilerStance:
    """What one observer requires of the compiler; observers may come and go in any order.

    Until `release`, and while there are several observers, compiled models run eagerly.

    Attributes:
        in_force: whether compiled code is currently switched off.
        released: whether this observer's taps may be traced.

    Example:
        >>> stance = CompilerStance()
        >>> stance.leave()
    """

    in_force = False

    _watching = _needing = 0
    _spared = _guarding = False
    _stance, _guards = ExitStack(), ExitStack()

    def __init__(self) -> None:
        self.released = self._paused = self._left = False
        CompilerStance._watching += 1
        CompilerStance._needing += 1
        self.look()

    def release(self) -> None:
        """Allow compilation once the taps are ready: code compiled from now on contains them."""
        if not self.released:
            self.released = True
            CompilerStance._needing -= 1
            if not CompilerStance._guarding:
                CompilerStance._guarding = True
                self._guards.enter_context(guarded_hooks())
            forget_compiled("with the units of its activations counted in the graph")
            self.look()

    def take_back(self) -> None:
        """Make compiled models run eagerly again."""
        if self.released:
            self.released = False
            CompilerStance._needing += 1
            self.look()

    def pause(self) -> None:
        """Make compiled models run eagerly until `resume`."""
        if self.released and not self._paused:
            self._paused = True
            CompilerStance._needing += 1
            self.look()

    def resume(self) -> None:
        """Undo `pause`."""
        if self._paused:
            self._paused = False
            CompilerStance._needing -= 1
            self.look()

    def leave(self, *, traced: bool = False) -> None:
        """Remove the observer.

        Args:
            traced: whether compiled code contains its taps.
        """
        if self._left:
            return
        self._left = True
        self.resume()
        CompilerStance._watching -= 1
        CompilerStance._needing -= not self.released
        if CompilerStance._watching == 0:
            CompilerStance._guarding = False
            self._guards.close()
        if traced:
            forget_compiled("without taps")
        self.look()

    @classmethod
    def look(cls) -> None:
        """Switch compiled code off or on as required, once it can exist."""
        if not cls._spared and "torch._dynamo" in sys.modules:
            spare_frames()
            cls._spared = True
        due = cls._needing > 0 or cls._watching > 1
        if due and not cls.in_force and "torch._dynamo" in sys.modules and not torch.compiler.is_compiling():
            cls._stance.enter_context(torch.compiler.set_stance("force_eager"))
            cls.in_force = True
        elif cls.in_force and not due:
            cls._stance.close()
            cls.in_force = False


def is_compiled(model: nn.Module) -> bool:
    """Whether a model or a part of it was passed to `torch.compile`, as far as this can be detected.

    Example:
        >>> is_compiled(nn.Linear(2, 3))
        False
    """
    if "torch._dynamo" not in sys.modules:
        return False
    modules = set(model.modules())
    if any(getattr(module, "_compiled_call_impl", None) is not None for module in modules):
        return True
    kind = torch._dynamo.OptimizedModule
    wrappers = (one for one in gc.get_referrers(kind) if type(one) is kind)  # an object refers to its class
    return any(wrapper in modules or wrapper._modules["_orig_mod"] in modules for wrapper in wrappers)


def is_one_graph(model: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether the compiler makes one graph of a forward; the graph is not run, and no state changes."""
    made: list[bool] = []

    def backend(graph: Any, inputs: Any) -> Any:
        made.append(True)
        raise NotImplementedError

    def call(*args: Any, **kwargs: Any) -> Any:
        if not is_dynamo_compiling():  # nothing is compiled: the compiler has been switched off
            raise NotImplementedError
        return model(*args, **kwargs)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with suppress(Exception), torch.compiler.set_stance("default"):
            torch.compile(call, backend=backend, fullgraph=True)(*args, **kwargs)
    return bool(made)


class Described(NamedTuple):
    """Metadata of a tensor, without its values."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    requires_grad: bool


def described(value: Any) -> Any:
    """Arguments with metadata in place of tensors, which keeps none alive; None if there are other objects.

    Example:
        >>> described((torch.ones(2), {"scale": 3}))[1]
        {'scale': 3}
        >>> described((torch.ones(2), object())) is None
        True
    """
    try:
        return _mapped(value, _describe)
    except TypeError:
        return None


def like(value: Any) -> Any:
    """Arguments as they were described, with new tensors whose values are never read."""
    return _mapped(value, lambda one: _made(one) if isinstance(one, Described) else one)


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    if type(value) in (tuple, list):
        return type(value)(_mapped(part, change) for part in value)
    if type(value) is dict:
        return {key: _mapped(part, change) for key, part in value.items()}
    return change(value)


def _describe(value: Any) -> Any:
    if isinstance(value, Tensor):
        return Described(value.shape, value.dtype, value.device, value.requires_grad)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError


def _made(value: Described) -> Tensor:
    made = torch.zeros(value.shape, dtype=value.dtype, device=value.device)
    return made.requires_grad_(value.requires_grad)


def forget_compiled(why: str) -> None:
    """Recompile code at its next call; until then torch does not look for new hooks."""
    if "torch._dynamo" in sys.modules:
        spare_frames()
        log.info("any compiled code is compiled again, %s", why)
        torch.compiler.reset()
