"""Starvation: why units whose gates open receive no gradient.

Determined by trials on the latest inputs with random gradients at the model's outputs: which change lets a
gradient reach the starved units? First none (then it was the loss), then opening the units themselves (then
it was the inputs: what follows was closed on those that opened them), then also opening the dead units of
each later site, then of all these sites, then replacing zeros among the weights by small numbers, then
those that forwards multiply by.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree

from harness.attribution.budget import SECONDS
from harness.attribution.findings import ELSEWHERE, LOSS, MASKS, SELECTION, UNREAD, UNUSED, ZEROS
from harness.attribution.model_inputs import input_count
from harness.attribution.opened_masks import OpenedMasks
from harness.attribution.replay import Replay
from harness.attribution.snapshots import Snapshot, Values
from harness.graph.units import UnitLayout, arranged
from harness.recording.windows import WindowAccumulator

INPUTS = 256  # number of inputs used
MOST = 16  # largest number of sites examined one by one, FEWEST if a trial takes long
FEWEST = 4
LARGE = 1e3  # pre-activation at which a unit would be selected, if anything selects it
OPEN = 1e-3  # pre-activation of an opened unit: it changes subsequent layers as little as possible
SELECTING = ("topk", "kthvalue", "sort", "argsort", "argmax", "msort")  # torch functions that select units
COMPARING = ("max", "amax", "maximum", "fmax")  # those that may, where nothing else stops a gradient


def starvation(replay: Replay, snapshot: Snapshot, census: pd.DataFrame) -> pd.DataFrame:
    """Why each starved unit receives no gradient.

    Args:
        replay: replay of the model, in the modes of its training.
        snapshot: the latest parameters and inputs.
        census: census of the stream.

    Returns:
        site, unit, starved_by: the names of the sites whose dead units stop the gradient, one per line; or
        "the loss" (it gives no unit a gradient), "not in the loss" (the path to the outputs is open), "other
        inputs" (on which it is open), "zero weights", "selection: NAME" of the function that never selects
        them, "masks" (what they lead to is multiplied by exact zeros), "not read" (no output depends on
        them); "" if none of these is the reason.
    """
    table = census.loc[census["state"] == "starved", ["site", "unit"]].assign(starved_by="")
    if table.empty or not snapshot.inputs:
        return table
    trial = _Trial(replay, snapshot)
    begin = time.perf_counter()
    with _Selections(trial):
        reached, silent = trial.run()
    most = max(FEWEST, min(MOST, int(SECONDS / (time.perf_counter() - begin) / 2)))
    known = set(census.loc[census["state"] == "dead", "site"])
    dead = [site for site in silent if site in known]
    selecting = dict(trial.selected_after)
    alive = census[~census["state"].isin(("unobserved", "non_finite", "dead"))]
    there = table.index[_reached(reached, table)]
    table.loc[there, "starved_by"] = LOSS if (alive["grad_rms"] == 0).all() else UNUSED
    rest = table.drop(there)
    for _, units in list(rest.groupby("site", sort=False))[:most]:
        there = units.index[_reached(trial.run(forced=units)[0], units)]
        table.loc[there, "starved_by"] = ELSEWHERE
        rest = rest.drop(there)
    for site in dead[:most]:
        before = rest[[trial.is_before(str(own), site) for own in rest["site"]]]
        there = before.index[_reached(trial.run({site}, forced=rest)[0], before)] if len(before) else []
        table.loc[there, "starved_by"] = site
        rest = rest.drop(there)
    if len(rest) and len(dead) > 1:
        there = rest.index[_reached(trial.run(dead, forced=rest)[0], rest)]
        for index in there:
            own = str(rest.at[index, "site"])
            table.at[index, "starved_by"] = "\n".join(name for name in dead if trial.is_before(own, name))
        rest = rest.drop(there)
    read = pd.Series(True, rest.index)
    if len(rest):
        there = rest.index[_reached(trial.run(dead, forced=rest, fill=True)[0], rest)]
        table.loc[there, "starved_by"] = ZEROS
        rest = rest.drop(there)
        read = trial.are_read(rest)
        by = _selected(rest[read], selecting)
        table.loc[by.index, "starved_by"] = by
        rest = rest.drop(by.index)
    if len(rest):
        with OpenedMasks():
            there = rest.index[_reached(trial.run(dead, forced=rest)[0], rest)]
        table.loc[there, "starved_by"] = MASKS
        rest = rest.drop(there)
        by = _selected(rest[read[rest.index]], trial.compared_after)
        table.loc[by.index, "starved_by"] = by
        table.loc[rest.index[~read[rest.index]], "starved_by"] = UNREAD
    return table


class _Trial:
    """Passes with random gradients at the outputs.

    Attributes:
        first, last: site → index of its first and last call in a forward.
        selected_after, compared_after: site → name of a selecting function that was called after it.
    """

    def __init__(self, replay: Replay, snapshot: Snapshot) -> None:
        inputs, count = [], 0
        for one in reversed(snapshot.inputs):
            inputs.append(one)
            count += input_count(one)
            if count >= INPUTS:
                break
        self._replay, self._snapshot = replay, Snapshot(snapshot.values, inputs)
        self._parameters = {name for name, _ in replay.model.named_parameters()}
        self.first: dict[str, int] = {}
        self.last: dict[str, int] = {}
        self.called: list[str] = []  # sites called so far in the running pass
        self.selected_after: dict[str, str] = {}
        self.compared_after: dict[str, str] = {}

    def is_before(self, own: str, other: str) -> bool:
        """Whether a call of `own` precedes a call of `other`; both may be called several times."""
        return own != other and self.first.get(own, -1) < self.last.get(other, 0)

    def are_read(self, units: pd.DataFrame) -> pd.Series:
        """Which units' sites are read: the outputs change if all these units are large on every input."""
        before, read = self._outputs({}), pd.Series(True, units.index)
        for site, own in units.groupby("site", sort=False)["unit"]:
            read[own.index] = self._outputs({str(site): own.tolist()}) != before
        return read

    def _outputs(self, large: Mapping[str, Sequence[int]]) -> list[bytes]:
        """The outputs if some units of some sites are large."""
        taps, found = self._replay.taps(WindowAccumulator("stream")), list[bytes]()

        def call(caller: Any, site: str, z: Tensor, layout: UnitLayout) -> None:
            if site in large:
                value = arranged(z.data, layout)
                units = [axis % value.ndim for axis in layout.axes]
                value.masked_fill_(_own(value, units, large[site]), LARGE)

        taps.counter.on_call = call
        with self._replay.observing(), torch.no_grad(), taps.attached():
            for output in self._replay.outputs(self._snapshot):
                parts = [t for t in _pytree.tree_leaves(output) if isinstance(t, Tensor)]
                found += [t.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes() for t in parts]
        return found

    def run(
        self, opened: Collection[str] = (), *, forced: pd.DataFrame | None = None, fill: bool = False
    ) -> tuple[Mapping[str, np.ndarray], Sequence[str]]:
        """Run one trial.

        Args:
            opened: sites whose dead units are opened.
            forced: site and unit of units that are opened on all inputs.
            fill: whether to replace zeros among the parameters by small numbers.

        Returns:
            Site → rms of the gradient of each unit; and the sites with dead units.
        """
        windows = WindowAccumulator("stream")
        taps = self._replay.taps(windows, gradients=True)

        def call(caller: Any, site: str, z: Tensor, layout: UnitLayout) -> None:
            self.first.setdefault(site, len(self.called))
            self.last[site] = max(self.last.get(site, 0), len(self.called))
            self.called.append(site)
            if site in opened or site in always:
                value = arranged(z.data, layout)  # hides the change from autograd
                units = sorted(axis % value.ndim for axis in layout.axes)
                others = [axis for axis in range(value.ndim) if axis not in units]
                shut = value <= 0
                chosen = torch.zeros_like(shut)
                if site in opened:
                    chosen |= value.amax(others, keepdim=True) <= 0 if others else shut
                if site in always:
                    chosen |= _own(value, units, always[site])
                value.copy_(torch.where(chosen & shut, OPEN, value))

        def back(output: Any) -> None:
            parts = [t for t in _pytree.tree_leaves(output) if isinstance(t, Tensor)]
            parts = [t for t in parts if t.requires_grad]
            if parts:
                given = [torch.randn(t.shape, generator=draw).to(t) for t in parts]
                torch.autograd.backward(parts, given)

        taps.counter.on_call = call
        always: dict[str, list[int]] = {}
        if forced is not None and len(forced):
            always = {str(site): units.tolist() for site, units in forced.groupby("site")["unit"]}
        self.called.clear()
        values = self._filled() if fill else self._snapshot.values
        draw = torch.Generator().manual_seed(0)
        with self._replay.observing(), torch.enable_grad(), taps.attached():
            snapshot = Snapshot(values, self._snapshot.inputs)
            for _ in self._replay.outputs(snapshot, self._parameters, then=back):
                pass
        columns = windows.close(0, [], None)
        sites = {name: columns["site"] == name for name in dict.fromkeys(columns["site"].tolist())}
        gradients = {name: columns["grad_rms"][rows] for name, rows in sites.items()}
        silent = (columns["active"] == 0) & (columns["n"] > 0)
        return gradients, [name for name, rows in sites.items() if silent[rows].any()]

    def _filled(self) -> Values:
        draw = torch.Generator().manual_seed(1)
        return {
            name: torch.where(v == 0, 0.01 * torch.randn(v.shape, generator=draw).to(v), v)
            if name in self._parameters and v.is_floating_point()
            else v
            for name, v in self._snapshot.values.items()
        }


class _Selections(TorchFunctionMode):
    """Records after which sites a selecting function is called."""

    def __init__(self, trial: _Trial) -> None:
        super().__init__()
        self._trial = trial

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, trial = getattr(function, "__name__", ""), self._trial
        after = trial.selected_after if name in SELECTING else trial.compared_after
        floats = bool(args) and isinstance(args[0], Tensor) and args[0].is_floating_point()
        if name in (*SELECTING, *COMPARING) and floats:  # whole numbers are our own unit indices
            for site in trial.called:
                after.setdefault(site, name)
        return function(*args, **(kwargs or {}))


def _own(value: Tensor, axes: Sequence[int], units: Sequence[int]) -> Tensor:
    """A mask of some units, which broadcasts to a pre-activation with its units on these axes."""
    sizes = [value.shape[axis] if axis in axes else 1 for axis in range(value.ndim)]
    own = torch.zeros(math.prod(sizes), dtype=torch.bool, device=value.device)
    own[list(units)] = True
    return own.reshape(sizes)


def _selected(units: pd.DataFrame, after: Mapping[str, str]) -> pd.Series:
    """The reason of those units behind whose site a function selects."""
    return f"{SELECTION}: " + units["site"].map(dict(after)).dropna().astype(object)


def _reached(gradients: Mapping[str, np.ndarray], units: pd.DataFrame) -> np.ndarray:
    """Which units a gradient reaches, as a Boolean array."""
    found = [
        site in gradients and unit < len(gradients[site]) and bool(gradients[site][unit] > 0)
        for site, unit in zip(units["site"], units["unit"], strict=True)
    ]
    return np.array(found, dtype=bool)
