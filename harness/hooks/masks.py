"""Masks: padding is not an input, so rows of a pre-activation that come from it are not counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from harness.activations.stored import stored
from harness.hooks.streams import NONE, UNKNOWN, Inputs, InputStreams

INVERTED = (
    "attention_mask leaves out most inputs: those where it is True are counted. If True marks padding in "
    "this model, set the inputs that count by recorder.mask(~attention_mask)"
)

Masks = Tensor | Iterable[Tensor] | Callable[[Any], Tensor | None]


class Mask:
    """Which inputs of one forward count.

    Args:
        given: (batch,) or (batch, positions); True or 1 where an input counts, as in an `attention_mask`.
        what: the argument, for messages.

    Attributes:
        shape: shape of the given mask.
        keeps_all: whether every input counts.
        doubt: why it may be meant otherwise, "" if nothing shows it.

    Raises:
        TypeError: `given` is not a tensor.
        ValueError: wrong number of axes, or values other than 0 and 1.

    Example:
        >>> mask = Mask(torch.tensor([[1, 1, 0], [1, 0, 0]]))
        >>> rows = mask.rows(torch.rand(2, 3, 5), (-1,))  # (batch, positions, units)
        >>> rows[0].shape, rows[1]
        (torch.Size([3, 5]), (-1,))
        >>> mask.rows(torch.rand(2, 7, 5), (-1,)) is None  # other positions
        True
    """

    def __init__(self, given: Any, what: str = "mask") -> None:
        if not isinstance(given, Tensor):
            raise TypeError(f"{what}: expected a tensor, but got {type(given).__name__}")
        if given.ndim not in (1, 2):
            raise ValueError(
                f"{what}: expected the shape (batch,) or (batch, positions), but got {tuple(given.shape)}"
            )
        given = given.detach().cpu()  # the only synchronization with a device
        self._mask = given.bool()
        if given.dtype != torch.bool and not bool((given == self._mask).all()):
            raise ValueError(f"{what}: expected True and False, or 1 (counted) and 0, but got other values")
        self.shape, self.keeps_all = tuple(given.shape), bool(self._mask.all())
        self.doubt = ""
        self._count: int | None = None  # computed on demand
        self._indices: dict[Any, Tensor] = {}
        self._poolers: set[Any] = set()  # callers that came with one row per sequence

    def rows(
        self, z: Tensor, axes: tuple[int, ...], caller: Any = None
    ) -> tuple[Tensor, tuple[int, ...]] | None:
        """The rows of a tensor that count, and their unit axes; None if the mask does not fit.

        The mask fits (batch, positions, …) and the same transposed or flattened to rows, wherever the unit
        axes are. If each sequence has one row, as after pooling, sequences that are all padding are left out.
        A caller that comes again with one row per sequence iterates over positions, which does not fit.

        Args:
            z: pre-activations or their gradients.
            axes: unit axes, from the end.
            caller: the caller, to detect such iterations; None: do not.
        """
        units = [axis + z.ndim for axis in axes]
        inputs = [axis for axis in range(z.ndim) if axis not in units]
        lead = tuple(z.shape[axis] for axis in inputs)
        found = self._fitting(lead)
        if found is None:
            return None
        kind, count = found
        if kind == "sequences" and caller is not None:
            if caller in self._poolers:
                return None
            self._poolers.add(caller)
        moved = z.permute(*inputs, *units)
        kept = moved.flatten(0, count - 1).index_select(0, self._index(kind, z.device))
        return kept, tuple(range(-len(units), 0))

    def kind(self, z: Tensor, axes: tuple[int, ...]) -> str:
        """How the mask fits a tensor with these unit axes: "" if it does not, "sequences" if by its rows."""
        units = [axis + z.ndim for axis in axes]
        found = self._fitting(tuple(size for axis, size in enumerate(z.shape) if axis not in units))
        return "" if found is None else found[0]

    def is_packed(self, z: Tensor, axes: tuple[int, ...]) -> bool:
        """Whether a tensor that does not fit has exactly the counted inputs, as in a PackedSequence."""
        inputs = [size for axis, size in enumerate(z.shape) if axis - z.ndim not in axes]
        return len(self.shape) > 1 and inputs == [self.count]

    @property
    def count(self) -> int:
        """Number of inputs that count."""
        if self._count is None:
            self._count = int(self._mask.sum())
        return self._count

    def _fitting(self, lead: tuple[int, ...]) -> tuple[str, int] | None:
        """The form of the mask that fits the input axes, and how many axes it covers; None if none fits."""
        own = self.shape
        if lead[: len(own)] == own:
            return "as given", len(own)
        if len(own) == 1 or not lead:
            return None
        if lead[:2] == own[::-1]:
            return "transposed", 2
        if lead[0] == own[0] * own[1]:
            return "as given", 1
        return ("sequences", 1) if lead == own[:1] else None

    def _index(self, kind: str, device: torch.device) -> Tensor:
        """Indices of the inputs that count."""
        index = self._indices.get((kind, device))
        if index is None:
            mask = self._mask.any(1) if kind == "sequences" else self._mask
            mask = mask.T if kind == "transposed" else mask
            index = mask.flatten().nonzero().flatten().to(device)
            self._indices[kind, device] = index
        return index


class Masking:
    """The mask of the running forward, or of the last one, whose backward is still to come.

    Args:
        model: in an encoder-decoder model, the mask applies to the encoder.
        say: receives a warning for each site that is counted without the mask.

    Attributes:
        now: the mask, None if every input counts.
        used: whether there has been one.
        pending: the mask set for the next forward, in a list of at most one.
        learned: whether a forward with a mask was traced.
        mixed: whether the mask is of some calls of a site and not of others, which only a trace tells.
    """

    def __init__(self, model: nn.Module, say: Callable[[str], None]) -> None:
        self._encodes = stored(stored(model, "config"), "is_encoder_decoder") is True
        self._say = say
        self._said: set[str] = set()
        self._owners: Inputs = NONE  # the inputs that the mask is of
        self._whose: dict[str, str] = {}  # site → inputs of its rows, if the mask is not of them; else ""
        self.learned = self.mixed = False
        self.now: Mask | None = None
        self.used = False
        self.pending: list[Mask | None] = []

    def tell(self, mask: Mask | None) -> None:
        """Set the mask of the next forward, overriding one among its arguments; None: all inputs count."""
        self.pending = [mask]

    def begin(self, arguments: Mapping[str, Any]) -> None:
        """Start a forward with these keyword arguments."""
        if not arguments and not self.pending:
            self.now = None
            return
        mask = self.pending.pop() if self.pending else attention_mask(arguments)
        self.now = None if mask is None or mask.keeps_all else mask
        self.used |= self.now is not None
        if mask is not None and mask.doubt:
            self._say(mask.doubt)

    def at(self, site: str) -> Mask | None:
        """The mask for a site; None for one whose inputs are others, possibly as many."""
        if self.now is None:
            return None
        if self._encodes and "decoder" in site.replace(":", ".").split("."):
            self._count_whole(site, "the mask is of the encoder's inputs")
            return None
        other = self._whose.get(site)
        if other:
            of = ", ".join(sorted(self._owners)) or "another input"
            reason = f"its rows are of {other}, but the mask is taken to be of {of}"
            self._count_whole(site, f"{reason} (recorder.mask sets another, recorder.mask(None) none)")
            return None
        return self.now

    def learn(self, site: str, z: Tensor, axes: tuple[int, ...], streams: InputStreams) -> None:
        """Learn in a traced forward whether the mask is of a site's rows.

        It is taken to be of those inputs with its batch and its positions that the first site is made of.
        Where nothing is known of a pre-activation, or no input has the mask's shape, the shape decides.
        """
        mask, found = self.now, streams.of(z)
        if mask is None or len(mask.shape) < 2 or found == UNKNOWN:
            return
        kind, found = mask.kind(z, axes), found - UNKNOWN
        fitting = {name for name, shape in streams.shapes.items() if _has(shape, mask.shape)}
        if kind == "sequences" or not (self._owners or (kind and fitting)):
            return
        self._owners = self._owners or found & fitting
        other = "" if found & self._owners else ", ".join(sorted(found)) or "none of the inputs"
        before = self._whose.setdefault(site, other)
        if bool(before) != bool(other):
            self.mixed, self._whose[site] = True, other

    def rows(
        self, mask: Mask, z: Tensor, is_open: Tensor | None, axes: tuple[int, ...], caller: Any, site: str
    ) -> tuple[Tensor, Tensor | None, tuple[int, ...]]:
        """The rows of z and of its gates that count, and their unit axes; all rows if the mask does not fit.

        Args:
            mask: mask of the site.
            z: pre-activations.
            is_open: whether each gate is open, if a declaration computes it.
            axes: unit axes.
            caller: caller of the activation.
            site: name of the site.
        """
        found = mask.rows(z, axes, caller)
        if found is None and mask.is_packed(z, axes):
            return z, is_open, axes
        if found is None:
            where = f"its pre-activation {tuple(z.shape)}, whose units are on {axes}"
            self._count_whole(site, f"the mask {mask.shape} does not fit {where}")
            return z, is_open, axes
        opens = None if is_open is None else mask.rows(is_open, axes)
        return found[0], None if opens is None else opens[0], found[1]

    def _count_whole(self, site: str, reason: str) -> None:
        if site not in self._said:
            self._said.add(site)
            self._say(f"{site}: {reason}: it is counted whole, padding too")


def _has(shape: tuple[int, ...], own: tuple[int, ...]) -> bool:
    """Whether an input, unless it is an image, has a mask's batch and positions, in any order."""
    left = list(shape)
    for size in own:
        if size not in left:
            return False
        left.remove(size)
    return len(left) < 2


def attention_mask(batch: Any) -> Mask | None:
    """The mask in a dict of keyword arguments, if it has one over inputs or positions.

    Example:
        >>> attention_mask({"attention_mask": torch.ones(2, 4, 4)}) is None  # which token sees which
        True
    """
    if isinstance(batch, tuple | list) and batch:
        batch = batch[0]
    found = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    try:
        mask = None if found is None else Mask(found)
    except (TypeError, ValueError, RuntimeError):  # another kind of mask, or without values
        return None
    if found is None or mask is None or not mask.count:  # of zeros: it is added, or True marks padding
        return None
    if found.dtype == torch.bool and 2 * mask.count < found.numel():
        mask.doubt = INVERTED
    return mask


def masks_of(given: Masks | None) -> Callable[[Any], Mask | None]:
    """Function batch → its mask, for batches in order; raises ValueError if there are too few masks.

    Args:
        given: the mask of the only batch, one mask per batch, or a function of the batch; None: use the masks
            in the batches.

    Raises:
        TypeError: `given` is something else.
    """
    if given is None:
        return attention_mask
    if callable(given) and not isinstance(given, Tensor):
        return lambda batch: None if (found := given(batch)) is None else Mask(found)
    if not isinstance(given, Iterable):
        raise TypeError(
            f"mask: expected a tensor, one for each batch, or a function, but got {type(given).__name__}"
        )
    several: Iterator[Any] = iter([given] if isinstance(given, Tensor) else given)

    def following(batch: Any) -> Mask:
        for mask in several:
            return Mask(mask)
        raise ValueError(
            "mask: expected one for each batch (or a function of the batch), but there are fewer"
        )

    return following
