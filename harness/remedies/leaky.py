"""Leaky swap: silent units get a leaky ReLU in place of the ReLU, permanently.

Our own method. It acts on single units, so that the others stay as they are; `units="all"` swaps all units
of the network. A swapped unit's gate is open everywhere: it never counts as dead again, useful or not.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from harness.graph.plan import modules_by_name
from harness.graph.units import UnitLayout, arranged, rows_of_places
from harness.recording.batches import Batch
from harness.remedies.events import RemedyEvent
from harness.remedies.swapping import put
from harness.remedies.wiring import trace

NONE = (
    "expected a model with modules nn.ReLU that its forward calls, each behind layers of one width and with "
    "its units on one axis, but there is none"
)
KIND = "leaky_swap"
Peaks = Mapping[str, tuple[Tensor, int]]  # site → largest pre-activation of each unit, and their axis


class PartlyLeaky(nn.PReLU):
    """A ReLU with some leaky units: z where z > 0, else slope · z; nothing is learned.

    Hooks treat it as a PReLU whose slopes may change: a unit with slope 0 is a ReLU, including its gate.

    Args:
        units: number of units.
        axis: their axis in the input: 1 (channels), or from the end.

    Attributes:
        slope: (units,) buffer, initially 0.

    Example:
        >>> act = PartlyLeaky(2)
        >>> act.slope[1] = 0.5
        >>> act(torch.tensor([[-2.0, -2.0]]))
        tensor([[ 0., -1.]])
    """

    gate_of = nn.PReLU
    slope: Tensor

    def __init__(self, units: int, axis: int = 1) -> None:
        nn.Module.__init__(self)
        self.num_parameters, self.axis = units, axis
        self.register_buffer("slope", torch.zeros(units))

    @property
    def weight(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The slopes, under the name where hooks look for those of a PReLU."""
        return self.slope

    def forward(self, input: Tensor) -> Tensor:
        shape = [1] * input.ndim
        shape[max(self.axis, -input.ndim) if self.axis < 0 or input.ndim > 1 else -1] = -1
        slope = self.slope.to(input.dtype).view(shape)
        return torch.where((input > 0) | (slope == 0), torch.relu(input), slope * input)


def leaky_swap(
    model: nn.Module, batch: Batch, *, slope: float = 0.01, above: float = 0.0, units: str = "dead"
) -> list[RemedyEvent]:
    """Replace the activation of units that are silent on a batch with a leaky ReLU, in place.

    A swapped unit now outputs -slope · |z|, which shifts the units of later layers. Some of these may fall
    silent: the last event says how many did on this batch. A second call swaps these too.

    Modules of exactly the class `nn.ReLU` are replaced by `PartlyLeaky`, which later calls update. If a
    module is called at several sites, a unit counts as silent if it is silent at all of them; if these differ
    in width, the module stays as it is, with a warning.

    Args:
        model: a model with its ReLUs as modules.
        batch: a tensor, a tuple whose first item is the input, or a dict of keyword arguments.
        slope: slope of the leaky ReLU, not 0.
        above: act only if the share of silent units among all units is above this.
        units: "dead" or "all".

    Returns:
        One event for each module with swapped units.

    Raises:
        ValueError: an argument is out of range, the model has no such modules, or it calls one that it does
            not hold as a submodule, which cannot be replaced.

    Example:
        >>> model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
        >>> _ = nn.init.constant_(model[0].bias, -9.0)
        >>> leaky_swap(model, torch.zeros(4, 1))[0].units, model[1].slope
        (2, tensor([0.0100, 0.0100]))
    """
    _check(slope, above, units)
    before = _peaks(model, batch)
    events = swap_silent(model, batch, slope=slope, above=above, units=units, peaks=before)
    fallen = _fallen(model, batch, before) if events and units == "dead" else ""
    if fallen:
        detail = (
            f"{events[-1].detail}; units behind that fell silent by it: {fallen}; call it again to swap these"
        )
        events[-1] = events[-1]._replace(detail=detail)
    return events


def swap_silent(
    model: nn.Module,
    batch: Batch,
    *,
    slope: float = 0.01,
    above: float = 0.0,
    units: str = "dead",
    peaks: Peaks | None = None,
) -> list[RemedyEvent]:
    """Like `leaky_swap`, but without counting the units that fall silent as a result."""
    _check(slope, above, units)
    peaks = _peaks(model, batch) if peaks is None else peaks
    if not peaks:
        raise ValueError(NONE)
    modules, like = modules_by_name(model), next(iter(model.parameters()), torch.zeros(()))
    swapped = {name: _slopes(modules[name], len(peak)) for name, (peak, _) in peaks.items()}
    whole = units == "all"
    found = {name: to_swap(peak, swapped[name], all_of_them=whole) for name, (peak, _) in peaks.items()}
    if not exceeds([peak for peak, _ in peaks.values()], list(swapped.values()), above):
        return []
    events, put_in = [], dict[str, tuple[nn.Module, nn.Module]]()
    for name, chosen in found.items():
        if not chosen.any():
            continue
        module = modules[name]
        if not isinstance(module, PartlyLeaky):
            module = PartlyLeaky(len(chosen), peaks[name][1]).to(like)
            put(model, modules[name], module)
            put_in[name] = modules[name], module
        events.append(swap(name, module.slope, chosen, slope))
    _check_reached(model, batch, put_in)
    return events


def all_partly_leaky(model: nn.Module, batch: Batch) -> None:
    """Replace every `nn.ReLU` module with a `PartlyLeaky` of slope 0, which computes the same.

    Later swaps then change no modules.

    Raises:
        ValueError: a forward pass calls no such module.

    Example:
        >>> model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
        >>> all_partly_leaky(model, torch.zeros(4, 1))
        >>> model[1].slope
        tensor([0., 0.])
    """
    peaks = _peaks(model, batch)
    if not peaks:
        raise ValueError(NONE)
    modules, like = modules_by_name(model), next(iter(model.parameters()), torch.zeros(()))
    for name, (peak, axis) in peaks.items():
        if not isinstance(modules[name], PartlyLeaky):
            put(model, modules[name], PartlyLeaky(len(peak), axis).to(like))


def exceeds(peaks: list[Tensor], slopes: list[Tensor], above: float) -> bool:
    """Whether the share of silent ReLU units is above a threshold."""
    silent = sum(int(((peak <= 0) & (slope == 0)).sum()) for peak, slope in zip(peaks, slopes, strict=True))
    return silent > above * sum(len(peak) for peak in peaks)


def to_swap(peak: Tensor, slope: Tensor, *, all_of_them: bool) -> Tensor:
    """Return a mask (F,) of the units to swap: those not yet swapped that are silent, or all of those.

    Args:
        peak: (F,) largest pre-activation.
        slope: (F,) current slopes.
        all_of_them: whether to include active units.
    """
    return (slope == 0) & (all_of_them | (peak <= 0))


def swap(site: str, slopes: Tensor, chosen: Tensor, slope: float) -> RemedyEvent:
    """Make some units of a site leaky."""
    slopes[chosen.to(slopes.device)] = slope
    return RemedyEvent(KIND, site, int(chosen.sum()), f"slope {slope:g}")


def _check(slope: float, above: float, units: str) -> None:
    if not isinstance(slope, int | float) or slope == 0 or not abs(slope) < float("inf"):
        raise ValueError(f"slope: expected a finite number other than 0, but got {slope!r}")
    if not 0 <= above < 1:
        raise ValueError(f"above: expected a number at least 0 and below 1, but got {above!r}")
    if units not in ("dead", "all"):
        raise ValueError(f"units: expected dead or all, but got {units!r}")


def _check_reached(model: nn.Module, batch: Batch, put_in: Mapping[str, tuple[nn.Module, nn.Module]]) -> None:
    """Undo a swap of modules if a forward does not call the new ones."""
    called: set[str] = set()
    if put_in:
        trace(model, batch, on_input=lambda site, z, layout: called.add(site.split("#")[0]))
    missed = [name for name in put_in if name not in called]
    if missed:
        for old, new in put_in.values():
            put(model, new, old)
        through = "through a reference that is not a submodule"
        raise ValueError(f"{missed[0]} cannot be replaced: the forward calls it {through}")


def _fallen(model: nn.Module, batch: Batch, before: Peaks) -> str:
    """List, by site, how many units that were not swapped have fallen silent."""
    more = []
    for name, (peak, _) in _peaks(model, batch).items():
        slopes = _slopes(modules_by_name(model)[name], len(peak))
        fallen = int(((peak <= 0) & (slopes == 0) & (before[name][0] > 0)).sum())
        if fallen:
            more.append(f"{fallen} of {name}")
    return ", ".join(more)


def _peaks(model: nn.Module, batch: Batch) -> Peaks:
    """Map each ReLU module to the largest pre-activation of its units over the batch, and their axis."""
    ours = {n for n, m in modules_by_name(model).items() if type(m) is nn.ReLU or isinstance(m, PartlyLeaky)}
    found: dict[str, tuple[Tensor, int]] = {}
    left: dict[str, str] = {}  # module → why it stays as it is

    def see(site: str, z: Tensor, layout: UnitLayout) -> None:
        name = site.split("#")[0]
        if name not in ours:
            return
        if len(layout.axes) > 1 or layout.splits:
            left[name] = "its units lie along several axes"
            return
        rows = rows_of_places(arranged(z, layout), layout.axes)
        if not len(rows):
            return  # no input reached it
        peak = torch.where(rows.isfinite().all(0), rows.amax(0), torch.nan).cpu()
        before = found.get(name)
        axis = (layout.axes or (-1,))[0]
        if before is not None and (len(before[0]) != len(peak) or before[1] != axis):
            left[name] = "it is called for layers of different shapes"
            return
        found[name] = (peak if before is None else torch.maximum(before[0], peak)), axis

    trace(model, batch, on_input=see)
    for name in sorted(left):  # a slope per unit needs one axis of units
        found.pop(name, None)
        warnings.warn(f"{name}: {left[name]}, so that it stays as it is", stacklevel=3)
    return found


def _slopes(module: nn.Module, units: int) -> Tensor:
    return module.slope.cpu() if isinstance(module, PartlyLeaky) else torch.zeros(units)
